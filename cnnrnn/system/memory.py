"""Memory: what this process has taken, what the machine has left, what phase 2 will take.

Figures are in bytes and mean resident memory, the kind that runs out. Where a system does not
tell one, it is None: then nothing is said rather than something guessed.
"""

import os
import pathlib
import sys

try:
    import resource
except ImportError:  # Windows
    resource = None

_ROOT = pathlib.Path("/")


def text(size: float | None) -> str:
    """'3.1 GB'; 'unknown' for None."""
    return "unknown" if size is None else f"{size / 1e9:.1f} GB"


def peak(process: int | str = "self", root: pathlib.Path = _ROOT) -> int | None:
    """The most resident memory that a process, by its number, has had.

    Of another process than this one it is known on Linux only, and only while it lives.
    """
    high_water = _kilobytes(root / "proc" / str(process) / "status", "VmHWM")
    if high_water is not None or process != "self" or resource is None:
        return high_water
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def resident(root: pathlib.Path = _ROOT) -> int:
    """The resident memory of this process; 0 where it is not known."""
    return _kilobytes(root / "proc/self/status", "VmRSS") or 0


def available(root: pathlib.Path = _ROOT) -> int | None:
    """What programs can still take without swapping: the machine's, or a container's if less.

    On systems without /proc it is all the memory that there is.
    """
    of_machine = _kilobytes(root / "proc/meminfo", "MemAvailable")
    left = [limit - used for limit, used in _control_groups(root)]
    known = [size for size in (of_machine or _physical(), *left) if size is not None]
    return max(min(known), 0) if known else None


def total(root: pathlib.Path = _ROOT) -> int | None:
    """The memory of the machine, or what a container may take of it."""
    of_machine = _kilobytes(root / "proc/meminfo", "MemTotal") or _physical()
    known = [size for size in (of_machine, *(limit for limit, _ in _control_groups(root))) if size]
    return min(known, default=None)


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _kilobytes(path: pathlib.Path, field: str) -> int | None:
    """'Field:  12 kB' of a file in /proc, in bytes."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) * 1024 if found else None


def _control_groups(root: pathlib.Path) -> list[tuple[int, int]]:
    """(limit, used) of each control group above this process that has a limit."""
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    groups = []
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        if controllers == "":
            mount, names = "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount = "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # Within a container the path can be the host's: then only the mount itself is there.
        group = pathlib.PurePosixPath(path)
        for folder in (group, *group.parents):
            limit_and_used = _limit(root / mount / str(folder).lstrip("/"), *names)
            groups += [limit_and_used] if limit_and_used else []
    return groups


def _limit(
    folder: pathlib.Path, limit_name: str, used_name: str, cache_name: str
) -> tuple[int, int] | None:
    try:
        limit = (folder / limit_name).read_text().strip()
        used = int((folder / used_name).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if limit == "max" or int(limit) >= 2**60:  # how the two kinds of control groups say 'none'
        return None
    # Files that were read and not asked for since give way to whoever needs the memory.
    return int(limit), used - int(stat.get(cache_name, 0))
