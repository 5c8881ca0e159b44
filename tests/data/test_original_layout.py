"""Tests of the original layout of tiny-imagenet."""

import pathlib
import stat
import zipfile

import pytest

from cnnrnn import errors
from cnnrnn.data.tiny_imagenet_100 import dummy, original_layout, sources

WNIDS = ["n00000003", "n00000001", "n00000002"]
ANNOTATIONS = "val/val_annotations.txt"


@pytest.fixture
def content() -> dict[str, bytes]:
    return dummy.files(WNIDS, train_per_class=11, validation_per_class=2)


@pytest.fixture(params=["folder", "zip"])
def write(request, tmp_path):
    """A function that writes content as a folder or a zip and returns its path."""

    def write_source(content: dict[str, bytes]) -> pathlib.Path:
        if request.param == "zip":
            return dummy.write_zip(tmp_path / "source.zip", content)
        return dummy.write_folder(tmp_path / "source", content)

    return write_source


def _read(path: pathlib.Path, wnids=None) -> original_layout.OriginalLayout:
    with original_layout.open_source(path) as source:
        return original_layout.read_source(source, wnids)


def _read_error(path: pathlib.Path, wnids=None) -> str:
    with pytest.raises(errors.UsageError) as caught:
        _read(path, wnids)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Complete sources.


def test_labels_follow_the_sorted_ids_and_examples_the_label_and_the_name(write, content):
    layout = _read(write(content))
    assert layout.wnids == ("n00000001", "n00000002", "n00000003")
    names = [path.name for path, _ in layout.train]
    assert names == sorted(names)
    # By character, not by number, as in class folders.
    assert names[:3] == ["n00000001_0.JPEG", "n00000001_1.JPEG", "n00000001_10.JPEG"]
    assert [label for _, label in layout.train] == [0] * 11 + [1] * 11 + [2] * 11
    # The classes of the validation images are 3, 1, 2, 3, 1, 2, in the order of wnids.txt.
    assert [(path.name, label) for path, label in layout.validation] == [
        ("val_1.JPEG", 0),
        ("val_4.JPEG", 0),
        ("val_2.JPEG", 1),
        ("val_5.JPEG", 1),
        ("val_0.JPEG", 2),
        ("val_3.JPEG", 2),
    ]


def test_a_folder_and_an_archive_have_the_same_content(tmp_path, content):
    with (
        original_layout.open_source(dummy.write_folder(tmp_path / "a", content)) as folder,
        original_layout.open_source(dummy.write_zip(tmp_path / "a.zip", content)) as archive,
    ):
        in_folder = original_layout.read_source(folder)
        in_archive = original_layout.read_source(archive)
        assert in_folder.class_names == in_archive.class_names
        for one, other in (
            (in_folder.train, in_archive.train),
            (in_folder.validation, in_archive.validation),
        ):
            assert len(one) == len(other)
            for (path, label), (member, same_label) in zip(one, other, strict=True):
                assert label == same_label
                assert folder.read_bytes(path) == archive.read_bytes(member)
                assert folder.size(path) == archive.size(member)


def test_read_returns_the_paths_of_the_files(tmp_path, content):
    root = dummy.write_folder(tmp_path / "a", content)
    path, label = original_layout.read(root).train[0]
    assert path == root / "train/n00000001/images/n00000001_0.JPEG"
    assert label == 0


def test_a_subset_of_the_classes_has_labels_of_its_own(write, content):
    layout = _read(write(content), wnids=["n00000003", "n00000002"])
    assert layout.wnids == ("n00000002", "n00000003")
    assert {path.name.split("_")[0]: label for path, label in layout.train} == {
        "n00000002": 0,
        "n00000003": 1,
    }
    assert [path.name for path, _ in layout.validation] == [
        "val_2.JPEG",
        "val_5.JPEG",
        "val_0.JPEG",
        "val_3.JPEG",
    ]


def test_the_error_names_a_missing_class_of_a_subset(write, content):
    message = _read_error(write(content), wnids=["n00000001", "n00000009"])
    assert "'n00000009'" in message and "wnids.txt" in message


