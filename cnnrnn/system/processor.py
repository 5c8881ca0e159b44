"""The processor as Linux reports it: model name and instruction-set flags."""

import pathlib
import platform

_CPUINFO = pathlib.Path("/proc/cpuinfo")
_VECTOR_EXTENSIONS = ("avx512f", "avx2", "avx", "sse4_2")  # widest first


def flags(cpuinfo: pathlib.Path = _CPUINFO) -> frozenset[str]:
    """The instruction-set flags, e.g. "avx2"; empty on systems without /proc/cpuinfo."""
    return frozenset(_field(cpuinfo, "flags").split())


def describe(cpuinfo: pathlib.Path = _CPUINFO) -> str:
    """Model name and widest vector extension, which determines how sums are rounded."""
    name = _field(cpuinfo, "model name")
    available = flags(cpuinfo)
    widest = next((flag for flag in _VECTOR_EXTENSIONS if flag in available), "")
    return f"{name} {widest}".strip() or platform.processor()


def _field(cpuinfo: pathlib.Path, name: str) -> str:
    """The value of the first core's line 'name : value'."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ""
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return next((value.strip() for field, value in pairs if field.strip() == name), "")
