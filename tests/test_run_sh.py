"""run.sh: a copy of it runs a stand-in program, with requirements that need no network."""

import contextlib
import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import zipfile

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
TABLE = "cnnrnn/commands/commands.tsv"
# The programs that run.sh needs; a PATH of these alone has no Python and no uv.
TOOLS = "bash cat cp cut dirname grep ln mkdir readlink rm rmdir sed sleep tail touch uname".split()
STAND_IN = """import os, sys
print(os.getcwd(), sys.argv[1:])
sys.exit(int(os.environ.get("STAND_IN_EXIT", "0")))
"""
# In place of pip, which takes seconds: installs the wheels of a requirements file.
PIP = """import pathlib, shutil, sys, sysconfig, urllib.parse, urllib.request, zipfile
lines = pathlib.Path(sys.argv[sys.argv.index("-r") + 1]).read_text().splitlines()
folder, site = pathlib.Path("nowhere"), pathlib.Path(sysconfig.get_path("purelib"))
for line in lines:
    option, _, value = line.partition(" ")
    name, is_requirement, version = line.partition("==")
    if option == "--find-links":
        folder = pathlib.Path(urllib.request.url2pathname(urllib.parse.urlsplit(value).path))
    elif is_requirement:
        wheel = folder / f"{name}-{version}-py3-none-any.whl"
        if not wheel.exists():
            reason = "" if "--no-index" in lines else " (connection refused)"
            sys.exit(f"ERROR: No matching distribution found for {line}{reason}")
        for earlier in site.glob(f"{name}-*.dist-info"):
            shutil.rmtree(earlier)
        shutil.rmtree(site / "__pycache__", ignore_errors=True)  # may seem to be of the new files
        zipfile.ZipFile(wheel).extractall(site)
        print(f"Successfully installed {name}-{version}")
"""


def make_project(folder: pathlib.Path) -> pathlib.Path:
    """A copy of run.sh with stand-ins for the program, TensorBoard, pytest, ruff and a package."""
    (folder / TABLE).parent.mkdir(parents=True)
    (folder / "cnnrnn/data").mkdir()
    (folder / "benchmarks").mkdir()
    (folder / "tensorboard").mkdir()
    shutil.copy(REPOSITORY / "run.sh", folder)
    shutil.copy(REPOSITORY / TABLE, folder / TABLE)
    modules = "cnnrnn/main.py", "benchmarks/main.py", "tensorboard/main.py", "pytest.py", "ruff.py"
    for name in modules:
        (folder / name).write_text(STAND_IN)
    make_wheel(folder, "1.0")
    (folder / "requirements.txt").write_text(requirement(folder, "1.0"))
    (folder / "requirements-dev.txt").write_text(requirement(folder, "1.0"))
    return folder


def make_wheel(folder: pathlib.Path, version: str, name: str = "standin") -> None:
    """A package that pip can install without a network."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"version = {version!r}\n")
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def requirement(folder: pathlib.Path, version: str, name: str = "standin") -> str:
    return f"--no-index\n--find-links {folder.as_uri()}\n{name}=={version}\n"


def make_driver(root: pathlib.Path, file: str) -> str:
    """The file by which a driver is found; returns the value of CNNRNN_DRIVER_ROOT."""
    (root / file).parent.mkdir(parents=True)
    (root / file).touch()
    return str(root)


def environment(tools: pathlib.Path, **changes: str) -> dict[str, str]:
    others = ("PIP_", "PYTHON", "CNNRNN", "CUDA_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(others)}
    isolated = {
        "CNNRNN_DRIVER_ROOT": str(tools),  # no NVIDIA driver, on any machine
        "PATH": str(tools),
        "PYTHON": sys.executable,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",  # nothing listens there
        "PIP_RETRIES": "1",
    }
    return kept | isolated | changes


def run(project, tools, *arguments, cwd=None, **changes):
    return subprocess.run(
        [str(project / "run.sh"), *arguments],
        cwd=cwd or project,
        env=environment(tools, **changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def fake(tools: pathlib.Path, name: str, body: str) -> None:
    (tools / name).write_text(f"#!/bin/sh\n{body}\n")
    (tools / name).chmod(0o755)


@pytest.fixture
def tools(tmp_path):
    """A PATH that the test adds its fakes to."""
    return make_tools(tmp_path / "tools")


def make_tools(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir()
    for name in TOOLS:
        # run.sh starts with the full path of /usr/bin/env.
        os.symlink(shutil.which(name), folder / name)
    return folder


@pytest.fixture
def fresh(tmp_path):
    """A project in which nothing is installed; the space in its path is intended."""
    return make_project(tmp_path / "a clone")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A project with its environment: (project, tools, result of the first run).

    The environment was made by pip; afterwards it has the stand-in for it.
    """
    if importlib.util.find_spec("ensurepip") is None:
        pytest.skip("python -m venv needs ensurepip, e.g. of Debian's package python3-venv")
    folder = tmp_path_factory.mktemp("installed")
    project, tools = make_project(folder / "a clone"), make_tools(folder / "tools")
    first = run(project, tools, "phase1", "--samples=3")
    assert first.returncode == 0, first.stderr
    pip = pip_of(project)
    pip.rename(pip.with_name("real.py"))
    pip.write_text(PIP)
    return project, tools, first


