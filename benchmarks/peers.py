"""The environment that has PyTorch: beside the one that runs this, and never needed by it."""

import pathlib
import shutil
import subprocess
import sys

REQUIREMENTS = pathlib.Path(__file__).parent / "requirements-peers.txt"


def python(folder: pathlib.Path | None = None) -> pathlib.Path:
    """Makes the environment, unless it is there with what is pinned now.

    Args:
        folder: where; the default is the running environment's path with ".peers" behind it.

    Returns:
        Its Python.

    Raises:
        SystemExit: it could not be made.
    """
    folder = folder or pathlib.Path(sys.prefix + ".peers")
    found = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    installed = folder / "installed.txt"  # written last: without it nothing in there is trusted
    pinned = REQUIREMENTS.read_text()
    if installed.exists() and installed.read_text() == pinned:
        return found
    print(f"making {folder} for PyTorch: some minutes, the first time only", flush=True)
    if folder.exists():
        if not (folder / "pyvenv.cfg").exists():
            raise SystemExit(f"{folder} is no Python environment: move it away")
        shutil.rmtree(folder)
    install = [str(found), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [*install, "-r", str(REQUIREMENTS)],
    ):
        if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
            raise SystemExit(f"failed: {' '.join(command)}")
    installed.write_text(pinned)
    return found


def version(python: pathlib.Path) -> str:
    """Which PyTorch an environment has."""
    ask = "import importlib.metadata; print(importlib.metadata.version('torch'))"
    return subprocess.run(
        [str(python), "-c", ask], check=True, capture_output=True, text=True
    ).stdout.strip()
