"""A name or a folder -> a TFDS builder, prepared."""

import pathlib
import sys
from collections.abc import Callable

import requests
import tensorflow_datasets as tfds
from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.data.digits import digits_dataset_builder
from cnnrnn.data.tiny_imagenet_100 import tiny_imagenet_100_dataset_builder
from cnnrnn.datasets import image_folder
from cnnrnn.system import text as text_lib

_VALIDATION_SPLITS = ("validation", "val", "test")


def build(
    config: config_lib.Config, fault: Callable[[str], None] | None
) -> tfds.core.DatasetBuilder:
    """The prepared builder of a data set's name or folder; see `datasets.examine`."""
    name, data_dir = config.data.dataset, config.data.prepared_data_dir
    if name not in ("digits", "tiny_imagenet_100") and not name.startswith("tfds:"):
        return image_folder.build(pathlib.Path(name).expanduser(), fault)
    archive = pathlib.Path(config.data.archive).expanduser() if config.data.archive else None
    if archive is not None and not archive.is_file():
        raise errors.UsageError(f"--archive={archive} is not a file.")
    storage = {"data_dir": data_dir, "file_format": "array_record"}
    try:
        if name == "digits":
            builder = digits_dataset_builder.Builder(**storage)
        elif name == "tiny_imagenet_100":
            builder = tiny_imagenet_100_dataset_builder.Builder(archive=archive, **storage)
        else:
            builder = tfds.builder(name.removeprefix("tfds:"), **storage)
    except (tfds.core.DatasetNotFoundError, ImportError, ValueError) as error:
        if "File format is already set" in str(error):
            raise errors.UsageError(
                f"{data_dir} holds {name} in a format that cannot be read by row: give another "
                "--data_dir, where it is prepared anew."
            ) from error
        raise errors.UsageError(f"--dataset={name}: {text_lib.first_line(error)}") from error
    if archive is not None and builder.data_path.exists():
        logging.info(
            f"note: --archive is not read: {name} was prepared before in {builder.data_path}"
        )
    return _prepared(builder, name, data_dir)


def _prepared(
    builder: tfds.core.DatasetBuilder, name: str, data_dir: pathlib.Path
) -> tfds.core.DatasetBuilder:
    """Downloads and prepares a builder unless it is; ends within seconds when offline."""
    if not builder.data_path.exists():
        logging.info(f"preparing {name} in {builder.data_path} (once)")
        if not sys.stdout.isatty():
            tfds.disable_progress_bar()  # its bars overwrite themselves, which a log cannot
        manual = data_dir / "downloads" / "manual"
        check_reachable(builder, name, manual)
        try:
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual)
            )
        except (errors.UsageError, errors.RunError, OSError):
            raise
        except Exception as error:  # builders of other people raise anything at all
            raise errors.RunError(
                f"the data set {name} could not be prepared: {type(error).__name__}: {error}"
            ) from error
    return builder


def check_reachable(builder: tfds.core.DatasetBuilder, name: str, manual: pathlib.Path) -> None:
    """Raises at once what TFDS would find out after some 200 seconds of retries.

    Args:
        builder: its registered URLs are what is looked at; one per host is tried.
        name: the data set, for the message.
        manual: TFDS takes a download from here if a file of the right name and checksum is there.

    Raises:
        RunError: a host does not answer; says what to fetch and where to put it.
    """
    missing = {
        url: info.filename
        for url, info in (builder.url_infos or {}).items()
        if url.startswith("http") and not (info.filename and (manual / info.filename).exists())
    }
    one_per_host = {url.split("/")[2]: url for url in sorted(missing, reverse=True)}
    for url in one_per_host.values():
        try:
            requests.head(url, timeout=5, allow_redirects=False)
        except requests.RequestException as error:
            wanted = "\n".join(
                f"  {url}" + (f"  as {file}" if file and not url.endswith(file) else "")
                for url, file in sorted(missing.items())[:10]
            )
            raise errors.RunError(
                f"the data set {name} has to be downloaded, and {url.split('/')[2]} cannot be "
                f"reached ({type(error).__name__}). Fetch these files elsewhere and put them into "
                f"{manual}, then give the same command again:\n{wanted}"
            ) from error


def image_and_label(builder: tfds.core.DatasetBuilder, name: str) -> tuple[str, str]:
    """The names of the image and the label feature."""
    features = builder.info.features
    keys = builder.info.supervised_keys or ("image", "label")
    usable = (
        all(isinstance(key, str) and key in features for key in keys)
        and isinstance(features[keys[0]], tfds.features.Image)
        and isinstance(features[keys[1]], tfds.features.ClassLabel)
    )
    if not usable:
        raise errors.UsageError(
            f"--dataset={name} is no image classification set: expected one image and one class "
            f"label per example. Its features are {', '.join(features)}."
        )
    return keys[0], keys[1]


def validation_name(builder: tfds.core.DatasetBuilder, name: str) -> str | None:
    splits = list(builder.info.splits)
    if "train" not in splits:
        raise errors.UsageError(
            f"--dataset={name} has no split 'train'. Its splits are {', '.join(splits)}."
        )
    return next((split for split in _VALIDATION_SPLITS if split in splits), None)
