"""`train`: what is refused before the images are read."""

import pytest

from cnnrnn import errors, phases
from cnnrnn.commands import train


def test_cudnn_without_a_gpu_is_refused_at_once(small_config, tmp_path):
    config = small_config.replace(lstm_kernel="cudnn", dataset=str(tmp_path / "missing"))
    with pytest.raises(errors.UsageError, match="--lstm_kernel=cudnn needs a GPU"):
        train.train((phases.PHASE1,), config)
    assert not config.run_dir.exists()
