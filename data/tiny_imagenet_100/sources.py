"""Where the files of a data set lie: in a folder, or still in the zip in which they were published.

Both have the same methods, so that what reads them need not care. A zip is read in place: nothing
is unpacked, so no member can be written where it should not be, and a half unpacked folder cannot
be taken for a whole one.
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

# Bounds on what an archive may claim to hold. tiny-imagenet with a hundred classes is 121 MB, with
# two hundred twice that; its largest file, words.txt, is 2.7 MB and shrinks to a third.
_MAX_TOTAL_BYTES = 2 << 30
_MAX_MEMBER_BYTES = 64 << 20
_MAX_RATIO = 200
_RATIO_MATTERS_FROM_BYTES = 1 << 20

# What zipfile raises, at opening or in the middle of reading, for damage of one kind or another.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class Folder:
    """A source that was unpacked. The paths it hands out are those of the files."""

    def __init__(self, root: pathlib.Path):
        """Takes the folder in which all paths begin.

        Raises:
            UsageError: There is no such folder.
        """
        if not root.is_dir():
            raise errors.UsageError(f"{root}: no such folder or archive; give the path of one.")
        self.root = root

    def where(self, name: str) -> str:
        """Returns how to speak of the file or folder `name` to the user."""
        return str(self.root / name)

    def names(self, folder: str) -> list[str]:
        """Returns the sorted names of what lies in `folder`, or none where there is no such."""
        path = self.root / folder
        return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []

    def path(self, name: str) -> pathlib.PurePath:
        """Returns the path by which `size`, `read_bytes` and `copy` know the file `name`."""
        return self.root / name

    def size(self, path: pathlib.PurePath) -> int:
        """Returns the size of a file in bytes."""
        return pathlib.Path(path).stat().st_size

    def read_bytes(self, path: pathlib.PurePath) -> bytes:
        """Returns the content of a file."""
        return pathlib.Path(path).read_bytes()

    def copy(self, path: pathlib.PurePath, destination: pathlib.Path) -> None:
        """Copies the bytes of a file, and nothing else of it, to `destination`."""
        shutil.copyfile(path, destination)


class Archive:
    """A source that is still a zip; a context manager. Its paths are those within the top folder.

    Every member is looked at before any is read, and an archive with a single member that an
    honest one would not have is refused as a whole: it was made to harm or it is broken.
    """

    def __init__(self, file: pathlib.Path, required: Sequence[str]):
        """Opens the archive and checks its table of contents.

        Args:
            file: The zip.
            required: What has to be in its top folder, folders with a slash at the end. By the
                first, a file, the top folder is found.

        Raises:
            UsageError: The file is missing, is no zip or is cut short; a member has an absolute
                path, leaves the top folder, is a link or a device, is there twice, is encrypted or
                claims an absurd size; or what is required is not in it. The message names the
                member, or what is missing.
        """
        self.file = file
        if not file.is_file():
            raise errors.UsageError(f"{file}: no such file; give the path of a zip.")
        try:
            self._zip = zipfile.ZipFile(file)
        except OSError as error:
            raise errors.UsageError(f"{file}: cannot be read ({error.strerror}).") from error
        except _DAMAGE as error:
            raise errors.UsageError(
                f"{file}: not a zip archive, or one that was cut short ({error}); fetch it again."
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
        """Returns the name of the top folder, after refusing whatever does not belong."""
        infos = self._zip.infolist()
        seen: set[str] = set()
        for info in infos:
            fault = _member_fault(info)
            # Folded, because two names that differ in case are one file on some systems.
            key = info.orig_filename.rstrip("/").casefold()
            if not fault and key in seen:
                fault = "is there twice"
            seen.add(key)
            if fault:
                raise errors.UsageError(
                    f"{self.file}: the member {info.orig_filename!r} {fault}; "
                    "use the archive as it was published."
                )
        total = sum(info.file_size for info in infos)
        if total > _MAX_TOTAL_BYTES:
            raise errors.UsageError(
                f"{self.file}: its members claim {total:,} bytes, and no data set read here has "
                f"more than {_MAX_TOTAL_BYTES:,}; use the archive as it was published."
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
                f"{self.file}: {', '.join(missing)} is not in it, so it is not the published "
                "archive, or not all of it; fetch it again."
            )
        for info in infos:
            if not info.filename.startswith(f"{top}/"):
                raise errors.UsageError(
                    f"{self.file}: the member {info.filename!r} is outside of {top}/; "
                    "use the archive as it was published."
                )
        return top

    def where(self, name: str) -> str:
        """Returns how to speak of the file or folder `name` to the user."""
        return f"{self.file}: {self._top}/{name}"

    def names(self, folder: str) -> list[str]:
        """Returns the sorted names of what lies in `folder`, or none where there is no such."""
        return sorted(self._folders.get(folder.rstrip("/"), ()))

    def path(self, name: str) -> pathlib.PurePath:
        """Returns the path by which `size`, `read_bytes` and `copy` know the file `name`."""
        return pathlib.PurePosixPath(name)

    def size(self, path: pathlib.PurePath) -> int:
        """Returns the size of a file in bytes."""
        return self._member(path).file_size

    def read_bytes(self, path: pathlib.PurePath) -> bytes:
        """Returns the content of a file, checked against the checksum that the archive keeps.

        Raises:
            FileNotFoundError: There is no such file.
            RunError: The member is damaged.
        """
        info = self._member(path)
        try:
            return self._zip.read(info)
        except _DAMAGE as error:
            raise errors.RunError(
                f"{self.file}: the member {info.filename!r} is damaged ({error}); "
                "fetch the archive again."
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
    """Returns the folder that holds `path` and is in no folder itself."""
    tops = (name.removesuffix(f"/{path}") for name in names if name.endswith(f"/{path}"))
    return next((top for top in tops if "/" not in top), None)


def _is_at(name: str, path: str) -> bool:
    """Returns whether a member is the file `path`, or something in it where it is a folder."""
    return name.startswith(path) if path.endswith("/") else name == path


def _member_fault(info: zipfile.ZipInfo) -> str | None:
    """Returns what is wrong with one member of an archive, or None."""
    # The name as it is written in the file: zipfile cuts the other one at a null byte.
    name = info.orig_filename
    parts = name.removesuffix("/").split("/")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "has an absolute path"
    if ".." in re.split(r"[/\\]", name):
        return "has '..' in its path"
    if "\\" in name or "\0" in name or any(part in ("", ".") for part in parts):
        return "has a path that is not plain names between slashes"
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
        return f"claims to unpack from {info.compress_size:,} to {info.file_size:,} bytes"
    return None
