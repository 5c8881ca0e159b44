"""The files of a data set, in a folder or in a zip archive, through one interface.

An archive is read in place. Nothing is unpacked, so no member can be written outside of a target
folder, and no incomplete folder can be taken for a complete one.
"""

import collections
import pathlib
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence

from cnnrnn import errors

# Limits of the sizes that an archive declares. tiny-imagenet has 121 MB with a hundred classes and
# twice that with two hundred. Its largest file, words.txt, has 2.7 MB, compressed to a third.
_MAX_TOTAL_BYTES = 2 << 30
_MAX_MEMBER_BYTES = 64 << 20
_MAX_RATIO = 200
_RATIO_MATTERS_FROM_BYTES = 1 << 20

# What zipfile raises on damaged archives, when opening or reading them.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class Folder:
    """An unpacked source. Its paths are those of the files.

    Args:
        root: the top folder.

    Raises:
        UsageError: `root` is not a folder.
    """

    def __init__(self, root: pathlib.Path):
        if not root.is_dir():
            raise errors.UsageError(f"{root}: no such folder or archive; give the path of one.")
        self.root = root

    def where(self, name: str) -> str:
        """The file or folder `name` in messages."""
        return str(self.root / name)

    def names(self, folder: str) -> list[str]:
        """The sorted names of the entries of `folder`, [] if it does not exist."""
        path = self.root / folder
        return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []

    def path(self, name: str) -> pathlib.PurePath:
        """The path of the file `name`, for `size`, `read_bytes` and `copy`."""
        return self.root / name

    def size(self, path: pathlib.PurePath) -> int:
        """A file's size in bytes."""
        return pathlib.Path(path).stat().st_size

    def read_bytes(self, path: pathlib.PurePath) -> bytes:
        """The content of a file."""
        return pathlib.Path(path).read_bytes()

    def copy(self, path: pathlib.PurePath, destination: pathlib.Path) -> None:
        """Copies the content of a file, without its metadata, to `destination`."""
        shutil.copyfile(path, destination)


