"""Memory of this process, the machine and its container.

Sizes are in bytes of resident memory. A size is None if the system does not report it.
"""

import os
import pathlib
import resource
import sys

_ROOT = pathlib.Path("/")


def text(size: float | None) -> str:
    """Formats a size: "3.1 GB", or "unknown" for None."""
    return "unknown" if size is None else f"{size / 1e9:.1f} GB"


def peak(process: int | str = "self", root: pathlib.Path = _ROOT) -> int | None:
    """Peak resident memory of a process.

    Args:
        process: its number, or "self". Others are known on Linux only, while they run.
        root: where proc/ is.
    """
    high_water = _kilobytes(root / "proc" / str(process) / "status", "VmHWM")
    if high_water is not None or process != "self":
        return high_water
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def resident(root: pathlib.Path = _ROOT) -> int:
    """Resident memory of this process; 0 if unknown."""
    return _kilobytes(root / "proc/self/status", "VmRSS") or 0


def available(root: pathlib.Path = _ROOT) -> int | None:
    """Memory that can be allocated without swapping, of the machine or its container.

    Without /proc it is the machine's total.
    """
    of_machine = _kilobytes(root / "proc/meminfo", "MemAvailable")
    left = [limit - used for limit, used in _control_groups(root)]
    known = [size for size in (of_machine or _physical(), *left) if size is not None]
    return max(min(known), 0) if known else None


def total(root: pathlib.Path = _ROOT) -> int | None:
    """Memory of the machine, or the limit of its container if that is lower."""
    of_machine = _kilobytes(root / "proc/meminfo", "MemTotal") or _physical()
    known = [size for size in (of_machine, *(limit for limit, _ in _control_groups(root))) if size]
    return min(known, default=None)


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _kilobytes(path: pathlib.Path, field: str) -> int | None:
    """Reads a line 'Field:  12 kB' of a file in /proc, in bytes."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(sizes[0]) * 1024 if sizes else None


def _control_groups(root: pathlib.Path) -> list[tuple[int, int]]:
    """(limit, used) of each control group of this process, and of its parents, with a limit."""
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
        # In a container the path can be the host's; then only the mount point itself exists.
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
    if limit == "max" or int(limit) >= 2**60:  # no limit, in version 2 and version 1
        return None
    # The kernel frees inactive file cache as soon as the memory is needed.
    return int(limit), used - int(stat.get(cache_name, 0))
