"""Folders that workers of a cluster may share."""

import pathlib
import uuid

from cnnrnn.system import workers as workers_lib


def is_writer(folder: pathlib.Path, workers: workers_lib.Workers) -> bool:
    """Whether this worker is to write a folder: of the workers that share it, exactly one is.

    Each worker puts a file with its number into the folder, and looks whose it finds there. To be
    called by all workers.

    Args:
        folder: its path, which need not name the same storage for all.
        workers: that train.
    """
    if workers.count == 1:
        return True
    # The chief's number tells this call's files from those of a killed one.
    call = workers.of_chief(uuid.uuid4().int % 2**30)
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / f".worker-{call}-{workers.index}"
    own.touch()
    try:
        workers.barrier()
        found = [
            index for index in range(workers.count) if (folder / f".worker-{call}-{index}").exists()
        ]
        workers.barrier()
    finally:
        own.unlink(missing_ok=True)
    return workers.index == min(found)
