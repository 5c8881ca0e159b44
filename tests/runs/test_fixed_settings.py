"""Settings that a network of a comparison was started with."""

import pytest

from cnnrnn import errors
from cnnrnn.runs import fixed_settings


def test_other_settings_are_named(tmp_path):
    folder = tmp_path / "a" / "network"
    for _ in range(2):
        fixed_settings.check(folder, {"--epochs": [3], "images": "abc"})
    with pytest.raises(errors.UsageError, match=r"with --epochs: \[3\] \(now \[5\]\): give"):
        fixed_settings.check(folder, {"--epochs": [5], "images": "abc"})
    with pytest.raises(errors.UsageError, match=r"x: None \(now 1\)"):
        fixed_settings.check(folder, {"--epochs": [3], "images": "abc", "x": 1})
