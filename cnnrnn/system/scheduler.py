"""Environment variables that name the processes of a training: TF_CONFIG, and Slurm's."""

import contextlib
import json
import os
import socket
from collections.abc import Sequence

TF_CONFIG = "TF_CONFIG"  # of Kubernetes' TFJob, cloud schedulers, and `cluster`
SLURM_TASKS = "SLURM_STEP_NUM_TASKS"  # set by srun only: a batch script is one process


def hide() -> None:
    """Removes them from the environment of a process that works alone, and of its children.

    TensorFlow's MirroredStrategy would take its devices from TF_CONFIG.
    """
    for name in (TF_CONFIG, SLURM_TASKS):
        os.environ.pop(name, None)


def tf_config(addresses: Sequence[str], index: int) -> str:
    """A value of TF_CONFIG.

    Args:
        addresses: host:port of each worker, the chief's first.
        index: of the worker that gets it.
    """
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": task})


def workers_on_this_host() -> int:
    """How many workers have the host of this one, by TF_CONFIG; 1 without it."""
    try:
        content = json.loads(os.environ[TF_CONFIG])
        jobs, task = content["cluster"], content["task"]
        own = jobs[task["type"]][int(task["index"])].rpartition(":")[0]
    except (LookupError, ValueError, TypeError):
        return 1
    every = (address for addresses in jobs.values() for address in addresses)
    return sum(address.rpartition(":")[0] == own for address in every)


def local_addresses(count: int) -> list[str]:
    """host:port of workers on this machine, on ports that no program listens on now."""
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
