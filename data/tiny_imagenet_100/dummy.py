"""Makes small stand-ins for the tiny-imagenet archive, for tests.

What TFDS would keep as files in dummy_data/ is made on the spot, because the tests need it in many
variants, each wrong in another way.
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
    """Returns the content of a small tiny-imagenet, by the path within its top folder.

    Args:
        wnids: The class ids, in the order in which wnids.txt shall list them.
        train_per_class: Training images of each class.
        validation_per_class: Validation images of each class; their numbers go round the
            classes, so that the order of their names is not that of their labels.

    Returns:
        A dict to change before it is written with `write_folder` or `write_zip`.
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
    """Writes the files below `root` and returns it."""
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
    """Writes the files into an archive, below the folder `top`, and returns its path.

    Args:
        file: The archive to write.
        content: The files, by their path within `top`.
        extra: Members to add as they are, for archives that are to be refused.
        top: The name of the top folder.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(f"{top}/{name}", data)
        for member, data in extra:
            archive.writestr(member, data)
    return file


def _jpeg(text: str) -> bytes:
    """Returns an 8x8 JPEG whose bytes are as good as its own for every text."""
    colour = tuple(sum(text.encode()[start::3]) % 256 for start in range(3))
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), colour).save(buffer, "JPEG", comment=text.encode())
    return buffer.getvalue()
