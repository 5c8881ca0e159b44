"""Data sets: `--dataset` in, a training and a validation split out, with a fingerprint."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable

import numpy as np
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.datasets import (
    class_folders,
    example_source,
    image_folder,
    image_index,
    splits,
    tfds_builders,
)
from cnnrnn.system import text as text_lib

_SHOWN = 5  # bad images in a message


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The two splits of a run.

    Attributes:
        name: --dataset, for messages and records.
        class_names: by label.
        train: the training split.
        validation: the validation split.
        fingerprint: SHA-256 over the labels and contents of both splits, in order. Two layouts of
            the same images in the same order have the same fingerprint and give the same run. Class
            names are not part of it, since they are only shown.
        split_here: whether `validation` was taken from the training images, by --fold or
            --validation_fraction.
        evaluated: "validation" or "test", what the images in `validation` are.
    """

    name: str
    class_names: tuple[str, ...]
    train: splits.Split
    validation: splits.Split
    fingerprint: str
    split_here: bool
    evaluated: str = "validation"

    @functools.cached_property
    def validation_in_training(self) -> int:
        """How many validation images are training images, too, byte for byte."""
        return self.validation.count_in(self.train)


@dataclasses.dataclass(frozen=True)
class Examined:
    """All labelled images of a data set, including those that cannot be trained on.

    Attributes:
        class_names: by label.
        train: the training images; of --test_dataset those that are scored.
        validation: the validation images; None if the data set has none with labels, with --fold,
            and of --test_dataset.
    """

    class_names: tuple[str, ...]
    train: splits.Split
    validation: splits.Split | None


def examine(
    config: config_lib.Config,
    on_problem: Callable[[str], None] | None = None,
    *,
    is_test: bool = False,
) -> Examined:
    """Prepares (downloads) a data set and checks every image.

    Args:
        config: its `data` settings.
        on_problem: called with each problem of one class or one folder, which is then skipped. By
            default the first is raised.
        is_test: whether the data set is that of --test_dataset.

    Raises:
        UsageError: the data set does not exist, or is not one of labelled images.
        RunError: downloading or reading failed.
    """
    name = config.data.dataset
    builder = tfds_builders.build(config, on_problem, is_test)
    image, label = tfds_builders.image_and_label(builder, name)
    others = tfds_builders.validation_names(builder, name, is_test)
    if is_test:
        # The test split of many TFDS data sets has no labels.
        for scored in others:
            test = _examine_split(config, builder, scored, image, label)
            if test:
                break
        if config.data.is_built:
            logging.info(f"{name}: its split {scored!r} is evaluated")
        return Examined(tuple(builder.info.features[label].names), test, None)
    train = _examine_split(config, builder, "train", image, label)
    if others and config.data.fold:
        logging.info("note: --fold is given, so the validation split of the data set is not used")
        others = []
    validation = None
    if others:
        # Without labels, a part of the training images is held out.
        validation = _examine_split(config, builder, others[0], image, label) or None
    return Examined(tuple(builder.info.features[label].names), train, validation)


def _examine_split(
    config: config_lib.Config,
    builder: tfds_builders.Builder,
    name: str,
    image: str,
    label: str,
) -> splits.Split:
    """One split of a builder, without the examples that have no label."""
    if isinstance(builder, image_folder.FolderBuilder):
        source = example_source.FileSource(builder, name)
    else:
        source = example_source.RecordSource(builder, name, image, label)
    shown = f"{text_lib.printable(config.data.dataset)} ({name})"
    labels, infos = image_index.examine(source, shown, config.data.max_pixels)
    split = splits.Split(source, np.arange(len(source)), labels, np.array(infos, object))
    # TFDS's label of examples without one is -1. Those that cannot be read are kept: they may have
    # one, and are reported.
    unread = np.array([not info.sha256 for info in infos], bool)
    return split.take(np.flatnonzero((labels >= 0) | unread))


def load(config: config_lib.Config) -> Dataset:
    """Prepares and checks a data set and makes its two splits.

    Raises:
        UsageError: the data set cannot be trained on as it is.
        RunError: downloading or reading failed.
    """
    examined = examine(config)
    class_names = examined.class_names
    if not examined.train:
        raise errors.UsageError(
            f"{_shown(config)} has no labelled training images: expected at least two classes "
            "of images."
        )
    _report_bad_images(config, examined)
    train, validation = divide(config, examined)
    dataset = Dataset(
        name=text_lib.printable(config.data.dataset),
        class_names=class_names,
        train=train,
        validation=validation,
        fingerprint=_fingerprint(len(class_names), train, validation),
        split_here=examined.validation is None,
    )
    fold = f", fold {config.data.fold}" if config.data.fold else ""
    logging.info(
        f"data: {dataset.name}{fold}, {len(class_names)} classes, {len(train):,} training and "
        f"{len(validation):,} validation images, fingerprint {dataset.fingerprint[:12]}"
    )
    if dataset.validation_in_training:
        logging.info(
            f"note: {dataset.validation_in_training:,} of the validation images are training "
            f"images, too, byte for byte. `{text_lib.program()} doctor` lists them"
        )
    return dataset


def divide(config: config_lib.Config, examined: Examined) -> tuple[splits.Split, splits.Split]:
    """The training and the validation split, without images that cannot be trained on.

    Raises:
        UsageError: the images cannot be divided as asked for, or too few are left.
    """
    class_names = examined.class_names
    train = _without_bad_images(config, examined.train, "training")
    if config.data.fold:
        train, validation = splits.fold(train, config, class_names)
    elif examined.validation is None:
        train, validation = splits.cut(train, config, class_names)
    else:
        validation = _without_bad_images(config, examined.validation, "validation")
    train = splits.choose_per_class(train, config.data.train_per_class, config.data.split_seed)
    validation = splits.choose_per_class(
        validation, config.data.validation_per_class, config.data.split_seed
    )
    _check_classes(config, train, class_names)
    return train, validation