def pip_of(project: pathlib.Path) -> pathlib.Path:
    """The program that `python -m pip` runs in the environment of a project."""
    (pip,) = (project / ".venv").glob("lib/python*/site-packages/pip/__main__.py")
    return pip


@pytest.fixture
def real_pip(installed):
    """The installed project has pip itself."""
    pip = pip_of(installed[0])
    pip.write_bytes(pip.with_name("real.py").read_bytes())
    yield
    pip.write_text(PIP)


@pytest.fixture
def changing(installed):
    """The installed project, whose requirements are in the end as before: (project, tools)."""
    project, tools, _ = installed
    requirements = project / "requirements.txt"
    before = requirements.read_text()
    yield project, tools
    requirements.write_text(before)
    result = run(project, tools, "phase1")
    assert result.returncode == 0, result.stderr


# --- commands ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["help"], ["-h"], ["--help"]])
def test_help_lists_the_commands_and_needs_no_python(fresh, tools, arguments):
    result = run(fresh, tools, *arguments, PYTHON="")
    assert result.returncode == 0
    listed = [line.split(maxsplit=1) for line in result.stdout.splitlines() if line[:2] == "  "]
    rows = [row.split("\t") for row in (REPOSITORY / TABLE).read_text().splitlines()[1:]]
    assert listed == [[word, text] for word, *_, text in rows]
    assert not (fresh / ".venv").exists()


@pytest.mark.parametrize(
    "word, suggested",
    [
        ("phase3", "'phase1' or 'phase2'"),
        ("eval", "'evaluate'"),
        ("tests", "'test'"),
        ("trian", "'train'"),
        ("xyz", None),
        ("#", None),
    ],
)
def test_an_unknown_command_is_named_with_similar_ones(fresh, tools, word, suggested):
    result = run(fresh, tools, word)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert f"unknown command '{word}'" in result.stderr
    assert (f"did you mean {suggested}?" if suggested else "unknown") in result.stderr
    assert ("did you mean" in result.stderr) == bool(suggested)


def test_a_flag_in_the_place_of_the_command(fresh, tools):
    result = run(fresh, tools, "--dataset=digits")
    assert result.returncode == 2
    assert "./run.sh phase1 --dataset=digits" in result.stderr


# --- which Python --------------------------------------------------------------------------------


def test_no_python(fresh, tools):
    result = run(fresh, tools, "phase1", PYTHON="")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "found no Python: install Python 3.11, 3.12 or 3.13" in result.stderr
    assert not (fresh / ".venv").exists() and not (fresh / ".venv.lock").exists()


def test_interpreters_that_are_too_old_or_do_not_run(fresh, tools):
    fake(tools, "python3.13", "echo 'command not found here' >&2; exit 127")  # as pyenv's shims do
    fake(tools, "python3", "echo 3.9 /usr/bin/python3")
    fake(tools, "python", "echo 2.7 /usr/bin/python")
    result = run(fresh, tools, "phase1", PYTHON="")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "found only Python 3.9: install Python 3.11, 3.12 or 3.13" in result.stderr


def test_an_interpreter_that_was_asked_for_is_not_replaced_by_another(fresh, tools):
    fake(tools, "python3.12", f'exec "{sys.executable}" "$@"')
    result = run(fresh, tools, "phase1", PYTHON="/nowhere/python")
    assert result.returncode == 2
    assert "PYTHON=/nowhere/python is not Python 3.11, 3.12 or 3.13" in result.stderr
    assert not (fresh / ".venv").exists()


