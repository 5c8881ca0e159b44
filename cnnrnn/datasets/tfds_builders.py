"""From the name of a data set or a folder to a prepared TFDS builder."""

import contextlib
import errno
import fcntl
import io
import pathlib
import sys
from collections.abc import Callable, Iterator

import requests
import tensorflow_datasets as tfds
from absl import logging
from google.protobuf import json_format
from tensorflow_datasets.core import dataset_info

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.data.digit_stacks import digit_stacks_dataset_builder
from cnnrnn.data.digits import digits_dataset_builder
from cnnrnn.data.photos import photos_dataset_builder
from cnnrnn.data.tiny_imagenet_100 import tiny_imagenet_100_dataset_builder
from cnnrnn.datasets import class_folders, example_source, image_folder, image_table
from cnnrnn.settings import data as data_settings
from cnnrnn.settings import paths
from cnnrnn.system import text as text_lib

_QUICK = ("digits", "digit_stacks", "photos")  # prepared in a second
# Of a name, a version or a configuration that does not exist.
_NOT_LOADED = (
    tfds.core.DatasetNotFoundError, ImportError, ValueError, AssertionError, TypeError
)  # fmt: skip
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
_VALIDATION_SPLITS = ("validation", "val", "test")
_TEST_SPLITS = ("test", "validation", "val")  # of --test_dataset

Builder = tfds.core.DatasetBuilder


def build(
    config: config_lib.Config, on_problem: Callable[[str], None] | None, is_test: bool
) -> Builder:
    """The prepared builder of a data set; see `dataset.examine`."""
    name, data_dir = config.data.dataset, config.data.prepared_data_dir
    if not config.data.is_built:
        return _of_files(config.data, on_problem, is_test)
    _check_separator(config.data)
    if pathlib.Path(name).is_dir():
        logging.info(f"note: {name} is built in. To read the folder of this name, give ./{name}")
    archive = paths.expanded(config.data.archive) if config.data.archive else None
    if archive is not None and not archive.is_file():
        raise errors.UsageError(f"--archive={text_lib.printable(str(archive))} is not a file.")
    storage = {"data_dir": data_dir, "file_format": "array_record"}
    try:
        if name == "digits":
            builder = digits_dataset_builder.Builder(**storage)
        elif name == "digit_stacks":
            builder = digit_stacks_dataset_builder.Builder(**storage)
        elif name == "photos":
            builder = photos_dataset_builder.Builder(**storage)
        elif name == "tiny_imagenet_100":
            builder = tiny_imagenet_100_dataset_builder.Builder(archive=archive, **storage)
        else:
            builder = tfds.builder(name.removeprefix("tfds:"), **storage)
    except (
        json_format.ParseError,
        UnicodeDecodeError,
        dataset_info.DatasetInfoFileError,
    ) as error:
        folder = data_dir / name.removeprefix("tfds:").partition(":")[0]  # NAME or NAME:VERSION
        raise example_source.damaged(folder, error) from error
    except _NOT_LOADED as error:
        if "File format is already set" in str(error):
            raise errors.UsageError(
                f"{data_dir} holds {name} in a format without random access: give another "
                "--data_dir, in which it is prepared again."
            ) from error
        raise errors.UsageError(f"--dataset={name}: {text_lib.first_line(error)}") from error
    if archive is not None and builder.data_path.exists():
        logging.info(
            f"note: --archive is not read: {name} is already prepared in {builder.data_path}"
        )
    try:
        return _prepared(builder, name, data_dir)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        raise errors.RunError(
            f"cannot prepare {name} in {data_dir} ({error.strerror}): make it writable and free "
            "some space, or give another folder by --data_dir or CNNRNN_CACHE."
        ) from error


def _of_files(
    data: data_settings.DataSettings, on_problem: Callable[[str], None] | None, is_test: bool
) -> image_folder.FolderBuilder:
    """The builder of folders of images, or of a file that lists them."""
    if data.table is None:
        builder = image_folder.build(data.locations, on_problem, data.class_separator, is_test)
    else:
        _check_separator(data)
        builder = image_table.build(
            data.table, on_problem, keeps_missing=data.bad_images == "skip", is_test=is_test
        )
    class_folders.report_similar(builder.info.features["label"].names)
    return builder


def _check_separator(data: data_settings.DataSettings) -> None:
    if data.class_separator:
        raise errors.UsageError(
            f"--class_separator={data.class_separator} is for folders of images. Received: "
            f"--dataset={text_lib.printable(data.dataset)}."
        )