class Archive:
    """A zip archive, as a context manager. Its paths are relative to the top folder.

    All members are checked before any is read. A single one that a published archive would not
    have means that the archive is malicious or damaged, and it is refused.

    Args:
        file: the zip.
        required: what its top folder must contain, folders with a slash at the end. The first, a
            file, is used to find the top folder.

    Raises:
        UsageError: the file is missing, is not a zip or is truncated; a member has an absolute
            path, is outside of the top folder, is a link or a device, is there twice, is encrypted
            or declares an absurd size; or something required is missing. The message names it.
    """

    def __init__(self, file: pathlib.Path, required: Sequence[str]):
        self.file = file
        if not file.is_file():
            raise errors.UsageError(f"{file}: no such file; give the path of a zip.")
        try:
            self._zip = zipfile.ZipFile(file)
        except OSError as error:
            raise errors.UsageError(f"{file}: cannot be read ({error.strerror}).") from error
        except _DAMAGE as error:
            raise errors.UsageError(
                f"{file}: not a zip archive, or a truncated one ({error}); download it again."
            ) from error
        try:
            self._top = self._check_members(required)
        except BaseException:
            self._zip.close()
            raise
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._folders: dict[str, set[str]] = collections.defaultdict(set)
        for info in self._zip.infolist():
            parts = pathlib.PurePosixPath(info.filename).parts[1:]
            for depth, part in enumerate(parts):
                self._folders["/".join(parts[:depth])].add(part)
            if not info.is_dir():
                self._members["/".join(parts)] = info

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *unused: object) -> None:
        self._zip.close()

    def _check_members(self, required: Sequence[str]) -> str:
        """Checks all members and returns the name of the top folder."""
        infos = self._zip.infolist()
        seen: set[str] = set()
        for info in infos:
            problem = _member_problem(info)
            # Some systems take two names that differ in case for the same file.
            key = info.orig_filename.rstrip("/").casefold()
            if not problem and key in seen:
                problem = "is there twice"
            seen.add(key)
            if problem:
                raise errors.UsageError(
                    f"{self.file}: the member {info.orig_filename!r} {problem}; "
                    "use the archive as it was published."
                )
        total = sum(info.file_size for info in infos)
        if total > _MAX_TOTAL_BYTES:
            raise errors.UsageError(
                f"{self.file}: its members declare {total:,} bytes, more than the limit of "
                f"{_MAX_TOTAL_BYTES:,}; use the archive as it was published."
            )
        names = [info.filename for info in infos]
        top = _find_top(names, required[0])
        if top is None:
            missing = required[:1]
        else:
            missing = [
                path
                for path in required
                if not any(_is_at(name, f"{top}/{path}") for name in names)
            ]
        if missing:
            raise errors.UsageError(
                f"{self.file}: {', '.join(missing)} is missing, so it is not the published "
                "archive, or is incomplete; download it again."
            )
        for info in infos:
            if not info.filename.startswith(f"{top}/"):
                raise errors.UsageError(
                    f"{self.file}: the member {info.filename!r} is outside of {top}/; "
                    "use the archive as it was published."
                )
        return top

    def where(self, name: str) -> str:
        """The file or folder `name` in messages."""
        return f"{self.file}: {self._top}/{name}"

    def names(self, folder: str) -> list[str]:
        """The sorted names of the entries of `folder`, [] if it does not exist."""
        return sorted(self._folders.get(folder.rstrip("/"), ()))

    def path(self, name: str) -> pathlib.PurePath:
        """The path of the file `name`, for `size`, `read_bytes` and `copy`."""
        return pathlib.PurePosixPath(name)

    def size(self, path: pathlib.PurePath) -> int:
        """A file's size in bytes."""
        return self._member(path).file_size

    def read_bytes(self, path: pathlib.PurePath) -> bytes:
        """The content of a file, checked against the archive's checksum.

        Raises:
            FileNotFoundError: the file does not exist.
            RunError: the member is damaged.
        """
        info = self._member(path)
        try:
            return self._zip.read(info)
        except _DAMAGE as error:
            raise errors.RunError(
                f"{self.file}: the member {info.filename!r} is damaged ({error}); "
                "download the archive again."
            ) from error

    def copy(self, path: pathlib.PurePath, destination: pathlib.Path) -> None:
        """Writes the content of a file to `destination`."""
        destination.write_bytes(self.read_bytes(path))

    def _member(self, path: pathlib.PurePath) -> zipfile.ZipInfo:
        info = self._members.get(path.as_posix())
        if info is None:
            raise FileNotFoundError(self.where(path.as_posix()))
        return info


Source = Folder | Archive


def _find_top(names: Sequence[str], path: str) -> str | None:
    """The top-level folder that contains `path`."""
    tops = (name.removesuffix(f"/{path}") for name in names if name.endswith(f"/{path}"))
    return next((top for top in tops if "/" not in top), None)


def _is_at(name: str, path: str) -> bool:
    """Whether a member is the file `path`, or is inside it if it is a folder."""
    return name.startswith(path) if path.endswith("/") else name == path


def _member_problem(info: zipfile.ZipInfo) -> str | None:
    """Why an archive with this member is refused, None if it is not."""
    # The name as stored: `filename` is truncated at a null byte.
    name = info.orig_filename
    parts = name.removesuffix("/").split("/")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "has an absolute path"
    if ".." in re.split(r"[/\\]", name):
        return "has '..' in its path"
    if "\\" in name or "\0" in name or any(part in ("", ".") for part in parts):
        return "has a path that is not plain names separated by slashes"
    if stat.S_ISLNK(kind):
        return "is a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    if info.flag_bits & 0x1:
        return "is encrypted"
    ratio = info.file_size / max(info.compress_size, 1)
    if info.file_size > _MAX_MEMBER_BYTES or (
        info.file_size > _RATIO_MATTERS_FROM_BYTES and ratio > _MAX_RATIO
    ):
        return f"declares that it unpacks from {info.compress_size:,} to {info.file_size:,} bytes"
    return None
