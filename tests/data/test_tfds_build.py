"""`tfds build` in a folder of data/ finds the builder, and the builder what it imports."""

import os
import subprocess
import sys

import pytest

from tests import helpers

# What `tfds build` runs first. The command itself needs apache-beam, which is not installed.
_FIND_BUILDER = """
from tensorflow_datasets.scripts.cli import build
builder, _ = build._get_builder_cls_and_kwargs("", has_imports=False)
print(builder.__module__, builder(data_dir="unused").info.description[:5])
"""


@pytest.mark.parametrize(
    "name, description",
    [
        pytest.param("digits", "1,797", marks=pytest.mark.slow),  # it imports nothing of cnnrnn
        ("tiny_imagenet_100", "A hun"),
    ],
)
def test_tfds_build_imports_the_builder(name, description):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", _FIND_BUILDER],
        cwd=helpers.REPOSITORY / "data" / name,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == f"{name}.{name}_dataset_builder"
    assert description in done.stdout
