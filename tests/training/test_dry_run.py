"""The dry run of a phase, in this process."""

import pytest

from cnnrnn import errors
from cnnrnn.training import cost, dry_run, feature_cache
from tests import helpers, small_network


@pytest.fixture
def measure(monkeypatch, one_replica):
    monkeypatch.setattr(feature_cache, "_BATCH_PER_REPLICA", 4)
    return lambda phase, config: dry_run.measure(phase, config, small_network.small_build)


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, 18 + 9),
        ({"epochs": (1, 1)}, None),  # caching would cost the one pass that it saves
        ({"epochs": (2, 1), "samples_per_epoch": (8, 8)}, 9),  # only validation pays off
        ({"feature_cache": "off"}, None),
    ],
)
def test_features_are_timed_where_caching_pays_off(measure, small_config, changes, expected):
    found = measure("phase1", small_config.replace(**changes))
    assert (found.features and found.features.images) == expected


def test_only_the_split_whose_features_pay_off_is_cached(measure, small_config, tmp_path):
    """Both splits come from one tree, so that they differ in their arrays alone."""
    root = helpers.write_classes(tmp_path / "tree", 6)
    config = small_config.replace(
        dataset=str(root),
        validation_fraction=0.5,
        epochs=(3, 1),
        samples_per_epoch=(2, 2),
        batch_size=(2, 2),
    )
    assert measure("phase1", config).features.images == 9


def test_an_image_that_cannot_be_decoded_is_named(measure, small_config, images):
    path = next((images / "train").rglob("*.png"))
    path.write_bytes(b"no image")
    with pytest.raises(errors.UsageError, match=f"1 of 27 images .*{path}"):
        measure("phase2", small_config)


def test_the_data_set_is_reported_for_phase1_only(measure, small_config, capsys):
    for phase, lines in (("phase1", 1), ("phase2", 0)):
        measure(phase, small_config.replace(feature_cache="off"))
        output = capsys.readouterr().out
        assert output.count("\ndata: ") == output.count("precision: ") == lines


@pytest.mark.slow
def test_phase2_takes_the_estimated_memory(small_config):
    """The real network, in a process of its own as ./run.sh preflight does it."""
    from cnnrnn.commands import preflight

    settings = small_config.replace(batch_size=(4, 4), precision="float32")
    found = preflight.measure_in_child("phase2", settings)
    parameters = 20_861_480 + 48_627_712 + 33_562_624 + 3 * (2048 + 1)
    assert found.peak == pytest.approx(cost.phase2_memory(4, parameters, half=False), rel=0.12)
