"""What a phase was made with, and naming what has changed since."""

from cnnrnn.runs import manifest

THEN = {
    "command": "a",
    "python": "3.11.7",
    "packages": {"keras": "3.15.0", "numpy": "2.4.6"},
    "dataset": {"name": "x.zip", "fingerprint": "abc"},
    "xception_weights": None,
}


def test_each_difference_is_named():
    now = THEN | {
        "python": "3.12.1",
        "packages": {"keras": "3.15.1", "numpy": "2.4.6"},
        "dataset": {"name": "x", "fingerprint": "abd"},
        "cores": 2,
    }
    assert manifest.differences(THEN, now) == [
        "cores: None then, 2 now",
        "dataset.fingerprint: abc then, abd now",
        "packages.keras: 3.15.0 then, 3.15.1 now",
        "python: 3.11.7 then, 3.12.1 now",
    ]


def test_what_does_not_matter_is_not():
    now = THEN | {"command": "b", "dataset": {"name": "y", "fingerprint": "abc"}}
    assert manifest.differences(THEN, now) == []