def test_the_python_of_an_environment_that_is_created_again_is_not_used(fresh, tools):
    """It is active, and is removed first."""
    (fresh / ".venv/bin").mkdir(parents=True)
    (fresh / ".venv/.incomplete").touch()
    own = fresh / ".venv/bin/python3.12"
    fake(fresh / ".venv/bin", "python3.12", f'echo "3.12 {own}"')
    path = f"{fresh / '.venv/bin'}:{tools}"
    result = run(fresh, tools, "phase1", PYTHON="", PATH=path)
    assert result.returncode == 2 and "found no Python: install" in result.stderr
    assert own.exists()


def test_sh_is_replaced_by_bash(fresh, tools):
    """That of Debian is no bash."""
    command = ["sh", str(fresh / "run.sh"), "help"]
    result = subprocess.run(command, env=environment(tools, PATH=os.environ["PATH"]))
    assert result.returncode == 0


def test_a_python_without_its_venv_package(fresh, tools):
    python = tools / "python3.12"
    fake(tools, "python3.12", f'case $3 in *version*) echo "3.12 {python}";; *) exit 1; esac')
    result = run(fresh, tools, "phase1", PYTHON="")
    assert result.returncode == 2
    assert "apt install python3.12-venv" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("reason", ["No space left on device", "Disk quota exceeded"])
def test_a_full_disk(fresh, tools, reason):
    answers = f'*version*) echo "3.12 {tools}/python3.12";; *ensurepip*) ;;'
    fake(tools, "python3.12", f"case $3 in {answers} *) echo 'OSError: {reason}'; exit 1; esac")
    result = run(fresh, tools, "phase1", PYTHON="")
    assert result.returncode == 1
    assert "failed because the disk or your quota is full" in result.stderr.splitlines()[-1]


def test_uv_is_asked_for_a_python_and_its_failure_is_reported(fresh, tools):
    fake(tools, "uv", 'echo "uv $*"; exit 2')
    result = run(fresh, tools, "phase1", PYTHON="")
    assert result.returncode == 2
    assert "uv could not download one" in result.stderr
    log = (fresh / ".venv/install.log").read_text()
    assert "uv venv --quiet --seed --allow-existing --python 3.12" in log


