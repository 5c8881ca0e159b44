#!/usr/bin/env bash
# Creates .venv on first use, then runs a command; `./run.sh help` lists them. For bash 3.2 and later.
# Paths in the arguments are relative to the caller's folder: only test and check change folder.
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"; set -euo pipefail
self=${BASH_SOURCE[0]}
while [ -L "$self" ]; do # older macOS has no readlink -f
  link=$(readlink "$self")
  case $link in /*) self=$link ;; *) self=$(dirname "$self")/$link ;; esac
done
# An active environment, pip's configuration or, without -P or -I, modules in the caller's folder must not affect ours.
unset CDPATH PYTHONHOME PYTHONPATH VIRTUAL_ENV PIP_TARGET PIP_PREFIX UV_SYSTEM_PYTHON; export PIP_USER=0

here=$(cd "$(dirname "$self")" && pwd -P)
venv=${CNNRNN_VENV:-$here/.venv} venv=${venv%/}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
suits='import pip, sys; v = sys.version_info[:2]; print(*v); sys.exit(not (3, 11) <= v <= (3, 13))'
py=$venv/bin/python log=$venv/install.log lock=$venv.lock
incomplete=$venv/.incomplete # exists while requirements.txt is installed; if that is interrupted, .venv is created again
table=$here/cnnrnn/commands/commands.tsv # WORD, MODULE ("-": a command of this script), GROUPS, OPTIONS, HELP

say() { printf 'run.sh: %s\n' "$*" >&2; }
die() { local code=$1; shift; say "$*"; exit "$code"; }
commands() { # calls "$1" WORD MODULE HELP OPTIONS for each command of the table
  local name target groups options text
  while IFS=$'\t' read -r name target groups options text; do
    case $name in '#'*) ;; *) "$1" "$name" "$target" "$text" "$options" ;; esac
  done <"$table"
}
help_line() { printf '  %-14s %s\n' "$1" "$3"; }
help() {
  echo "./run.sh COMMAND [FLAGS]    (the first time, this creates .venv and installs requirements.txt)"
  commands help_line
  cat <<'TEXT'
`./run.sh phase1 --help` lists the flags of phase1. Without --dataset or --flagfile, commands read flags.txt: the built-in sample.
PYTHON=/path/to/python chooses the interpreter of the environment, CNNRNN_VENV=/a/folder its location.
With an NVIDIA driver, commands that use GPUs install requirements-gpu.txt, too (2.8 GB to download), unless
CUDA_VISIBLE_DEVICES is -1.
TEXT
}
completion() { # of this script's path, as it is typed; the list of flags needs the environment
  cat <<'TEXT'
_cnnrnn_run() {
  local run=${COMP_WORDS[0]} typed=${COMP_WORDS[COMP_CWORD]} list=''
  if [ "$COMP_CWORD" = 1 ]; then
    list=$("$run" help | sed -n 's/^  \([a-z0-9-]*\)  .*/\1/p')
  elif [ "${typed#-}" != "$typed" ] && [ -x "$(dirname "$run")/.venv/bin/python" ]; then case ${COMP_WORDS[1]} in
    test | check | tensorboard) ;; # other programs' flags
    *) list=$("$run" "${COMP_WORDS[1]}" --help | sed -n 's/^  --\(\[no\]\)\{0,1\}\([a-z0-9_]*\):.*/--\2/p')
  esac; fi
  COMPREPLY=($(compgen -W "$list" -- "$typed"))
}
[ -z "${ZSH_VERSION-}" ] || { autoload -U +X compinit bashcompinit && compinit -u && bashcompinit; }
complete -o default -F _cnnrnn_run ./run.sh run.sh
TEXT
}
find_module() { [ "$1" != "$word" ] || { module=$2; marks=$4; }; }
suggest() { [ "${1#"$beginning"}" = "$1" ] || suggestions="${suggestions:+$suggestions or }'$1'"; }
unknown() { # suggests the commands that share the longest beginning with $1, at least two letters
  local n beginning suggestions=''
  case $1 in -*) die 2 "expected a command first, as in './run.sh phase1 $1'; './run.sh help' lists them" ;; esac
  for ((n = ${#1}; n >= 2; n--)); do
    beginning=${1:0:n}
    commands suggest
    [ -z "$suggestions" ] || break
  done
  die 2 "unknown command '$1'${suggestions:+ (did you mean $suggestions?)}; './run.sh help' lists the commands"
}
find_python() { # sets python and version to the first suitable interpreter; found names an unsuitable one
  local name answer
  if [ -n "${PYTHON-}" ]; then set -- "$PYTHON"; else set -- python3.13 python3.12 python3.11 python3 python; fi
  python='' version='' found='no Python'
  for name in "$@"; do # it has to be run: pyenv has shims for versions that are not installed
    answer=$("$name" -I -c 'import sys; print("%d.%d %s" % (sys.version_info[:2] + (sys.executable,)))' 2>/dev/null) &&
      [ ! "$(dirname "${answer#* }")" -ef "$venv/bin" ] || continue
    case $answer in 3.1[123]\ *) version=${answer%% *} python=${answer#* }; return ;; esac
    [ "$found" != 'no Python' ] || found="only Python ${answer%% *}"
  done
}
make_venv() {
  local fix="install Python 3.11, 3.12 or 3.13, or set PYTHON=/path/to/python, and run this again"
  { [ ! -e "$venv" ] && [ ! -L "$venv" ]; } || rmdir "$venv" 2>/dev/null || [ -e "$venv/.installed-requirements.txt" ] || [ -e "$incomplete" ] ||
    die 2 "$venv is no environment that run.sh can use or has made: move it away, or give another CNNRNN_VENV"
  find_python
  [ -n "$python" ] || [ -z "${PYTHON-}" ] || die 2 "PYTHON=$PYTHON is not Python 3.11, 3.12 or 3.13 outside $venv"
  [ -n "$python" ] || command -v uv >/dev/null || die 2 "found $found: $fix"
  [ ! -e "$venv" ] || say "removing $venv, which is incomplete or has an unsuitable Python"
  rm -rf "$venv"; mkdir "$venv"; : >"$incomplete"
  say "creating $venv with Python ${version:-3.12 from uv}${python:+ ($python)}"
  if command -v uv >/dev/null; then
    ! own_uv venv --quiet --seed --allow-existing --python "${python:-3.12}" "$venv" >>"$log" 2>&1 || return 0
    [ -n "$python" ] || die 2 "found $found, and uv could not download one (log: $log): $fix"
  fi
  ! "$python" -P -m venv "$venv" >>"$log" 2>&1 || return 0
  "$python" -P -c 'import ensurepip' 2>/dev/null ||
    die 2 "Python $version lacks its venv package: install it (Debian, Ubuntu: apt install python$version-venv) and run this again"
  failed "creating $venv"
}
own_uv() (cd "$here" && uv "$@") # uv.toml and pyproject.toml of the caller's folder must not affect it
packages() { # if uv fails, pip: uv does not read the indexes and certificates of pip's configuration
  ! command -v uv >/dev/null || ! own_uv pip install --python "$py" -r "$here/$1" || return 0
  "$py" -P -m pip install --no-input --disable-pip-version-check --progress-bar off -r "$here/$1"
}
failed() { # failed WHAT: prints the end of the log, then one sentence
  local why="$1 failed: fix the problem shown above"
  tail -n 4 "$log" | cut -c 1-200 | sed 's/^/    /' >&2
  if grep -qiE 'no space left|quota exceeded' "$log"; then
    why="$1 failed because the disk or your quota is full: make room (an installation takes about 3 GB, with NVIDIA's libraries 7 GB)"
  elif grep -qiE 'connection|name resolution|timed out|dns error|max retries|error sending request' "$log"; then
    why="$1 failed because no package index could be reached: connect to the network, or set pip's proxy or index"
  fi
  die 1 "$why, and run this again (log: $log)"
}

# Identifies an installation of a requirements file: the Python version and the content of the file.
stamp() { "$py" -P -c "$suits" 2>/dev/null && cat "$here/$1"; }
ready() { [ ! -e "$incomplete" ] && [ -e "$venv/.installed-$1" ] && [ "$(cat "$venv/.installed-$1")" = "$(stamp "$1")" ]; }

runs() { case $(LC_ALL=C; kill -0 "$1" 2>&1) in '' | *'not permitted'*) ;; *) return 1 ;; esac; } # also another user's
take_lock() { # the lock is a link to the holder's host and process id, because creating a link is atomic
  local host holder reported='' failures=''; host=$(uname -n)
  [ -w "$(dirname "$venv")" ] || die 1 "cannot write to $(dirname "$venv"): choose another folder with CNNRNN_VENV=/a/folder"
  until mkdir -p "$lock" 2>/dev/null && ln -s "$host:$$" "$lock/holder" 2>/dev/null; do
    if holder=$(readlink "$lock/holder"); then failures=''; else failures=.$failures; fi # it may have just ended
    [ "$failures" != ..... ] || die 1 "cannot create the symbolic link $lock/holder: the disk is full or has no" \
      "symbolic links; choose another folder with CNNRNN_VENV=/a/folder"
    [ "${holder%:*}" != "$host" ] || { [ "${holder##*:}" != $$ ] && runs "${holder##*:}"; } || rm -f "$lock/holder" # ended
    [ -z "$holder" ] || [ "$holder" = "$reported" ] || say "waiting for another run.sh (process $holder) to finish" \
      "installing (if none is running, remove $lock)"
    reported=$holder; sleep 1
  done
  trap drop_lock EXIT
  trap 'exit 130' INT # otherwise it continues if the installer handles the interrupt, too, as pip does
}
drop_lock() { rm -f "$lock/holder"; rmdir "$lock" 2>/dev/null || true; trap - EXIT INT; }

environment() { # environment FILE WHAT: on return, the requirements of FILE are installed
  ! ready "$1" || return 0
  take_lock
  if ! ready "$1"; then # again: another run.sh may have installed it meanwhile
    if [ -e "$incomplete" ] || ! stamp "$1" >/dev/null; then make_venv; fi
    say "installing $2"; : >"$log"
    [ "$1" != requirements.txt ] || : >"$incomplete"
    if ! packages "$1" 2>&1 | while IFS= read -r line; do
      printf '%s\n' "$line" >>"$log"
      case $line in *Downloading*\([0-9][0-9]*M*B\)) say "$line" ;; esac # 10 MB and more
    done; then
      [ ! -e "$venv/.installed-requirements.txt" ] || rm -f "$incomplete" # still usable: installers undo a failed update
      failed "installing $1"
    fi
    stamp "$1" >"$venv/.installed-$1"
    rm -f "$incomplete"
  fi
  drop_lock
}

asks_help() { case " $* " in *' --help '* | *' -h '* | *' --helpfull '*) ;; *) return 1 ;; esac; }
gpu() { # whether to install the GPU libraries: the command uses GPUs, there is an NVIDIA driver, and they are not hidden
  local root=${CNNRNN_DRIVER_ROOT:-} # for tests: the folder in which the driver's files are looked for, instead of /
  ! asks_help "$@" || return 1
  case "$module/$word/ $marks " in -/test/*) ;; -/* | *' cpu '*) return 1 ;; esac
  [ "$(uname -m)" = x86_64 ] || return 1 # TensorFlow for other processors does not use GPUs
  [ -e "$root/dev/nvidiactl" ] || [ -e "$root/usr/lib/wsl/lib/libcuda.so.1" ] || return 1 # Linux, WSL
  case ${CUDA_VISIBLE_DEVICES-all} in '' | -*) return 1 ;; esac
}
gpu_environment() { # without the GPU libraries the program still works: on the CPU
  local code; set +e # in `( ... ) || code=$?`, bash would ignore set -e in the subshell, too
  (set -e; environment requirements-gpu.txt "$1")
  code=$?; set -e
  [ "$code" -lt 128 ] || exit "$code" # interrupted
  [ "$code" = 0 ] || say "warning: NVIDIA's libraries could not be installed: continuing, probably on the CPU, which is" \
    "many times slower. CUDA_VISIBLE_DEVICES=-1 turns the installation and this warning off."
}

word=${1:-help} module='' marks=''; [ $# -eq 0 ] || shift
case $word in -h | --help) word=help ;; esac
commands find_module
[ -n "$module" ] || unknown "$word"
case $word in help | completion) "$word"; exit ;; esac
[ -d "$here/cnnrnn/data" ] || die 1 "$here/cnnrnn/data is no symbolic link to a folder: put the repository on a disk" \
  "with symbolic links, call 'git config core.symlinks true' and check it out again"
environment requirements.txt "TensorFlow and the rest of requirements.txt: about 700 MB to download, 1 to 3 minutes"
! gpu "$@" || gpu_environment \
  "NVIDIA's libraries, because this machine has an NVIDIA driver: 2.8 GB to download, 4.2 GB on disk, 2 to 10 minutes"
[ "$word" != serve ] || asks_help "$@" || environment requirements-serve.txt "the web server: a few seconds"
export PYTHONPATH=$here
if [ "$module" != - ]; then
  sample=--flagfile=$here/flags.txt # its sizes are for the sample only; other data sets are used in full
  case " $marks " in *' recorded '*) sample='' ;; esac # its settings are those of the run that it names
  for arg in "$@"; do case $arg in -dataset* | --dataset* | -flagfile* | --flagfile*) sample='' ;; esac; done
  exec "$py" -P -m cnnrnn.main "$word" ${sample:+"$sample"} "$@"
fi
case $word in
  tensorboard) export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}; exec "$py" -P -m tensorboard.main --logdir runs "$@" ;;
  bench) exec "$py" -P -m benchmarks.main "$@" ;;
esac
environment requirements-dev.txt "pytest and ruff: a few seconds"; cd "$here"
tests="not slow" # slow tests have the full size: two at a time would not fit into memory
if [ "$word" = check ]; then "$py" -m ruff check .; "$py" -m ruff format --check .; else tests+=" and not thorough"; fi
if [ "${1:-}" = --all ]; then shift; else set -- -m "$tests" --numprocesses=3 --dist=worksteal "$@"; fi
exec "$py" -m pytest "$@"