def test_class_names_are_the_words_or_the_id_and_all_different(write, content):
    content["words.txt"] = b"n00000001\tcrane\r\nn00000003\tcrane\nn00000001\tlater, not taken\n"
    assert _read(write(content)).class_names == (
        "crane (n00000001)",
        "n00000002",
        "crane (n00000003)",
    )


def test_class_names_are_the_ids_without_words(write, content):
    del content["words.txt"]
    assert _read(write(content)).class_names == ("n00000001", "n00000002", "n00000003")


def test_line_ends_and_files_of_other_systems_are_accepted(write, content):
    content["wnids.txt"] = b"\xef\xbb\xbf" + content["wnids.txt"].replace(b"\n", b"\r\n")
    content[ANNOTATIONS] = content[ANNOTATIONS].replace(b"\n", b"\r\n") + b"\r\n"
    for folder in ("train", "val/images", "train/n00000001/images"):
        content[f"{folder}/.DS_Store"] = b"x"
    content["train/n00000001/images/Thumbs.db"] = b"x"
    for folder in ("train", "train/n00000001/images", "val/images"):
        content[f"{folder}/@eaDir/n00000001.JPEG"] = b"x"
    layout = _read(write(content))
    assert (len(layout.train), len(layout.validation)) == (33, 6)


@pytest.mark.parametrize(
    ("removed", "recognised"),
    [
        (None, True),
        ("wnids.txt", True),
        ("words.txt", True),
        (ANNOTATIONS, False),
        ("train/", False),
    ],
)
def test_recognition(tmp_path, content, removed, recognised):
    kept = {name: data for name, data in content.items() if not name.startswith(removed or "-")}
    root = dummy.write_folder(tmp_path / "a", kept)
    assert original_layout.is_original_layout(root) == recognised


def test_sorted_validation_images_are_class_folders(tmp_path, content):
    """Scripts sort them, and leave the list of them."""
    root = dummy.write_folder(tmp_path / "a", content)
    (root / "val" / "images").rename(root / "val" / "n00000001")
    assert not original_layout.is_original_layout(root)
    (root / "val" / "n00000001").rename(root / "val" / "lost")
    assert original_layout.is_original_layout(root)


def test_class_folders_are_not_the_original_layout(tmp_path):
    for name in ("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg"):
        dummy.write_folder(tmp_path, {name: b"x"})
    assert not original_layout.is_original_layout(tmp_path)
    assert not original_layout.is_original_layout(tmp_path / "nowhere")


# Wrong lists and images: the change, and the parts of the message.

_WRONG = {
    "no wnids": (lambda c: c.pop("wnids.txt"), ["wnids.txt"]),
    "empty wnids": (lambda c: c.update({"wnids.txt": b"\n"}), ["wnids.txt", "empty"]),
    "an id twice": (
        lambda c: c.update({"wnids.txt": c["wnids.txt"] + b"n00000002\n"}),
        ["wnids.txt", "'n00000002'", "twice"],
    ),
    "an id that is a path": (
        lambda c: c.update({"wnids.txt": b"../../n00000002\n"}),
        ["wnids.txt", "'../../n00000002'"],
    ),
    "no text": (lambda c: c.update({"wnids.txt": b"\xff\xfe\x00"}), ["wnids.txt", "not text"]),
    "no class folder": (
        lambda c: [c.pop(name) for name in list(c) if name.startswith("train/n00000002")],
        ["train", "'n00000002'", "lacks"],
    ),
    "no images of a class": (
        lambda c: [c.pop(name) for name in list(c) if name.startswith("train/n00000002/images")],
        ["train/n00000002/images", "no images"],
    ),
    "a class too many": (
        lambda c: c.update({"train/n00000009/images/a.JPEG": b"x"}),
        ["train", "'n00000009'", "does not list"],
    ),
    "a file that is not an image": (
        lambda c: c.update({"train/n00000002/images/notes.txt": b"x"}),
        ["train/n00000002/images", "'notes.txt'"],
    ),
    "a validation image gone": (
        lambda c: c.pop("val/images/val_3.JPEG"),
        ["val/images", "'val_3.JPEG'", "lacks"],
    ),
    "a validation image too many": (
        lambda c: c.update({"val/images/val_99.JPEG": b"x"}),
        ["val/images", "'val_99.JPEG'", "does not list"],
    ),
    "an unknown class": (
        lambda c: c.update({ANNOTATIONS: c[ANNOTATIONS].replace(b"n00000001", b"n00000009", 1)}),
        [ANNOTATIONS, "line 2", "'n00000009'"],
    ),
    "an incomplete line": (
        lambda c: c.update({ANNOTATIONS: c[ANNOTATIONS][:-4]}),
        [ANNOTATIONS, "line 6"],
    ),
    "spaces for tabs": (
        lambda c: c.update({ANNOTATIONS: c[ANNOTATIONS].replace(b"\t", b" ")}),
        [ANNOTATIONS, "line 1"],
    ),
    "an image listed twice": (
        lambda c: c.update({ANNOTATIONS: c[ANNOTATIONS] + c[ANNOTATIONS].split(b"\n")[0]}),
        [ANNOTATIONS, "line 7", "'val_0.JPEG'", "second time"],
    ),
    "an image that is a path": (
        lambda c: c.update({ANNOTATIONS: c[ANNOTATIONS].replace(b"val_0.JPEG", b"../val_0.JPEG")}),
        [ANNOTATIONS, "line 1"],
    ),
}


