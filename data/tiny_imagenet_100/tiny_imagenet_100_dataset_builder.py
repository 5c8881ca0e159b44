"""tiny-imagenet-100 as a TFDS data set."""

import collections
import http.client
import os
import pathlib
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from cnnrnn import errors

from . import original_layout

# In order of preference. The second has the same files for these classes, and a hundred classes
# more, which are skipped.
_URLS = (
    "http://cs231n.stanford.edu/tiny-imagenet-100-A.zip",
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
)
_FILE_NAMES = tuple(url.rpartition("/")[2] for url in _URLS)
_CONNECT_SECONDS = 5
# The errors of requests, which TFDS passes on, are OSErrors.
_DOWNLOAD_ERRORS = (OSError, http.client.HTTPException, tfds.download.DownloadError)


class Builder(tfds.core.GeneratorBasedBuilder):
    """DatasetBuilder for the tiny-imagenet-100 data set."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""
    If the archive cannot be downloaded, put {_FILE_NAMES[0]} or {_FILE_NAMES[1]}
    into this folder.
    """

    # Numbers of images of each class, which an archive must have.
    TRAIN_PER_CLASS = 500
    VALIDATION_PER_CLASS = 50

    def __init__(self, *, archive: str | os.PathLike[str] | None = None, **kwargs: Any):
        """Constructs the builder.

        Args:
            archive: the zip to build from. By default one in the manual folder, else a download.
            **kwargs: of every TFDS builder, such as data_dir and file_format.
        """
        self._archive = None if archive is None else pathlib.Path(archive)
        super().__init__(**kwargs)
        # TFDS pickles a builder by these arguments.
        self._original_state["archive"] = archive

    def _info(self) -> tfds.core.DatasetInfo:
        """The data set's metadata."""
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=list(_classes().values())),
                    "filename": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="http://cs231n.stanford.edu/",
            # Stored by class and file name, in the order of the same images in class folders.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        """Finds the archive, checks that it is complete, and returns the examples of each split.

        Raises:
            UsageError: the archive is missing, refused or incomplete.
            RunError: no archive was found and none can be downloaded.
        """
        file = self._find_archive(dl_manager)
        with original_layout.open_source(file) as archive:
            layout = original_layout.read_source(archive, tuple(_classes()))
        for examples, what, expected in (
            (layout.train, "training", self.TRAIN_PER_CLASS),
            (layout.validation, "validation", self.VALIDATION_PER_CLASS),
        ):
            counts = collections.Counter(label for _, label in examples)
            for label, wnid in enumerate(layout.wnids):
                if counts[label] != expected:
                    raise errors.UsageError(
                        f"{file}: the class {wnid} has {counts[label]} {what} images, but the "
                        f"published archive has {expected}; download it again from {_URLS[0]}."
                    )
        return {
            "train": self._generate_examples(file, layout.train),
            "validation": self._generate_examples(file, layout.validation),
        }

    def _generate_examples(
        self, file: pathlib.Path, examples: Sequence[tuple[pathlib.PurePath, int]]
    ) -> Iterator[tuple[int, dict]]:
        """Yields the examples, with the encoded images unchanged.

        Args:
            file: the archive.
            examples: path in the archive and label of each image.
        """
        with original_layout.open_source(file) as archive:
            for key, (path, label) in enumerate(examples):
                image = archive.read_bytes(path)
                yield key, {"image": image, "label": label, "filename": path.name}

    def _find_archive(self, dl_manager: tfds.download.DownloadManager) -> pathlib.Path:
        """The archive to build from: --archive, the manual folder or a download."""
        if self._archive is not None:
            if not self._archive.is_file():
                raise errors.UsageError(
                    f"--archive={self._archive}: no such file; give the path of "
                    f"{_FILE_NAMES[0]} or {_FILE_NAMES[1]}."
                )
            return self._archive
        try:
            manual_dir = dl_manager.manual_dir
        except AssertionError:  # the folder does not exist or is empty
            manual_dir = None
        if manual_dir is not None:
            for name in _FILE_NAMES:
                if (manual_dir / name).is_file():
                    return pathlib.Path(manual_dir / name)
        return self._download(dl_manager)

    def _download(self, dl_manager: tfds.download.DownloadManager) -> pathlib.Path:
        """The first archive that was or can be downloaded."""
        problems = []
        for url in _URLS:
            try:
                if not self._was_downloaded(dl_manager, url):
                    # TFDS would retry for minutes if the host does not respond.
                    _check_reachable(url)
                return pathlib.Path(dl_manager.download(url))
            except _DOWNLOAD_ERRORS as error:
                problems.append(f"{url} ({error})")
        raise errors.RunError(
            f"Cannot download tiny-imagenet-100: {'; '.join(problems)}. Download one of the two "
            "elsewhere and give it with --archive=PATH (to `tfds build`: its folder with "
            "--manual_dir=PATH)."
        )

    def _was_downloaded(self, dl_manager: tfds.download.DownloadManager, url: str) -> bool:
        """Whether TFDS has downloaded the file before."""
        info_files = (dl_manager.download_dir / self.name).glob("*.INFO")
        return any(url in info_file.read_text() for info_file in info_files)


def _classes() -> dict[str, str]:
    """The name of each class by its id, in the order of the labels."""
    lines = tfds.core.Path(__file__).with_name("classes.tsv").read_text().splitlines()
    return dict(line.split("\t") for line in lines)


def _check_reachable(url: str) -> None:
    """Raises one of _DOWNLOAD_ERRORS unless the server has the file."""
    request = urllib.request.Request(url, method="HEAD")
    with urllib.request.urlopen(request, timeout=_CONNECT_SECONDS):
        pass
