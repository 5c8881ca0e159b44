"""Small tiny-imagenet folders and archives for tests.

They are generated, not kept as files in dummy_data/, because the tests need many variants, each
with another error.
"""

import io
import pathlib
import zipfile
from collections.abc import Mapping, Sequence

import PIL.Image

TOP = "tiny-imagenet-100-A"


def files(
    wnids: Sequence[str], train_per_class: int = 2, validation_per_class: int = 1
) -> dict[str, bytes]:
    """The files of a small tiny-imagenet: content by path inside its top folder.

    Args:
        wnids: class ids, in the order of wnids.txt.
        train_per_class: number of training images of each class.
        validation_per_class: number of validation images of each class. Consecutive ones are of
            different classes, so that the order of their names is not that of their labels.
    """
    content = {
        "wnids.txt": "".join(f"{wnid}\n" for wnid in wnids).encode(),
        "words.txt": "".join(f"{wnid}\tthe {wnid}, a test\n" for wnid in wnids).encode(),
        "test/images/test_0.JPEG": _jpeg("test"),
    }
    for wnid in wnids:
        boxes = ""
        for number in range(train_per_class):
            name = f"{wnid}_{number}.JPEG"
            content[f"train/{wnid}/images/{name}"] = _jpeg(name)
            boxes += f"{name}\t0\t0\t7\t7\n"
        content[f"train/{wnid}/{wnid}_boxes.txt"] = boxes.encode()
    annotations = ""
    for number in range(validation_per_class * len(wnids)):
        name = f"val_{number}.JPEG"
        content[f"val/images/{name}"] = _jpeg(name)
        annotations += f"{name}\t{wnids[number % len(wnids)]}\t0\t0\t7\t7\n"
    content["val/val_annotations.txt"] = annotations.encode()
    return content


def write_folder(root: pathlib.Path, content: Mapping[str, bytes]) -> pathlib.Path:
    """Writes files below `root` and returns it."""
    for name, data in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_zip(
    file: pathlib.Path,
    content: Mapping[str, bytes],
    extra: Sequence[tuple[zipfile.ZipInfo | str, bytes]] = (),
    top: str = TOP,
) -> pathlib.Path:
    """Writes files into an archive and returns its path.

    Args:
        file: the archive to write.
        content: the files, by path inside `top`.
        extra: members to add unchanged, for archives that are to be refused.
        top: name of the top folder.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(f"{top}/{name}", data)
        for member, data in extra:
            archive.writestr(member, data)
    return file


def _jpeg(text: str) -> bytes:
    """An 8x8 JPEG that differs for every text."""
    colour = tuple(sum(text.encode()[start::3]) % 256 for start in range(3))
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), colour).save(buffer, "JPEG", comment=text.encode())
    return buffer.getvalue()