@pytest.mark.parametrize("case", _WRONG)
def test_the_error_names_what_is_wrong(write, content, case):
    change, parts = _WRONG[case]
    change(content)
    message = _read_error(write(content))
    for part in parts:
        assert part in message


# Archives that are refused. The message names the member or what is missing.


def _member(name: str, mode: int = stat.S_IFREG | 0o644, **attributes) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info


_INSIDE = f"{dummy.TOP}/train/n00000001/images/"
_MALICIOUS = {
    "/etc/cron.d/job": (_member("/etc/cron.d/job"), "absolute path"),
    "C:/job": (_member("C:/job"), "absolute path"),
    "C:\\job": (_member("C:\\job"), "absolute path"),
    "\\\\host\\share": (_member("\\\\host\\share"), "absolute path"),
    "../up": (_member("../up"), "'..' in its path"),
    "up within": (_member(f"{dummy.TOP}/../../up"), "'..' in its path"),
    "up at the end": (_member(f"{_INSIDE}.."), "'..' in its path"),
    "up with backslashes": (_member(f"{dummy.TOP}\\..\\up"), "'..' in its path"),
    "backslashes": (_member(f"{dummy.TOP}\\train\\x.JPEG"), "not plain names"),
    "empty name": (_member(f"{dummy.TOP}//x.JPEG"), "not plain names"),
    "dot": (_member(f"{dummy.TOP}/./wnids.txt"), "not plain names"),
    "link": (_member(f"{_INSIDE}link.JPEG", stat.S_IFLNK | 0o777), "is a link"),
    "device": (_member(f"{_INSIDE}null", stat.S_IFCHR | 0o666), "neither a file nor a folder"),
    "pipe": (_member(f"{_INSIDE}pipe", stat.S_IFIFO | 0o666), "neither a file nor a folder"),
    "other case": (_member(f"{dummy.TOP}/WNIDS.txt"), "is there twice"),
    "folder of one name": (_member(f"{dummy.TOP}/wnids.txt/"), "is there twice"),
    "outside": (_member("elsewhere/x.JPEG"), "outside of tiny-imagenet-100-A/"),
    "outside, no folder": (_member("README"), "outside of tiny-imagenet-100-A/"),
    "outside, like it": (_member(f"{dummy.TOP}-B/x"), "outside of tiny-imagenet-100-A/"),
}


@pytest.mark.parametrize("case", _MALICIOUS)
def test_a_malicious_member_is_refused_by_name(tmp_path, content, case):
    member, problem = _MALICIOUS[case]
    name = member.filename
    file = dummy.write_zip(tmp_path / "a.zip", content, [(member, b"x")])
    message = _read_error(file)
    assert repr(name) in message
    assert problem in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]


def test_a_repeated_name_is_refused(tmp_path, content):
    file = tmp_path / "a.zip"
    with pytest.warns(UserWarning, match="Duplicate name"):
        dummy.write_zip(file, content, [(f"{dummy.TOP}/wnids.txt", b"n00000009\n")])
    message = _read_error(file)
    assert "tiny-imagenet-100-A/wnids.txt' is there twice" in message


