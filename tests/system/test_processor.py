"""The processor: model name and flags from /proc/cpuinfo."""

import platform

from cnnrnn.system import processor

CPUINFO = """processor\t: 0
model name\t: AMD EPYC 9B14 : special
flags\t\t: fpu sse4_2 avx avx2 avx512f avx512_bf16

processor\t: 1
model name\t: another
flags\t\t: fpu
"""


def test_name_and_flags_are_those_of_the_first_core(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO)
    assert processor.describe(path) == "AMD EPYC 9B14 : special avx512f"
    assert "avx512_bf16" in processor.flags(path) and "processor" not in processor.flags(path)


def test_a_system_without_cpuinfo_has_no_flags(tmp_path):
    assert processor.flags(tmp_path / "none") == frozenset()
    assert processor.describe(tmp_path / "none") == platform.processor()