def test_uv_reads_no_settings_of_the_callers_folder(fresh, tools, tmp_path, installed):
    made = f'cp -R "{installed[0]}/.venv/." "{fresh}/.venv"'
    fake(tools, "uv", f'echo "$1 in $PWD"; case $1 in venv) {made};; *) exit 1; esac')
    result = run(fresh, tools, "phase1", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    log = (fresh / ".venv/install.log").read_text()
    assert f"pip in {fresh}\n" in log


# --- the environment -----------------------------------------------------------------------------


def test_the_first_run_installs_and_then_runs_the_program(installed):
    project, _, first = installed
    assert first.returncode == 0, first.stderr
    assert f"creating {project}/.venv with Python 3.1" in first.stderr
    assert "installing TensorFlow" in first.stderr and "minutes" in first.stderr
    assert first.stdout == (
        f"{project} {['phase1', f'--flagfile={project}/flags.txt', '--samples=3']}\n"
    )
    assert (project / ".venv/.installed-requirements.txt").exists()
    assert not (project / ".venv/.incomplete").exists()
    assert not (project / ".venv.lock").exists()


def test_the_second_run_installs_nothing(installed):
    project, tools, _ = installed
    result = run(project, tools, "evaluate", PYTHON="")
    assert (result.returncode, result.stderr) == (0, "")


def test_changed_requirements_are_installed_in_place(changing):
    project, tools = changing
    make_wheel(project, "2.0")
    (project / "requirements.txt").write_text(requirement(project, "2.0"))
    result = run(project, tools, "phase1", PYTHON="")
    assert result.returncode == 0, result.stderr
    assert "installing" in result.stderr and "creating" not in result.stderr
    version = [project / ".venv/bin/python", "-c", "import standin; print(standin.version)"]
    assert subprocess.check_output(version, text=True) == "2.0\n"
    assert run(project, tools, "phase1").stderr == ""


def test_settings_of_other_environments_have_no_effect(changing, real_pip, tmp_path):
    project, tools = changing
    for module in ("tensorflow", "types", "enum", "logging"):
        wrong = "raise SystemExit('imported from the current folder')\n"
        (tmp_path / f"{module}.py").write_text(wrong)
    requirements = project / "requirements.txt"
    requirements.write_text(requirements.read_text() + "# changed\n")
    result = run(
        project,
        tools,
        "phase1",
        cwd=tmp_path,
        PIP_USER="1",
        PIP_TARGET=str(tmp_path / "elsewhere"),
        PYTHONHOME="/nowhere",
        PYTHONPATH=str(tmp_path),
        VIRTUAL_ENV=str(tmp_path),
        CDPATH="/:/tmp",
    )
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_without_a_network(fresh, tools, installed, real_pip):
    shutil.copytree(installed[0] / ".venv", fresh / ".venv", symlinks=True)
    (fresh / ".venv/.installed-requirements.txt").unlink()
    (fresh / "requirements.txt").write_text("standin==3.0\n")
    result = run(fresh, tools, "phase1")
    assert (result.returncode, result.stdout) == (1, "")
    sentence = result.stderr.splitlines()[-1]
    assert "no package index could be reached: connect to the network" in sentence
    assert f"{fresh}/.venv/install.log" in sentence
    assert not (fresh / ".venv/.installed-requirements.txt").exists()
    assert not (fresh / ".venv.lock").exists()


@pytest.mark.thorough
def test_a_failed_update_is_reported_and_leaves_the_old_environment_usable(installed, real_pip):
    project, tools, _ = installed
    requirements = project / "requirements.txt"
    before = requirements.read_text()
    requirements.write_text("--no-index\nstandin==9.0\n")
    try:
        results = [run(project, tools, "phase1") for _ in range(2)]
    finally:
        requirements.write_text(before)
    for result in results:  # twice: the first must not be recorded as installed
        assert (result.returncode, result.stdout) == (1, "")
        assert "standin==9.0" in result.stderr
        assert "requirements.txt failed: fix the problem shown above" in result.stderr
    assert run(project, tools, "phase1").stderr == ""


def test_dev_requirements_only_for_the_tests(installed):
    project, tools, _ = installed
    # Another test may have installed them.
    (project / ".venv/.installed-requirements-dev.txt").unlink(missing_ok=True)
    result = run(project, tools, "test", "-k", "a b", cwd="/")
    assert "installing pytest" in result.stderr
    parallel = ["--numprocesses=3", "--dist=worksteal"]
    quick = ["-m", "not slow and not thorough", *parallel]
    assert result.stdout == f"{project} {[*quick, '-k', 'a b']}\n"
    result = run(project, tools, "test", "--all")
    assert (result.stderr, result.stdout) == ("", f"{project} []\n")
    result = run(project, tools, "check")
    assert result.stdout.splitlines() == [
        f"{project} ['check', '.']",
        f"{project} ['format', '--check', '.']",
        f"{project} {['-m', 'not slow', *parallel]}",
    ]
    result = run(project, tools, "check", STAND_IN_EXIT="4")
    assert result.returncode == 4 and len(result.stdout.splitlines()) == 1


@pytest.fixture
def with_gpu_libraries(installed, tmp_path):
    """The installed project, before the GPU libraries: (project, tools, environment changes)."""
    project, tools, _ = installed
    make_wheel(project, "1.0", "gpulibraries")
    (project / "requirements-gpu.txt").write_text(requirement(project, "1.0", "gpulibraries"))
    (tmp_path / "fakes").mkdir()
    fake(tmp_path / "fakes", "uname", 'echo "${MACHINE:-x86_64}"')
    yield (
        project,
        tools,
        {
            "CNNRNN_DRIVER_ROOT": make_driver(tmp_path / "driver", "dev/nvidiactl"),
            "PATH": f"{tmp_path / 'fakes'}:{tools}",
            "HOSTTYPE": "x86_64-linux",  # as tcsh exports it
        },
    )
    (project / ".venv/.installed-requirements-gpu.txt").unlink(missing_ok=True)
    for path in list((project / ".venv").rglob("gpulibraries*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def has_gpu_libraries(project: pathlib.Path) -> bool:
    return bool(list((project / ".venv").rglob("gpulibraries.py")))


@pytest.mark.parametrize("file", ["dev/nvidiactl", "usr/lib/wsl/lib/libcuda.so.1"])
def test_a_driver_brings_the_gpu_libraries(with_gpu_libraries, tmp_path, file):
    project, tools, changes = with_gpu_libraries
    changes |= {"CNNRNN_DRIVER_ROOT": make_driver(tmp_path / "another", file)}
    result = run(project, tools, "phase1", **changes)
    assert result.returncode == 0, result.stderr
    (said,) = [line for line in result.stderr.splitlines() if "NVIDIA" in line]
    assert "this machine has an NVIDIA driver" in said and "GB" in said and "minutes" in said
    assert "phase1" in result.stdout and has_gpu_libraries(project)
    assert run(project, tools, "phase1", **changes).stderr == ""  # once


@pytest.mark.parametrize(
    "changed",
    [
        {"CNNRNN_DRIVER_ROOT": "/nowhere"},
        {"CUDA_VISIBLE_DEVICES": ""},
        {"CUDA_VISIBLE_DEVICES": "-1"},
        {"MACHINE": "aarch64"},
    ],
)
def test_no_gpu_libraries_without_a_driver_or_with_hidden_gpus(with_gpu_libraries, changed):
    project, tools, changes = with_gpu_libraries
    result = run(project, tools, "phase1", **changes | changed)
    assert (result.returncode, result.stderr) == (0, "")
    assert not (project / ".venv/.installed-requirements-gpu.txt").exists()
    # The same command installs them as soon as nothing stands against it.
    assert (
        "NVIDIA" in run(project, tools, "phase1", **changes | {"CUDA_VISIBLE_DEVICES": "0"}).stderr
    )


def test_gpu_libraries_that_cannot_be_installed(with_gpu_libraries):
    project, tools, changes = with_gpu_libraries
    (project / "requirements-gpu.txt").write_text("gpulibraries==2.0\n")
    for _ in range(2):  # twice: the first must not be recorded as installed
        result = run(project, tools, "phase1", **changes, STAND_IN_EXIT="3")
        assert result.returncode == 3 and "phase1" in result.stdout  # the program has run
        *_, reason, warning = result.stderr.splitlines()
        assert "requirements-gpu.txt failed because no package index could be reached" in reason
        assert "warning" in warning and "CUDA_VISIBLE_DEVICES=-1" in warning
        assert not (project / ".venv.lock").exists()
    result = run(project, tools, "phase1", **changes | {"CUDA_VISIBLE_DEVICES": "-1"})
    assert (result.returncode, result.stderr) == (0, "")  # the rest is still usable


def test_an_interrupted_installation_of_the_gpu_libraries_ends_the_command(with_gpu_libraries):
    """As pip does, the installer handles the interrupt and ends with an ordinary exit code."""
    project, tools, changes = with_gpu_libraries
    python = shutil.copytree(project / ".venv", project / "another", symlinks=True) / "bin/python"
    real = python.rename(python.with_name("real-python"))
    installer = "trap 'exit 1' INT; kill -INT 0; sleep 5"
    otherwise = f'*) exec "{real}" "$@"; esac'
    fake(python.parent, "python", f'case $* in "-P -m pip"*) {installer};; {otherwise}')
    interrupted = subprocess.run(
        [str(project / "run.sh"), "phase1"],
        env=environment(tools, **changes, CNNRNN_VENV=str(project / "another")),
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        capture_output=True,
        text=True,
    )
    assert (interrupted.returncode, interrupted.stdout) == (130, ""), interrupted.stderr
    assert "warning" not in interrupted.stderr
    assert not (project / "another.lock").exists()
    # Nothing but this installation is repeated, and without it the rest is still usable.
    python.unlink()
    real.rename(python)
    for changed, said in (({"CUDA_VISIBLE_DEVICES": "-1"}, False), ({}, True)):
        again = changes | changed | {"CNNRNN_VENV": str(project / "another")}
        result = run(project, tools, "phase1", **again)
        assert result.returncode == 0 and "creating" not in result.stderr
        assert ("NVIDIA" in result.stderr) == said


@pytest.mark.parametrize(
    "command, expected",
    [("check-gpu", True), ("predict", True), ("test", True)]
    + [(word, False) for word in ("data", "export", "cluster", "tensorboard", "bench", "check")],
)
def test_commands_without_gpus_do_not_install_their_libraries(
    with_gpu_libraries, command, expected
):
    project, tools, changes = with_gpu_libraries
    result = run(project, tools, command, **changes)
    assert result.returncode == 0 and ("NVIDIA" in result.stderr) == expected


def test_help_does_not_install_the_gpu_libraries(with_gpu_libraries):
    project, tools, changes = with_gpu_libraries
    result = run(project, tools, "phase1", "--help", **changes)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_help_of_serve_installs_nothing(installed):
    project, tools, _ = installed
    result = run(project, tools, "serve", "--help")
    assert (result.returncode, result.stderr) == (0, "")


def test_an_interrupted_installation_starts_again(fresh, tools, installed):
    # This uv is interrupted while it works; a terminal sends the signal to the process group.
    fake(tools, "uv", "touch .venv/half-made; kill -INT 0; sleep 5")
    interrupted = subprocess.run(
        [str(fresh / "run.sh"), "phase1"],
        cwd=fresh,
        env=environment(tools),
        start_new_session=True,
        # A shell that runs the tests in the background ignores interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stderr=subprocess.DEVNULL,
    )
    assert interrupted.returncode in (130, -signal.SIGINT)
    assert (fresh / ".venv/half-made").exists()
    assert not (fresh / ".venv.lock").exists()
    # This uv creates environments but cannot install packages: pip does.
    made = f'cp -R "{installed[0]}/.venv/." .venv'
    fake(tools, "uv", f'case $1 in venv) {made};; *) echo "uv cannot $*"; exit 1; esac')
    result = run(fresh, tools, "phase1")
    assert result.returncode == 0, result.stderr
    assert "removing" in result.stderr and "incomplete" in result.stderr
    assert not (fresh / ".venv/half-made").exists()
    log = (fresh / ".venv/install.log").read_text()
    assert f"uv cannot pip install --python {fresh}/.venv/bin/python" in log
    assert "satisfied: standin" in log or "installed standin" in log


def test_a_folder_that_is_not_an_environment_is_not_removed(fresh, tools, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    result = run(fresh, tools, "phase1", CNNRNN_VENV=str(tmp_path / "mine"))
    assert result.returncode == 2 and "is no environment that run.sh can use" in result.stderr
    assert (tmp_path / "mine/thesis.txt").exists()


@pytest.mark.parametrize("is_link", [False, True])
def test_a_file_and_a_broken_link_are_not_removed(fresh, tools, tmp_path, is_link):
    mine = tmp_path / "mine"
    if is_link:
        mine.symlink_to(tmp_path / "nowhere")
    else:
        mine.write_text("a thesis")
    result = run(fresh, tools, "phase1", CNNRNN_VENV=str(mine))
    assert result.returncode == 2 and "is no environment that run.sh can use" in result.stderr
    assert mine.is_symlink() if is_link else mine.read_text() == "a thesis"


def test_an_environment_of_the_user_is_not_removed(fresh, tools, tmp_path):
    """It cannot be used, because it has no pip, as those that uv makes."""
    (tmp_path / "mine/bin").mkdir(parents=True)
    (tmp_path / "mine/pyvenv.cfg").touch()
    fake(tmp_path / "mine/bin", "python", "exit 1")
    result = run(fresh, tools, "phase1", CNNRNN_VENV=str(tmp_path / "mine"))
    assert result.returncode == 2 and "is no environment that run.sh can use" in result.stderr
    assert (tmp_path / "mine/bin/python").exists()


@pytest.fixture
def outdated(changing, tmp_path):
    """The installed project, whose requirements have changed: (project, tools, changes)."""
    project, tools = changing
    requirements = project / "requirements.txt"
    requirements.write_text(requirements.read_text() + "# once more\n")
    (tmp_path / "fakes").mkdir()
    fake(tmp_path / "fakes", "sleep", f"exec {tools}/sleep 0.1")
    yield project, tools, {"PATH": f"{tmp_path / 'fakes'}:{tools}"}
    shutil.rmtree(project / ".venv.lock", ignore_errors=True)


def waiting_run(project, tools, changes) -> tuple[subprocess.Popen, str]:
    """A run that waits for the lock, some time after its first message; and this message."""
    waiting = subprocess.Popen(
        [str(project / "run.sh"), "phase1"],
        env=environment(tools, **changes),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    message = waiting.stderr.readline()
    with contextlib.suppress(subprocess.TimeoutExpired):
        waiting.wait(timeout=0.3)  # it looks at the lock every 0.1 s
    return waiting, message


def test_a_second_run_waits_and_takes_over_the_lock_of_a_dead_process(outdated):
    project, tools, changes = outdated
    lock = project / ".venv.lock"
    lock.mkdir()
    holder = subprocess.Popen(["sleep", "60"])
    os.symlink(f"{os.uname().nodename}:{holder.pid}", lock / "holder")
    try:
        waiting, message = waiting_run(project, tools, changes)
        assert waiting.poll() is None
    finally:
        holder.kill()  # its lock remains
        holder.wait()
    _, others = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, others
    assert "waiting for another run.sh" in message and str(holder.pid) in message
    assert "waiting" not in others and not lock.exists()


@pytest.mark.parametrize("holder", ["another-host:{ended}", "{ended}", "{here}:{running}"])
def test_a_lock_whose_holder_may_be_running_is_not_removed(outdated, holder):
    project, tools, changes = outdated
    ended = subprocess.Popen(["true"])
    ended.wait()
    holder = holder.format(ended=ended.pid, running=os.getpid(), here=os.uname().nodename)
    (project / ".venv.lock").mkdir()
    os.symlink(holder, project / ".venv.lock/holder")
    waiting, message = waiting_run(project, tools, changes)
    assert waiting.poll() is None
    waiting.kill()
    assert waiting.communicate() == ("", "")  # nothing more
    assert f"waiting for another run.sh (process {holder})" in message


def test_a_lock_of_another_users_process_is_not_removed(outdated, tmp_path):
    """It may not be signalled; a function takes the place of the built-in command."""
    project, tools, changes = outdated
    refusal = (
        'kill() { echo "run.sh: line 1: kill: ($2) - Operation not permitted" >&2; return 1; }'
    )
    (tmp_path / "functions").write_text(refusal)
    (project / ".venv.lock").mkdir()
    holder = f"{os.uname().nodename}:1"
    os.symlink(holder, project / ".venv.lock/holder")
    changes = changes | {"BASH_ENV": str(tmp_path / "functions")}
    waiting, message = waiting_run(project, tools, changes)
    assert waiting.poll() is None and "waiting for another run.sh" in message
    assert os.readlink(project / ".venv.lock/holder") == holder
    waiting.kill()
    waiting.communicate()


def test_a_lock_that_an_ended_process_of_the_same_id_has_left(outdated):
    project, tools, changes = outdated
    (project / ".venv.lock").mkdir()
    leave = 'ln -s "$(uname -n):$$" .venv.lock/holder; exec ./run.sh phase1'
    result = subprocess.run(
        ["bash", "-c", leave],
        cwd=project,
        env=environment(tools, **changes),
        capture_output=True,
        timeout=30,
    )
    assert result.returncode == 0 and not (project / ".venv.lock").exists()


def test_a_lock_that_cannot_be_taken(installed, tmp_path):
    project, tools, _ = installed
    (tmp_path / "fakes").mkdir()
    fake(tmp_path / "fakes", "sleep", "exit 0")
    fake(tmp_path / "fakes", "ln", "echo 'ln: Operation not permitted' >&2; exit 1")
    changes = {"CNNRNN_VENV": str(tmp_path / "new"), "PATH": f"{tmp_path / 'fakes'}:{tools}"}
    result = run(project, tools, "phase1", **changes)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
    assert f"cannot create the symbolic link {tmp_path}/new.lock/holder: " in result.stderr
    (tmp_path / "new.lock").rmdir()
    (tmp_path / "new.lock").touch()
    again = run(project, tools, "phase1", **changes)
    assert (again.returncode, again.stderr) == (1, result.stderr)


def test_a_clone_without_symbolic_links_is_reported(fresh, tools):
    (fresh / "cnnrnn/data").rmdir()
    (fresh / "cnnrnn/data").write_text("../data")  # as git leaves it
    result = run(fresh, tools, "phase1")
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
    assert "git config core.symlinks true" in result.stderr
    assert not (fresh / ".venv").exists()


def test_a_slash_after_the_folder_of_the_environment(fresh, tools):
    result = run(fresh, tools, "phase1", CNNRNN_VENV=f"{fresh}/mine/", PYTHON="")
    assert "found no Python" in result.stderr  # and not that the folder is no environment


# --- running the program -------------------------------------------------------------------------


def test_arguments_and_current_folder_are_passed_on(installed, tmp_path):
    project, tools, _ = installed
    (tmp_path / "cnnrnn").mkdir()  # must not be imported
    (tmp_path / "cnnrnn/main.py").write_text("raise SystemExit('the wrong program')\n")
    os.symlink(os.path.relpath(project / "run.sh", tmp_path), tmp_path / "linked")
    result = subprocess.run(
        ["./linked", "data", "restructure", "../a b", "*", "--note=it's $HOME"],
        cwd=tmp_path,
        env=environment(tools),
        capture_output=True,
        text=True,
    )
    flagfile = f"--flagfile={project}/flags.txt"
    expected = ["data", flagfile, "restructure", "../a b", "*", "--note=it's $HOME"]
    assert result.stdout == f"{tmp_path} {expected}\n", result.stderr


@pytest.mark.parametrize(
    "arguments", [["--dataset=images"], ["--dataset", "x"], ["--seed=1", "--flagfile=mine.txt"]]
)
def test_the_flagfile_of_the_sample_is_not_used_for_other_data_sets(installed, arguments):
    project, tools, _ = installed
    result = run(project, tools, "phase1", *arguments)
    assert result.stdout == f"{project} {['phase1', *arguments]}\n"


def test_the_flagfile_of_the_sample_is_not_used_for_recorded_runs(installed):
    project, tools, _ = installed
    for word in ("average", "reproduce"):
        result = run(project, tools, word, "runs/mine")
        assert result.stdout == f"{project} {[word, 'runs/mine']}\n"


def test_bench_stays_in_the_callers_folder(installed, tmp_path):
    project, tools, _ = installed
    result = run(project, tools, "bench", "--peers", "--out=here", cwd=tmp_path)
    assert result.stdout == f"{tmp_path} {['--peers', '--out=here']}\n"


def test_tensorboard_opens_on_the_callers_runs(installed, tmp_path):
    project, tools, _ = installed
    result = run(project, tools, "tensorboard", "--logdir=elsewhere", cwd=tmp_path)
    assert result.stdout == f"{tmp_path} {['--logdir', 'runs', '--logdir=elsewhere']}\n"


def test_the_exit_code_is_passed_on(installed):
    project, tools, _ = installed
    assert run(project, tools, "train", STAND_IN_EXIT="7").returncode == 7


def test_signals_reach_the_program(installed):
    project, tools, _ = installed
    program = project / "cnnrnn/main.py"
    program.write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n")
    try:
        with subprocess.Popen(
            [str(project / "run.sh"), "train"],
            env=environment(tools),
            stdout=subprocess.PIPE,
            text=True,
        ) as running:
            assert int(running.stdout.readline()) == running.pid, "run.sh must become the program"
            running.terminate()
            assert running.wait(timeout=10) == -signal.SIGTERM
    finally:
        program.write_text(STAND_IN)


def test_it_is_executable_and_short():
    assert os.access(REPOSITORY / "run.sh", os.X_OK)
    assert len((REPOSITORY / "run.sh").read_text().splitlines()) <= 200


@pytest.mark.parametrize(
    "words, expected",
    [
        *(("./run.sh ev", "evaluate"), ("./run.sh phase1 --ep", "--epochs")),
        *(("./run.sh phase1 im", ""), ("./run.sh check --ep", "")),
    ],
)
def test_commands_and_flags_are_completed(installed, words, expected):
    project, tools, _ = installed
    (project / "cnnrnn" / "main.py").write_text('print("  --epochs: ...\\n  --[no]fast: ...")\n')
    script = f'''eval "$(./run.sh completion)"
COMP_WORDS=({words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_cnnrnn_run
echo "${{COMPREPLY[@]}}"'''
    try:
        output = subprocess.check_output(
            ["bash", "-c", script], cwd=project, env=environment(tools), text=True
        )
    finally:
        (project / "cnnrnn" / "main.py").write_text(STAND_IN)
    assert output == f"{expected}\n"