def load_test(config: config_lib.Config, trained: Dataset) -> Dataset:
    """A run's data set with the images of --test_dataset in place of the validation split.

    Args:
        config: `evaluation` names the test images; `data` is how they are read.
        trained: the run's data set.

    Raises:
        UsageError: they cannot be evaluated as they are, or have a class that the run lacks.
        RunError: downloading or reading failed.
    """
    config = config.replace(dataset=config.evaluation.test_dataset, archive="")
    if config.data.is_built or config.data.table is not None:
        config = config.replace(class_separator="")  # of the run's folders
    try:
        examined = examine(config, is_test=True)
        _report_bad_images(config, examined)
        test = _without_bad_images(config, examined.train, "test")
    except errors.UsageError as error:
        raise errors.UsageError(str(error).replace("--dataset", "--test_dataset")) from error
    label_of = {name: label for label, name in enumerate(trained.class_names)}
    names = [examined.class_names[label] for label in test.labels]
    unknown = sorted(set(names) - label_of.keys())
    if unknown and not config.data.is_built and config.data.table is None:
        # A split of a data set whose class folders are named by ids has words.txt beside it.
        words = image_folder.words(config.data.locations[0].parent, unknown)
        names = [words.get(name, name) for name in names]
        unknown = sorted(set(names) - label_of.keys())
    if unknown:
        class_folders.report_similar({*unknown, *trained.class_names})
        shown = ", ".join(map(text_lib.printable, unknown[:_SHOWN]))
        raise errors.UsageError(
            f"--test_dataset={text_lib.printable(config.data.dataset)} has classes that the run "
            f"was not trained on: {shown}{', ...' if unknown[_SHOWN:] else ''}. Classes are "
            f"matched by name; `{text_lib.program()} data` lists those of the run. Folders named "
            "by WordNet ids need the words.txt of the training images, if these have one."
        )
    test = dataclasses.replace(test, labels=np.array([label_of[name] for name in names], np.int64))
    dataset = dataclasses.replace(
        trained,
        name=text_lib.printable(config.data.dataset),
        validation=test,
        fingerprint=_fingerprint(len(trained.class_names), trained.train, test),
        split_here=False,
        evaluated="test",
    )
    logging.info(
        f"test images: {dataset.name}, {len(test):,} images, {dataset.validation_in_training:,} of "
        f"them also among the training images, {test.count_in(trained.validation):,} among the "
        "validation images, by which the best epoch was chosen"
    )
    return dataset


def _report_bad_images(config: config_lib.Config, examined: Examined) -> None:
    """Lists the images that cannot be trained on: as an error, or as a warning if skipped."""
    present = [split for split in (examined.train, examined.validation) if split is not None]
    bad = [
        f"{split.describe(index)} {split.infos[index].problem}"
        for split in present
        for index in np.flatnonzero(split.problems)
    ]
    if not bad:
        return
    shown = "; ".join(bad[:_SHOWN]) + (f"; and {len(bad) - _SHOWN} more" if bad[_SHOWN:] else "")
    message = f"{len(bad):,} of {sum(map(len, present)):,} images cannot be used: {shown}"
    if config.data.bad_images == "stop":
        raise errors.UsageError(
            f"{message}. Fix or remove them, or leave them out with --bad_images=skip. "
            f"`{text_lib.program()} doctor` of the same data set writes all to doctor.txt."
        )
    logging.warning(f"{message}. They are left out (--bad_images=skip)")


def _without_bad_images(config: config_lib.Config, split: splits.Split, name: str) -> splits.Split:
    """The images of a split that can be trained on.

    Raises:
        UsageError: there are none. A validation split of bad images is not replaced by one cut
            from the training images, which would give another run than the one asked for.
    """
    good = np.flatnonzero(~split.problems)
    if not len(good):
        what = (
            f"all {len(split):,} {name} images are unusable" if len(split) else f"no {name} images"
        )
        raise errors.UsageError(
            f"{_shown(config)}: {what}. `{text_lib.program()} doctor` of the same data set lists "
            "what is wrong."
        )
    return split.take(good)


def _check_classes(
    config: config_lib.Config, train: splits.Split, class_names: tuple[str, ...]
) -> None:
    """Raises UsageError if fewer than two classes have training images; reports classes without.

    Some TFDS data sets declare labels that none of their examples has.
    """
    present = np.unique(train.labels)
    if len(present) < 2:
        raise errors.UsageError(
            f"{_shown(config)} has training images of {len(present)} class(es): a classifier needs "
            "at least two."
        )
    if len(present) < len(class_names):
        missing = np.setdiff1d(np.arange(len(class_names)), present)
        logging.info(
            f"note: {len(missing)} class(es) have no training images, e.g. "
            f"{class_names[missing[0]]!r}"
        )


def _shown(config: config_lib.Config) -> str:
    return f"--dataset={text_lib.printable(config.data.dataset)}"


def _fingerprint(classes: int, *parts: splits.Split) -> str:
    digest = hashlib.sha256(f"{classes} classes".encode())
    for split in parts:
        digest.update(f"{len(split)} examples".encode())
        digest.update(np.ascontiguousarray(split.labels, "<i8").tobytes())
        digest.update(np.ascontiguousarray(split.digests).tobytes())
    return digest.hexdigest()
