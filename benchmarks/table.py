"""The result of the benchmark as a markdown table and as JSON."""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table. Rates are in images/s, memory in GB."""

    phase: int
    batch: int
    precision: str
    baseline: str
    baseline_rate: float
    rate: float
    peak_gflops: float
    fraction: float  # of the peak rate, by the operations of this program's step
    baseline_gb: float
    gb: float

    @property
    def ratio(self) -> float:
        return self.rate / self.baseline_rate


def machine(torch_version: str | None) -> str:
    """The processor, its cores and vector extensions, and the versions.

    Reads /proc/cpuinfo itself rather than by `cnnrnn.system`: the process that starts the baselines
    must not import cnnrnn (see `main`).
    """
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if "model name" in line]
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    flags = [flag for flag in wanted if flag in text.split()]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("tensorflow", "keras")]
    if torch_version is not None:
        versions.append(f"torch {torch_version}")
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, "
        f"{' '.join(flags) or platform.machine()}; {', '.join(versions)}; {datetime.date.today()}"
    )


def markdown(rows: list[Row], pipeline_rates: dict[str, float]) -> str:
    """The tables of training steps and of input pipelines, as markdown."""
    lines = [
        "| phase | this program | images/s | of peak | memory "
        "| baseline | images/s | memory | ratio |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        lines.append(
            f"| {row.phase}, batch {row.batch} | {row.precision} | {row.rate:.2f} | "
            f"{row.fraction:.0%} of {row.peak_gflops:.0f} GFLOP/s | {row.gb:.1f} GB | "
            f"{row.baseline} | {row.baseline_rate:.2f} | {row.baseline_gb:.1f} GB | "
            f"**{row.ratio:.2f}** |"
        )
    lines += ["", "| input pipeline | images/s |", "| --- | ---: |"]
    lines += [f"| {name} | {rate:,.0f} |" for name, rate in pipeline_rates.items()]
    return "\n".join(lines)


def write(
    out: pathlib.Path, about: dict[str, str], rows: list[Row], pipeline_rates: dict[str, float]
) -> str:
    """Writes table.md and table.json into a folder.

    Args:
        out: the folder; created if missing.
        about: "machine" and "command".
        rows: one per pairing.
        pipeline_rates: images/s by the name of the pipeline.

    Returns:
        The content of table.md.
    """
    text = f"`{about['command']}` on {about['machine']}\n\n{markdown(rows, pipeline_rates)}\n"
    values = {
        **about,
        "steps": [dataclasses.asdict(row) | {"ratio": row.ratio} for row in rows],
        "pipelines": pipeline_rates,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    (out / "table.json").write_text(json.dumps(values, indent=2) + "\n")
    return text
