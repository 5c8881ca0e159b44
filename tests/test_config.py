"""Settings, and the flags that set them."""

import json
import pathlib

import pytest
from absl import flags

from cnnrnn import config, errors
from cnnrnn.settings import image_sizes, paths


def parse(*arguments):
    values = flags.FlagValues()
    config.define_flags(values)
    values(["program", *arguments])
    return config.from_flags(values)


def test_defaults_are_the_original_recipe():
    settings = parse()
    assert settings.training.epochs == (30, 30)
    assert settings.training.batch_size == (32, 16)
    assert settings.optimization.learning_rate == (1e-3, 1e-4)
    assert settings == config.Config()


def test_one_value_sets_both_phases_and_two_set_one_each():
    assert parse("--epochs=3").training.epochs == (3, 3)
    assert parse("--epochs=3,5").training.epochs == (3, 5)
    assert parse("--learning_rate=0.01,2e-5").optimization.learning_rate == (0.01, 2e-5)


def test_an_empty_variable_is_like_none(monkeypatch):
    monkeypatch.setenv("CNNRNN_CACHE", "")
    assert paths.cache_dir() == pathlib.Path.home() / ".cache" / "cnnrnn"


def test_a_home_folder_of_an_unknown_user_is_a_path_that_does_not_exist(monkeypatch):
    monkeypatch.setenv("CNNRNN_CACHE", "~no-such-user/cache")
    settings = parse("--dataset=~no-such-user/a,~/b", "--runs_dir=~no-such-user/runs", "--run=x")
    assert str(settings.data.prepared_data_dir) == "~no-such-user/cache/datasets"
    assert str(settings.data.locations[0]) == "~no-such-user/a"
    assert settings.data.locations[1] == pathlib.Path.home() / "b"
    assert str(settings.run_dir) == "~no-such-user/runs/x"


def test_a_later_flag_overrides_the_flagfile(tmp_path):
    path = tmp_path / "flags.txt"
    path.write_text("# a comment\n--epochs=7,8\n--dataset=digits\n")
    assert parse(f"--flagfile={path}").training.epochs == (7, 8)
    assert parse(f"--flagfile={path}", "--epochs=1").training.epochs == (1, 1)


@pytest.mark.parametrize(
    "name, value",
    [
        ("epochs", "0"),
        ("max_megapixels", "0"),
        ("max_megapixels", "1e13"),
        ("batch_size", "32,-1"),
        ("learning_rate", "nan"),
        ("learning_rate", "inf"),
        ("validation_fraction", "1"),
        ("resize_method", "cubic"),
        ("phase2_batchnorm", "off"),
        ("run", "../elsewhere"),
        ("run", ".."),
        ("seed", "-1"),
        ("seed", str(2**31)),
        ("dataset", ""),
        ("checkpoint_minutes", "0"),
        ("logical_cpus", "0"),
        ("train_per_class", "-1"),
        ("samples_per_epoch", "-3"),
        ("rnn_rate_factor", "0"),
        ("rnn_rate_factor", "1,inf"),
        ("optimizer", "adam,lion"),
        ("schedule", "step"),
        ("ema", "1"),
        ("clip_norm", "inf"),
        ("accumulation_steps", "0"),
        ("batchnorm_momentum", "1"),
        ("batchnorm_momentum", "fast"),
        ("layer_decay", "0"),
        ("fold", "0/5"),
        ("fold", "6/5"),
        ("fold", "1/1"),
        ("eval_image_size", "70"),
        ("cnn_image_size", "300"),
        ("cnn_image_size", "160:0.5,299:0.4"),
        ("cnn_image_size", "160/224/299"),
        ("cnn_image_size", "large"),
        ("augmentation", "weak"),
        ("mixup", "-1"),
        ("dropout", "1"),
    ],
)
def test_an_invalid_value_is_reported_with_its_flag_and_what_is_expected(name, value):
    with pytest.raises(errors.UsageError, match=f"--{name}=.*expected"):
        parse(f"--{name}={value}")


@pytest.mark.parametrize(
    "value, pixels", [("2.01", 2_010_000), ("16.777216", 4096 * 4096), ("1e12", 10**18)]
)
def test_the_most_pixels_are_exactly_those_of_the_flag(value, pixels):
    assert parse(f"--max_megapixels={value}").data.max_pixels == pixels < 2**63


@pytest.mark.parametrize("argument", ["--epochs=a", "--epochs=1,2,3", "--batch_size=1.5"])
def test_anything_but_one_or_two_numbers_is_refused_by_the_parser(argument):
    with pytest.raises(flags.Error, match="whole number"):
        parse(argument)


