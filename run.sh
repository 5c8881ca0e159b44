#!/usr/bin/env bash
# The one entry: makes .venv on first use, then runs a word; `./run.sh help` lists them. For bash 3.2 and later.
# Paths among the arguments mean what they mean to whoever typed them: only test and check change folder.
set -euo pipefail
self=${BASH_SOURCE[0]}
while [ -L "$self" ]; do # older macOS has no readlink -f
  link=$(readlink "$self")
  case $link in /*) self=$link ;; *) self=$(dirname "$self")/$link ;; esac
done
# What another active environment, or pip's configuration, would do to ours.
unset CDPATH PYTHONHOME PYTHONPATH VIRTUAL_ENV PIP_TARGET PIP_PREFIX UV_SYSTEM_PYTHON
export PIP_USER=0

here=$(cd "$(dirname "$self")" && pwd -P)
venv=${CNNRNN_VENV:-$here/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
suits='import pip, sys; v = sys.version_info[:2]; print(*v); sys.exit(not (3, 11) <= v <= (3, 13))'
py=$venv/bin/python log=$venv/install.log lock=$venv.lock
incomplete=$venv/.incomplete # is there during every installation: found at a start, all is made anew

say() { printf 'run.sh: %s\n' "$*" >&2; }
die() { local code=$1; shift; say "$*"; exit "$code"; }

help() {
  cat <<'TEXT'
./run.sh WORD [FLAGS]    (the first time, it makes .venv and installs requirements.txt)
  phase1         train with the CNN frozen
  phase2         train everything, from phase 1's best
  train          the whole recipe: phase 1, phase 2, evaluation
  evaluate       measure the best checkpoint on the whole validation split
  predict        `predict PICTURES`: the most likely classes of files, folders, patterns or -
  explain        `explain PICTURES`: where each branch found the most likely classes, as PNGs
  export         write the best weights as files that work without this program
  serve          an export behind HTTP, with a page to drop a picture on
  preflight      try both phases for a few steps: memory, speed, the time of the whole run
  doctor         examine every picture of a data set: what is wrong, what is odd
  verify-resume  prove that a run killed at random ends, to the bit, as one in one go
  reproduce      `reproduce RUN`: compare what made a run with this machine, and make it again
  data           prepare and describe the data set; `data restructure SRC DST` makes class folders
  bench          measure this program beside Keras's model.fit, in 15 minutes; --peers adds PyTorch
  tensorboard    open TensorBoard on ./runs, or on --logdir
  test           run the tests; --all adds the slow ones; pytest's arguments may follow
  check          lint, then run the tests
  help           this list
Flags: `./run.sh phase1 --help` lists them. Without --dataset and --flagfile, flags.txt comes first: the built-in sample.
PYTHON=/path/to/python chooses what makes the environment, CNNRNN_VENV=/a/folder where it lies.
TEXT
}
unknown() { # suggests the words that share the longest beginning with $1, of two letters at least
  local n word near=''
  case $1 in -*) die 2 "begin with a word, as in './run.sh phase1 $1'; './run.sh help' lists the words" ;; esac
  for ((n = ${#1}; n >= 2; n--)); do
    for word in phase1 phase2 train evaluate predict explain export serve preflight doctor verify-resume reproduce data bench tensorboard test check help; do
      [ "${word#"${1:0:n}"}" = "$word" ] || near="${near:+$near or }'$word'"
    done
    [ -z "$near" ] || break
  done
  die 2 "there is no word '$1'${near:+ (did you mean $near?)}; './run.sh help' lists the words"
}
find_python() { # sets python and version to the first that runs and suits; found says what there was instead
  local name answer
  python='' version='' found='no Python'
  for name in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3 python; do
    # Asked by running it: there are pyenv shims for versions that are not installed.
    answer=$("$name" -c 'import sys; print("%d.%d %s" % (sys.version_info[:2] + (sys.executable,)))' 2>/dev/null) || continue
    case $answer in 3.1[123]\ *) version=${answer%% *} python=${answer#* }; return ;; esac
    [ "$found" != 'no Python' ] || found="only Python ${answer%% *}"
  done
}
make_venv() {
  local mend="install Python 3.11, 3.12 or 3.13, or name one by PYTHON=/path/to/python, and run this again"
  [ ! -d "$venv" ] || rmdir "$venv" 2>/dev/null || [ -e "$venv/pyvenv.cfg" ] || [ -e "$incomplete" ] ||
    die 2 "$venv is there and is no Python environment: move it away and run this again"
  find_python
  [ -n "$python" ] || command -v uv >/dev/null || die 2 "found $found: $mend"
  [ ! -e "$venv" ] || say "removing $venv, which is incomplete or has no Python that suits"
  rm -rf "$venv"; mkdir "$venv"; : >"$incomplete"
  say "making $venv with Python ${version:-3.12 from uv}${python:+ ($python)}"
  if command -v uv >/dev/null; then
    ! uv venv --quiet --seed --allow-existing --python "${python:-3.12}" "$venv" >>"$log" 2>&1 || return 0
    [ -n "$python" ] || die 2 "found $found, and uv could not fetch one (the whole log: $log): $mend"
  fi
  ! "$python" -m venv "$venv" >>"$log" 2>&1 || return 0
  "$python" -c 'import ensurepip' 2>/dev/null ||
    die 2 "Python $version lacks its venv package: install it (Debian, Ubuntu: apt install python$version-venv) and run this again"
  failed "making $venv"
}
packages() { # pip after a failing uv, because uv does not read the indexes and certificates of pip's configuration
  ! command -v uv >/dev/null || ! uv pip install --python "$py" -r "$here/$1" || return 0
  "$py" -m pip install --no-input --disable-pip-version-check --progress-bar off -r "$here/$1"
}
failed() { # failed WHAT: the end of the log, then one sentence
  local why="$1 failed: mend what the lines above say"
  tail -n 4 "$log" | cut -c 1-200 | sed 's/^/    /' >&2
  if grep -qi 'no space left' "$log"; then
    why="$1 failed because the disk is full: make room (in all it takes about 3 GB)"
  elif grep -qiE 'connection|name resolution|timed out|dns error|max retries|error sending request' "$log"; then
    why="$1 failed because no package index could be reached: connect to the network, or set pip's proxy or index"
  fi
  die 1 "$why, and run this again (the whole log: $log)"
}

# What the environment holds when FILE is installed: a Python that suits, and the file itself.
stamp() { "$py" -c "$suits" 2>/dev/null && cat "$here/$1"; }
ready() { [ ! -e "$incomplete" ] && [ -e "$venv/.installed-$1" ] && [ "$(cat "$venv/.installed-$1")" = "$(stamp "$1")" ]; }

take_lock() { # a link to the holder's process number: it is made in one step, or not at all
  local holder told=''
  [ -w "$(dirname "$venv")" ] || die 1 "cannot write to $(dirname "$venv"): name another place by CNNRNN_VENV=/a/folder"
  until mkdir -p "$lock" && ln -s "$$" "$lock/holder" 2>/dev/null; do
    holder=$(readlink "$lock/holder" || echo unknown)
    [ "$holder" = unknown ] || kill -0 "$holder" 2>/dev/null || rm -f "$lock/holder" # its run.sh is gone
    [ -n "$told" ] || say "waiting for another run.sh (process $holder) to finish installing (if there is none, remove $lock)"
    told=1; sleep 1
  done
  trap drop_lock EXIT
}
drop_lock() { rm -f "$lock/holder"; rmdir "$lock" 2>/dev/null || true; trap - EXIT; }

environment() { # environment FILE WHAT: on return, what FILE pins is installed
  ! ready "$1" || return 0
  take_lock
  if ! ready "$1"; then # still: no other run.sh has done it meanwhile
    if [ -e "$incomplete" ] || ! stamp "$1" >/dev/null; then make_venv; fi
    say "installing $2"
    : >"$incomplete"; : >"$log"
    if ! packages "$1" 2>&1 | while IFS= read -r line; do
      printf '%s\n' "$line" >>"$log"
      case $line in *Downloading*\([0-9][0-9]*M*B\)) say "$line" ;; esac # of 10 MB and more
    done; then
      [ ! -e "$venv/.installed-requirements.txt" ] || rm -f "$incomplete" # what worked still works: installers undo what fails
      failed "installing $1"
    fi
    stamp "$1" >"$venv/.installed-$1"
    rm -f "$incomplete"
  fi
  drop_lock
}

word=${1:-help}
[ $# -eq 0 ] || shift
case $word in
  help | -h | --help) help; exit ;;
  phase1 | phase2 | train | evaluate | predict | explain | export | serve | preflight | doctor | verify-resume | reproduce | data | bench | tensorboard | test | check) ;;
  *) unknown "$word" ;;
esac
environment requirements.txt "TensorFlow and the rest of requirements.txt: about 700 MB to download, 1 to 3 minutes"
[ "$word" != serve ] || environment requirements-serve.txt "the web server: some seconds"
export PYTHONPATH=$here
case $word in
  # -P: nothing in the caller's folder can stand in for a module.
  tensorboard) export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}; exec "$py" -P -m tensorboard.main --logdir runs "$@" ;;
  bench) exec "$py" -P -m benchmarks.main "$@" ;;
  phase1 | phase2 | train | evaluate | predict | explain | export | serve | preflight | doctor | verify-resume | reproduce | data)
    sample=--flagfile=$here/flags.txt # its sizes are for the sample alone: other data is used whole
    for arg in "$@"; do case $arg in -dataset* | --dataset* | -flagfile* | --flagfile*) sample='' ;; esac; done
    exec "$py" -P -m cnnrnn.main "$word" ${sample:+"$sample"} "$@" ;;
esac
environment requirements-dev.txt "pytest and ruff: some seconds"
cd "$here"
if [ "$word" = check ]; then "$py" -m ruff check .; "$py" -m ruff format --check .; fi
# The slow ones are of full size: two at a time would not fit into memory.
if [ "${1:-}" = --all ]; then shift; else set -- -m "not slow" --numprocesses=2 --dist=worksteal "$@"; fi
exec "$py" -m pytest "$@"