def _prepared(builder: Builder, name: str, data_dir: pathlib.Path) -> Builder:
    """Downloads and prepares a data set if it is not yet; fails within seconds when offline."""
    if builder.data_path.exists():
        return builder
    with _locked(data_dir / f".{builder.name}.lock", name):
        if builder.data_path.exists():  # by now: another process has prepared it
            builder.info.read_from_directory(builder.data_dir)
            return builder
        logging.info(f"preparing {name} in {builder.data_path} (once)")
        if name in _QUICK or not sys.stdout.isatty():
            tfds.disable_progress_bar()  # its bars overwrite themselves, which a log file cannot
        manual_dir = data_dir / "downloads" / "manual"
        check_reachable(builder, name, manual_dir)
        try:
            # Its messages; its progress is on standard error.
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare(
                    download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
                )
        except (errors.UsageError, errors.RunError, OSError):
            raise
        except Exception as error:  # builders written elsewhere raise anything
            raise errors.RunError(
                f"the data set {name} could not be prepared: {type(error).__name__}: {error}"
            ) from error
    return builder


@contextlib.contextmanager
def _locked(path: pathlib.Path, name: str) -> Iterator[None]:
    """A context that one process at a time is in, where the file system supports locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.info(f"waiting for another process that prepares {name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        yield


def check_reachable(builder: Builder, name: str, manual_dir: pathlib.Path) -> None:
    """Raises at once what TFDS would raise after some 200 seconds of retries.

    tiny_imagenet_100 registers no URLs and has a check of its own: it asks for a file rather than
    a host, and must work under `tfds build`, where nothing of this package but `errors` is used.

    Args:
        builder: one URL per host is tried of those that it registers.
        name: of the data set, for the message.
        manual_dir: where TFDS looks for files before it downloads them.

    Raises:
        RunError: no host responds. The message lists the files to fetch and where to put
            them.
    """
    by_hand = bool(builder.MANUAL_DOWNLOAD_INSTRUCTIONS)  # then files are named as in their URLs
    files = {
        url: info.filename or (url.rpartition("/")[2] if by_hand else None)
        for url, info in (builder.url_infos or {}).items()
        if url.startswith("http")
    }
    missing = {
        url: file for url, file in files.items() if not (file and (manual_dir / file).exists())
    }
    one_per_host = {url.split("/")[2]: url for url in sorted(missing, reverse=True)}
    unreachable = {}
    for host, url in one_per_host.items():
        try:
            requests.head(url, timeout=5, allow_redirects=False)
        except requests.RequestException as error:
            unreachable[host] = error
    # Some data sets still list URLs that they do not use, so one host that responds is enough.
    if missing and len(unreachable) == len(one_per_host):
        host, error = next(iter(unreachable.items()))
        wanted = "\n".join(
            f"  {url}" + (f"  as {file}" if file and not url.endswith(file) else "")
            for url, file in sorted(missing.items())[:10]
        )
        raise errors.RunError(
            f"the data set {name} has to be downloaded, and {host} cannot be reached "
            f"({type(error).__name__}). Download these files elsewhere and put them into "
            f"{manual_dir}, then give the same command again:\n{wanted}"
        ) from error


def image_and_label(builder: Builder, name: str) -> tuple[str, str]:
    """The names of the image and the label feature.

    Raises:
        UsageError: an example is not one image and one class label.
    """
    features = builder.info.features
    keys = builder.info.supervised_keys or ("image", "label")
    usable = (
        all(isinstance(key, str) and key in features for key in keys)
        and isinstance(features[keys[0]], tfds.features.Image)
        and isinstance(features[keys[1]], tfds.features.ClassLabel)
    )
    if not usable:
        raise errors.UsageError(
            f"--dataset={name} is not an image classification data set: expected one image and one "
            f"class label per example. Its features are {', '.join(features)}."
        )
    return keys[0], keys[1]


def validation_names(builder: Builder, name: str, is_test: bool) -> list[str]:
    """The validation split, if there is one; of --test_dataset, what may be scored, in order.

    Raises:
        UsageError: there is no split 'train', and of test images none of the others.
        RunError: there are no splits.
    """
    splits = list(builder.info.splits)
    if not splits:
        raise example_source.damaged(builder.data_path, "it lists no splits")
    scored = [split for split in (*_TEST_SPLITS, "train") if split in splits] if is_test else []
    if scored:
        return scored
    if "train" not in splits:
        raise errors.UsageError(
            f"--dataset={name} has no split 'train'. Its splits are {', '.join(splits)}."
        )
    return [split for split in _VALIDATION_SPLITS if split in splits][:1]