def test_image_sizes_are_a_schedule_for_each_phase():
    def sizes(text):
        return [[(s.size, s.share) for s in phase] for phase in image_sizes.parse(text)]

    assert sizes("299") == [[(299, 1.0)], [(299, 1.0)]]
    assert sizes("160/160:0.75,299:0.25") == [[(160, 1.0)], [(160, 0.75), (299, 0.25)]]
    assert image_sizes.text(image_sizes.parse("299/160:0.75,299:0.25")[1]) == "160:0.75,299:0.25"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"cached_views": 2}, "--cached_views=2 needs --augmentation=flip, standard or strong"),
        (
            {"cached_views": 2, "augmentation": "flip", "mixup": 0.2},
            "--cached_views=2 cannot be combined with --mixup and --cutmix",
        ),
        (
            {"schedule": ("constant", "onecycle"), "warmup_epochs": (1.0, 1.0)},
            "--warmup_epochs=1.0 cannot be combined with --schedule=onecycle",
        ),
        (
            {"mixup": 0.2, "batch_size": (2, 1)},
            "--mixup and --cutmix mix the images of a batch, so they need a --batch_size of at",
        ),
        (
            {"rnn_weights": "runs/rnn", "fusion": "cnn"},
            "--rnn_weights=runs/rnn has no effect with --fusion=cnn",
        ),
        (
            {"rnn_weights": "runs/rnn", "fusion": "gain"},
            "--rnn_weights=runs/rnn has no effect with --fusion=gain",
        ),
        ({"weight_decay": 0.1}, "--weight_decay=0.1 has no effect without --optimizer=adamw"),
        (
            {"momentum": 0.5, "optimizer": ("adamw", "adam")},
            "--momentum=0.5 has no effect without --optimizer=sgd",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(errors.UsageError, match=message):
        config.Config.of(**settings)


def test_every_flag_has_help():
    values = flags.FlagValues()
    config.define_flags(values)
    assert all(values[name].help for name in values)


def test_the_recorded_settings_are_json_and_can_be_read_back():
    settings = config.Config.of(epochs=(1, 2), run="name", seed=3)
    recorded = json.loads(json.dumps(settings.to_json()))
    assert recorded["epochs"] == [1, 2] and recorded["run"] == "name"
    assert "port" not in recorded and "kills" not in recorded
    assert config.from_json(recorded | {"from_the_future": 1}) == settings


@pytest.mark.parametrize(
    "recorded", [{"seed": "x"}, {"epochs": 3}, {"epochs": [1, "a"]}, {"run": None}, {"seed": True}]
)
def test_a_recorded_value_of_another_type_is_refused(recorded):
    with pytest.raises(errors.UsageError, match=f"{next(iter(recorded))}=.* is not valid"):
        config.from_json(recorded)


def test_flags_are_named_by_their_group_in_the_help():
    values = flags.FlagValues()
    config.define_flags(values)
    text = config.flags_help(("serving", "verification"), values)
    assert "--port" in text and "--kills" in text and "--epochs" not in text


def test_flags_that_differ_from_the_default_make_the_same_settings():
    settings = config.Config.of(epochs=(1, 2), run="name", learning_rate=(1e-5, 1e-6))
    assert parse(*settings.to_flags()) == settings
    assert config.Config().to_flags() == []


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="--epohcs"):
        config.Config.of(epohcs=(1, 1))


@pytest.mark.parametrize(
    "dataset, name",
    [
        ("digits", "digits"),
        ("tfds:beans", "beans"),
        ("tfds:cifar10/1.0.0", "cifar10-1.0.0"),
        ("/somewhere/My Images/", "My Images"),
        ("/somewhere/été", "t"),
        ("/somewhere/猫", "猫"),
        ("/somewhere/кошки и собаки/", "кошки и собаки"),
        ("/somewhere/_", "_"),
        ("/somewhere/猫_犬", "猫_犬"),
        ("/somewhere/собаки 1", "собаки 1"),
        ("/somewhere/हिन्दी/", "हिन्दी"),
        ("/somewhere/猫+犬", "猫-犬"),
        ("/somewhere/???", "run"),
        ("/somewhere/a,b/c/", "a+c"),
        ("/somewhere/My labels.csv", "My labels"),
    ],
)
def test_a_run_is_named_after_its_data_set(dataset, name):
    assert config.Config.of(dataset=dataset, runs_dir="/r").run_dir.name == name


def test_a_comma_separates_folders_unless_it_is_in_the_name_of_one(tmp_path):
    (tmp_path / "a,b").mkdir()
    (tmp_path / "c.csv").mkdir()
    whole = config.Config.of(dataset=str(tmp_path / "a,b"))
    assert whole.run_dir.name == "a-b" and whole.data.locations == (tmp_path / "a,b",)
    two = config.Config.of(dataset=f"{tmp_path}/a, {tmp_path}/b,")
    assert two.data.locations == (tmp_path / "a", tmp_path / "b")
    folder = config.Config.of(dataset=str(tmp_path / "c.csv"))
    assert folder.data.table is None and folder.run_dir.name == "c.csv"
    assert config.Config.of(run="a+b").run.name == "a+b"  # as reproduce gives it


def test_archive_is_refused_with_other_data_sets():
    with pytest.raises(errors.UsageError, match="--archive"):
        config.Config.of(dataset="digits", archive="x.zip")
