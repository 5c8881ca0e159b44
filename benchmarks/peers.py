"""The virtual environment with PyTorch, for `./run.sh bench --peers` only."""

import pathlib
import shutil
import subprocess
import sys

REQUIREMENTS = pathlib.Path(__file__).parent / "requirements-peers.txt"


def python(folder: pathlib.Path | None = None) -> pathlib.Path:
    """Creates the environment, unless it exists with the packages pinned now.

    Args:
        folder: of the environment; by default the path of the running one plus ".peers".

    Returns:
        The path of its Python interpreter.

    Raises:
        SystemExit: the environment could not be created.
    """
    folder = folder or pathlib.Path(sys.prefix + ".peers")
    interpreter = folder / "bin/python"
    installed = folder / "installed.txt"  # written last: without it the environment is incomplete
    pinned = REQUIREMENTS.read_text()
    if installed.exists() and installed.read_text() == pinned:
        return interpreter
    print(f"creating {folder} for PyTorch: a few minutes, the first time only", flush=True)
    if folder.exists():
        if not (folder / "pyvenv.cfg").exists():
            raise SystemExit(f"{folder} is not a Python environment: move it away")
        shutil.rmtree(folder)
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [*install, "-r", str(REQUIREMENTS)],
    ):
        if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
            raise SystemExit(f"failed: {' '.join(command)}")
    installed.write_text(pinned)
    return interpreter


def version(python: pathlib.Path) -> str:
    """The version of PyTorch in an environment."""
    code = "import importlib.metadata; print(importlib.metadata.version('torch'))"
    return subprocess.run(
        [str(python), "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()
