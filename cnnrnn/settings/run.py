"""The run folder, the seed, the devices and the checkpoints."""

import dataclasses
import re

from cnnrnn.settings import fields


def profiled_steps(value: str) -> tuple[int, int] | None:
    """The first and the last step of a value of --profile_steps; None if it is not valid."""
    match = re.fullmatch(r"(\d{1,9}),(\d{1,9})", value)
    first, last = map(int, match.groups()) if match else (0, 0)
    return (first, last) if 1 <= first <= last else None


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The run folder, the seed, the devices and the checkpoints."""

    name: str = fields.setting(
        "",
        "Name of the run, a folder in --runs_dir. Empty: the data set's name.",
        fields.NAME,
        flag="run",
    )
    runs_dir: str = fields.setting("runs", "Folder of all runs.", fields.GIVEN)
    seed: int = fields.setting(
        0,
        "Seed of the initial weights, the order of the images, augmentation, Mixup, CutMix and "
        "dropout.",
        fields.SEED,
    )
    logical_cpus: int = fields.setting(
        1,
        "Without a GPU: train on this many replicas on the CPU. Slower; for testing training on "
        "several devices.",
        fields.POSITIVE,
    )
    strategy: str = fields.setting(
        "auto",
        "tf.distribute strategy: 'mirrored' uses the devices of this machine; 'multiworker' the "
        "processes that TF_CONFIG or Slurm names, which all run the same command; 'auto': "
        "multiworker where TF_CONFIG is set or srun has started several tasks.",
        fields.one_of("auto", "mirrored", "multiworker"),
    )
    worker_timeout: float = fields.setting(
        600.0,
        "With several workers: seconds to wait for one that has not started, or that stops "
        "responding during a step.",
        fields.POSITIVE_REAL,
    )
    profile_steps: str = fields.setting(
        "",
        "FIRST,LAST, e.g. 10,20: record a trace of these training steps of each phase, counted "
        "from where this command starts, for the profile tab of TensorBoard.",
        (
            (lambda value: value == "" or profiled_steps(value) is not None),
            "two whole numbers, FIRST,LAST, from 1 on",
        ),
    )
    deterministic: bool = fields.setting(
        False,
        "On GPUs, use only operations whose results do not depend on the order in which threads "
        "finish. They are slower; without them two runs differ, at first in the last digits. "
        "On a CPU training is deterministic in any case. verify-resume and reproduce turn it on.",
    )
    checkpoint_minutes: float = fields.setting(
        10.0, "Save a checkpoint at least this often in training, and after each validation.",
        fields.POSITIVE_REAL,
    )  # fmt: skip
    on_save_failure: str = fields.setting(
        "stop",
        "If a checkpoint, the best weights or the curves cannot be written, e.g. on a full disk: "
        "'stop', or "
        "'continue' with a warning. Earlier files stay intact in either case.",
        fields.one_of("stop", "continue"),
    )
