"""Fuzzer of damaged and malicious archives: nothing outside the target, no wrong content."""

import contextlib
import io
import pathlib
import stat
import zipfile

import numpy as np

from cnnrnn import errors
from cnnrnn.data.tiny_imagenet_100 import dummy
from cnnrnn.datasets import tiny_imagenet_folders
from tests.fuzz import harness, mutations

NAMES = (
    "../outside", "/tmp/outside", "..\\outside", "train/../../outside", "C:\\outside", "./x",
    "train/n00000001/images/../../../../outside", "a\x00b", "a\nb", "\u202e.txt", "x" * 5000,
)  # fmt: skip
KINDS = (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK)


def make(seed, folder):
    content = dummy.files(["n00000003", "n00000001", "n00000002"], 2, 1)
    base = dummy.write_zip(folder / "base.zip", content).read_bytes()
    (folder / "bystander").write_text("untouched")

    def try_one(number):
        rng = np.random.default_rng([seed, number])
        archive, target = folder / "tried.zip", folder / "target"
        if rng.random() < 0.5:
            archive.write_bytes(mutations.mutate(base, [base], rng))
            expected = content
        else:
            malicious, expected = _malicious(content, rng)
            archive.write_bytes(malicious)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                tiny_imagenet_folders.restructure(archive, target)
            outcome = "copied"
        except (errors.UsageError, errors.RunError):
            outcome = "refused"
        if {path.name for path in folder.iterdir()} - {
            "base.zip", "tried.zip", "bystander", "target"
        }:  # fmt: skip
            raise AssertionError(f"outside the target: {sorted(folder.iterdir())}")
        _check(target, {pathlib.PurePath(name).name: data for name, data in expected.items()})
        return outcome

    return try_one


def _malicious(content, rng):
    """An intact archive with one malicious member, and its members by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        members = [(f"{dummy.TOP}/{name}", data) for name, data in content.items()]
        match int(rng.integers(0, 5)):
            case 0:
                name = NAMES[int(rng.integers(len(NAMES)))]
                members.append((f"{dummy.TOP}/{name}" if rng.random() < 0.5 else name, b"evil"))
            case 1:
                info = zipfile.ZipInfo(f"{dummy.TOP}/train/n00000001/images/link.JPEG")
                info.external_attr = (KINDS[int(rng.integers(len(KINDS)))] | 0o777) << 16
                members.append((info, b"/etc/passwd"))
            case 2:
                members.append(members[int(rng.integers(len(members)))])
            case 3:
                at = int(rng.integers(len(members)))
                members[at] = (members[at][0], bytes(int(rng.integers(1, 80)) << 20))
            case 4:  # lists with wrong content
                at = [i for i, (name, _) in enumerate(members) if name.endswith(".txt")]
                chosen = int(rng.choice(at))
                name, data = members[chosen]
                members[chosen] = (name, mutations.mutate(data, [data], rng))
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # duplicate names
            for name, data in members:
                archive.writestr(name, data)
    return buffer.getvalue(), {str(name): data for name, data in members}


def _check(target, reference):
    """Checks that the target has only intact files of the archive, then removes it."""
    if not target.exists():
        return
    for path in sorted(target.rglob("*"), reverse=True):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise AssertionError(f"{path} is not a regular file")
        if path.is_dir():
            path.rmdir()
            continue
        if path.suffix == ".JPEG" and path.read_bytes() != reference.get(path.name):
            raise AssertionError(f"{path} has other content")
        path.unlink()
    target.rmdir()


if __name__ == "__main__":
    harness.main(make)