def _patch_table(file: pathlib.Path, name: str, offset: int, value: bytes) -> None:
    """Overwrites a field of a member's entry in the central directory."""
    data = bytearray(file.read_bytes())
    entry = data.rindex(name.encode()) - 46
    assert data[entry : entry + 4] == b"PK\x01\x02"
    data[entry + offset : entry + offset + len(value)] = value
    file.write_bytes(data)


def test_a_name_with_a_null_byte_is_refused(tmp_path, content):
    file = dummy.write_zip(tmp_path / "a.zip", content)
    name = f"{dummy.TOP}/words.txt"
    _patch_table(file, name, 46 + name.index(".txt"), b"\0")
    assert "words\\x00txt" in _read_error(file)


def test_an_encrypted_member_is_refused(tmp_path, content):
    file = dummy.write_zip(tmp_path / "a.zip", content)
    _patch_table(file, f"{dummy.TOP}/words.txt", 8, b"\x01\x00")
    assert "words.txt' is encrypted" in _read_error(file)


def test_a_member_that_declares_too_large_a_size_is_refused(tmp_path, content):
    file = dummy.write_zip(tmp_path / "a.zip", content)
    _patch_table(file, f"{dummy.TOP}/words.txt", 24, (1 << 30).to_bytes(4, "little"))
    message = _read_error(file)
    assert "words.txt' declares that it unpacks" in message and "1,073,741,824" in message


def test_a_member_with_an_absurd_compression_ratio_is_refused(tmp_path, content):
    content["train/n00000001/images/zeros.JPEG"] = bytes(4 << 20)
    message = _read_error(dummy.write_zip(tmp_path / "a.zip", content))
    assert "zeros.JPEG' declares that it unpacks" in message


def test_members_that_declare_too_large_a_total_are_refused(tmp_path, content, monkeypatch):
    monkeypatch.setattr(sources, "_MAX_TOTAL_BYTES", 1000)
    message = _read_error(dummy.write_zip(tmp_path / "a.zip", content))
    assert "members declare" in message and "1,000" in message


@pytest.mark.parametrize(
    ("removed", "named"),
    [
        ("wnids.txt", "wnids.txt"),
        (ANNOTATIONS, ANNOTATIONS),
        ("train/", "train/"),
        ("val/images/", "val/images/"),
    ],
)
def test_an_incomplete_archive_is_refused(tmp_path, content, removed, named):
    kept = {name: data for name, data in content.items() if not name.startswith(removed)}
    message = _read_error(dummy.write_zip(tmp_path / "a.zip", kept))
    assert f"{named} is missing" in message


def test_an_archive_of_something_else_is_refused(tmp_path):
    file = dummy.write_zip(tmp_path / "a.zip", {"setup.py": b"x"}, top="project")
    assert "not the published archive" in _read_error(file)


def test_a_deeper_top_folder_is_refused(tmp_path, content):
    file = dummy.write_zip(tmp_path / "a.zip", content, top=f"backup/{dummy.TOP}")
    assert f"{ANNOTATIONS} is missing" in _read_error(file)


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_truncated_archive_is_refused(tmp_path, content, kept):
    file = dummy.write_zip(tmp_path / "a.zip", content)
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    assert f"{file}: not a zip archive" in _read_error(file)


def test_a_file_that_is_not_an_archive_is_refused(tmp_path):
    file = tmp_path / "a.zip"
    file.write_text("<html>404</html>")
    assert "not a zip archive" in _read_error(file)


def test_reading_a_damaged_member_names_it(tmp_path, content):
    file = dummy.write_zip(tmp_path / "a.zip", content)
    name = f"{_INSIDE}n00000001_4.JPEG"
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo(name).header_offset + 30 + len(name)
    data = bytearray(file.read_bytes())
    data[start + 20 : start + 30] = bytes(10)
    file.write_bytes(data)
    with original_layout.open_source(file) as archive:
        layout = original_layout.read_source(archive)
        with pytest.raises(errors.RunError, match="n00000001_4.JPEG"):
            for path, _ in layout.train:
                archive.read_bytes(path)


def test_a_missing_archive_is_an_error(tmp_path):
    assert "a.zip: no such folder or archive" in _read_error(tmp_path / "a.zip")
