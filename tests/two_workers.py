"""Runs a function of a module in two processes that form a cluster on this machine.

python -m tests.two_workers MODULE FUNCTION FOLDER    (one worker, with TF_CONFIG)
"""

import importlib
import os
import pathlib
import subprocess
import sys

from cnnrnn.system import scheduler
from tests import helpers


def run(module: str, function: str, folder: pathlib.Path, count: int = 2) -> list[str]:
    """Calls `function(workers, folder)` in workers; returns what each printed.

    Raises:
        AssertionError: a worker has failed, with its output.
    """
    addresses = scheduler.local_addresses(count)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.two_workers", module, function, str(folder)],
            env=os.environ
            | {
                scheduler.TF_CONFIG: scheduler.tf_config(addresses, index),
                "PYTHONPATH": str(helpers.REPOSITORY),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]
    outputs = []
    for process in processes:
        output, messages = process.communicate(timeout=120)
        assert process.returncode == 0, messages[-3000:]
        outputs.append(output)
    return outputs


def main(module: str, function: str, folder: str) -> None:
    import cnnrnn  # noqa: F401  before TensorFlow: it selects the kernels
    from cnnrnn.system import cluster as cluster_lib
    from cnnrnn.system import workers as workers_lib

    strategy = cluster_lib.find("auto").join(60)
    with workers_lib.of(strategy) as workers:
        getattr(importlib.import_module(module), function)(workers, pathlib.Path(folder))
        workers.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
