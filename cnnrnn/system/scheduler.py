"""The variables by which a scheduler says which processes train together."""

import os

TF_CONFIG = "TF_CONFIG"  # of Kubernetes' TFJob, cloud schedulers, and `cluster`
SLURM_TASKS = "SLURM_STEP_NUM_TASKS"  # set by srun only: a batch script is one process


def hide() -> None:
    """Removes them from the environment of a process that works alone, and of its children.

    TensorFlow's MirroredStrategy would take its devices from TF_CONFIG.
    """
    for name in (TF_CONFIG, SLURM_TASKS):
        os.environ.pop(name, None)
