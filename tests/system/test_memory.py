"""Memory figures: /proc, control groups, systems without either."""

import pytest

from cnnrnn.system import memory


def write(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_memory_is_read_from_proc(tmp_path):
    write(tmp_path, "proc/self/status", "Name:\tx\nVmHWM:\t 2000 kB\nVmRSS:\t 1000 kB\n")
    write(tmp_path, "proc/7/status", "VmHWM:\t 3000 kB\n")
    write(tmp_path, "proc/meminfo", "MemTotal: 9000 kB\nMemFree: 1 kB\nMemAvailable: 8000 kB\n")
    assert memory.peak(root=tmp_path) == 2000 * 1024
    assert memory.peak(7, root=tmp_path) == 3000 * 1024
    assert memory.peak(8, root=tmp_path) is None
    assert memory.resident(tmp_path) == 1000 * 1024
    assert memory.available(tmp_path) == 8000 * 1024
    assert memory.total(tmp_path) == 9000 * 1024


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_container_applies_if_it_is_lower(tmp_path, version):
    write(tmp_path, "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    if version == 1:
        write(tmp_path, "proc/self/cgroup", "5:cpu:/a\n4:memory:/a/b\n")
        mount, names = "sys/fs/cgroup/memory", ("limit_in_bytes", "usage_in_bytes")
        unlimited, cache = str(2**63 - 4096), "total_inactive_file"
    else:
        write(tmp_path, "proc/self/cgroup", "0::/a/b\n")
        mount, names = "sys/fs/cgroup", ("max", "current")
        unlimited, cache = "max", "inactive_file"
    for group, limit in (("a/b", unlimited), ("a", "3000000")):  # the limit is the parent's
        write(tmp_path, f"{mount}/{group}/memory.{names[0]}", f"{limit}\n")
        write(tmp_path, f"{mount}/{group}/memory.{names[1]}", "1200000\n")
        write(tmp_path, f"{mount}/{group}/memory.stat", f"{cache} 200000\n")
    assert memory.available(tmp_path) == 2_000_000
    assert memory.total(tmp_path) == 3_000_000


def test_the_peak_is_known_without_proc(tmp_path):
    assert memory.peak(root=tmp_path) == pytest.approx(memory.peak(), rel=0.2)
    assert memory.available(tmp_path) == memory.total(tmp_path) > 10**8


def test_sizes_are_shown_in_gigabytes():
    assert memory.text(3.14e9) == "3.1 GB" and memory.text(None) == "unknown"
