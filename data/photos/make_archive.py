"""Makes photos.zip from the stamps of Tux Paint, as the Debian package tuxpaint-stamps has them.

    python data/photos/make_archive.py /usr/share/tuxpaint/stamps

Photographs only: no drawings, no mirrored copies, no parts of things.
"""

import io
import pathlib
import sys
import zipfile

import PIL.Image

# Class: the folders whose images, of all levels, belong to it.
CLASSES = {
    "bird": ("animals/birds",),
    "flower": ("plants/flowers",),
    "fruit": ("food/fruit",),
    "household": ("household", "food/dishes"),
    "mammal": ("animals/mammals",),
    "vegetable": ("food/vegetables",),
    "vehicle": ("vehicles", "military/vehicles"),
}
LEFT_OUT = {
    *("7spoke256", "sedan_police", "wheel_tractor"),  # parts of vehicles
    *("echidna", "hedgehog", "highlighter", "key", "wrench_adjustable"),  # drawings
    *("edward_bear", "rubberduck"),  # toys
    "Lightbulb",
}
SIDE = 224  # at most
QUALITY = 88
_DATE = (2022, 6, 4, 0, 0, 0)  # of the stamps; the same archive each time


def photos(stamps: pathlib.Path) -> dict[str, pathlib.Path]:
    """The images by their names in the archive, CLASS/NAME.jpg."""
    found = {}
    for name, folders in CLASSES.items():
        for folder in folders:
            for path in sorted((stamps / folder).rglob("*.png")):
                is_drawing = "cartoon" in path.parts
                is_copy = path.stem.endswith("_mirror")
                if not (is_drawing or is_copy or path.stem in LEFT_OUT):
                    found[f"{name}/{path.stem.lower()}.jpg"] = path
    return found


def on_white(path: pathlib.Path) -> bytes:
    """A JPEG of an image with transparent parts, on white."""
    image = PIL.Image.open(path).convert("RGBA")
    image.thumbnail((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)
    background = PIL.Image.new("RGB", image.size, "white")
    background.paste(image, mask=image)
    buffer = io.BytesIO()
    background.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def main(stamps: pathlib.Path) -> None:
    with zipfile.ZipFile(pathlib.Path(__file__).with_name("photos.zip"), "w") as archive:
        for name, path in sorted(photos(stamps).items()):
            archive.writestr(zipfile.ZipInfo(name, _DATE), on_white(path))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
