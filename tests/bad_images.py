"""Image files: every supported format, and every kind of damage."""

import io
import os
import pathlib
import struct
import zlib

import numpy as np
import PIL.Image

SIZE = (40, 32)


def encoded(format, mode="RGB", size=SIZE, **options):
    rng = np.random.default_rng(7)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = PIL.Image.fromarray(pixels).resize(size).convert(mode)
    if mode == "RGBA":
        image.putalpha(100)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def opaque():
    """A PNG whose alpha channel is 255 throughout, as many screenshots have."""
    buffer = io.BytesIO()
    PIL.Image.new("RGBA", SIZE, (9, 9, 9, 255)).save(buffer, "PNG")
    return buffer.getvalue()


def animated(format):
    frames = [PIL.Image.new("RGB", SIZE, (i * 40, 9, 9)) for i in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:], duration=50)
    return buffer.getvalue()


def rotated(format):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return encoded(format, exif=exif)


def png_bomb(width=40_000, height=40_000):
    """A few kilobytes that decode to 4.8 GB."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    scanlines = zlib.compress(b"\0" * 100_000, 9)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", scanlines)
        + chunk(b"IEND", b"")
    )


def gif_bomb():
    """A canvas of 40 x 32 whose second frame has a header of 40,000 x 40,000."""
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, 40_000, 40_000, 0) + b"\x08\x03abc\0"
    return encoded("GIF")[:-1] + frame + b";"


def png16():
    pixels = np.random.default_rng(3).integers(0, 65536, (32, 40)).astype(np.uint16)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def masked_bmp(masks):
    """A BMP of 32 bits per pixel whose header says where its colors are."""
    width, height = SIZE
    pixels = np.random.default_rng(5).integers(0, 256, (height, width, 4), np.uint8).tobytes()
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(pixels), 0, 0, 0, 0)
    header += struct.pack("<IIII", *masks)
    header += bytes(108 - len(header))
    return b"BM" + struct.pack("<IHHI", 122 + len(pixels), 0, 0, 122) + header + pixels


def many_scans(count):
    """A progressive JPEG whose last scan is repeated: each takes time, and few bytes."""
    whole = encoded("JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * count + whole[-2:]


def flipped(content, at):
    changed = bytearray(content)
    changed[at] ^= 0xFF
    return bytes(changed)


JPEG, PNG = encoded("JPEG"), encoded("PNG")


def transparent_gif() -> bytes:
    """White, with a left half that is transparent."""
    image = PIL.Image.new("P", (60, 40), 1)
    image.putpalette([255, 255, 255] * 2)
    image.paste(0, (0, 0, 30, 40))
    buffer = io.BytesIO()
    image.save(buffer, "GIF", transparency=0)
    return buffer.getvalue()


def os2_bmp() -> bytes:
    """A BMP whose header has the 12 bytes of OS/2; only Pillow reads it."""
    width, height = 16, 8
    header = struct.pack("<IHHHH", 12, width, height, 1, 24)
    pixels = bytes(range(48)) * height
    return b"BM" + struct.pack("<IHHI", 26 + len(pixels), 0, 0, 26) + header + pixels


# name -> (content, pattern of the reported problem; None: the image can be decoded)
FILES = {
    "good.jpg": (JPEG, None),
    "gray.jpg": (encoded("JPEG", "L"), None),
    "cmyk.jpg": (encoded("JPEG", "CMYK"), None),
    "progressive.jpg": (encoded("JPEG", progressive=True), None),
    "rotated.jpg": (rotated("JPEG"), None),
    "rotated.png": (rotated("PNG"), None),
    "palette.png": (encoded("PNG", "P"), None),
    "transparent.png": (encoded("PNG", "RGBA"), None),
    "bits16.png": (png16(), None),
    "bilevel.png": (encoded("PNG", "1"), None),
    "good.bmp": (encoded("BMP"), None),
    "usual_masks.bmp": (masked_bmp((0xFF0000, 0xFF00, 0xFF, 0xFF000000)), None),
    "good.gif": (encoded("GIF"), None),
    "transparent.gif": (transparent_gif(), None),
    "gray.bmp": (encoded("BMP", "L"), None),
    "good.webp": (encoded("WEBP"), None),
    "lossless.webp": (encoded("WEBP", lossless=True), None),
    "animated.gif": (animated("GIF"), None),
    "png called.jpg": (PNG, None),
    "jpeg_called.png": (JPEG, None),
    "one_pixel.png": (encoded("PNG", size=(1, 1)), None),
    "long.png": (encoded("PNG", size=(400, 3)), None),
    "zwei\nzeilen.png": (encoded("PNG", size=(30, 30)), None),
    "e\u0301.png": (encoded("PNG", size=(31, 30)), None),
    "empty.jpg": (b"", "is empty"),
    "text.jpg": (b"<html>404 not found</html>" * 9, "is not a"),
    "zeros.png": (bytes(2000), "is not a"),
    "header_only.jpg": (JPEG[:20], "is not a"),
    "cut_by_two_bytes.jpg": (JPEG[:-2], "cannot be decoded"),
    "cut_in_half.jpg": (JPEG[: len(JPEG) // 2], "cannot be decoded"),
    "cut_in_half.png": (PNG[: len(PNG) // 2], "cannot be decoded"),
    "bad_checksum.png": (flipped(PNG, len(PNG) // 2), "cannot be decoded"),
    "cut_in_half.gif": (encoded("GIF")[:1000], "is not a|cannot be decoded"),
    "cut_in_half.bmp": (encoded("BMP")[:2000], "cannot be decoded"),
    "cut_in_half.webp": (encoded("WEBP")[:200], "is not a|cannot be decoded"),
    "scan.tif": (encoded("TIFF"), "is TIFF, which"),
    "tiff_called.jpg": (encoded("TIFF"), "is TIFF, which"),
    "phone.avif": (encoded("AVIF"), "is AVIF, which"),
    "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500), "is HEIC, which"),
    "photo.jxl": (b"\xff\x0a" + bytes(500), "is JPEG XL, which"),
    "scan.ppm": (encoded("PPM"), "is PPM, which"),
    "animated.webp": (animated("WEBP"), "is an animated WebP"),
    "palette.bmp": (encoded("BMP", "P"), "a BMP with a palette"),
    "os2.bmp": (os2_bmp(), "a BMP with an OS/2 header"),
    "masks.bmp": (masked_bmp((0xFF000000, 0xFF0000, 0xFF00, 0xFF)), "a BMP with unusual color m"),
    "transparent.webp": (encoded("WEBP", "RGBA"), "a WebP with transparency"),
    "transparent_lossless.webp": (encoded("WEBP", "RGBA", lossless=True), "a WebP with transpar"),
    "scans.jpg": (many_scans(200), "a JPEG with too many scans"),
    "bomb.png": (png_bomb(), "million pixels"),
    "bomb.gif": (gif_bomb(), "million pixels .in 2 frames"),
    "huge_header.jpg": (JPEG.replace(b"\x00\x20\x00\x28", b"\xff\xff\xff\xff", 1), "million pix"),
}
BAD = {name for name, (_, problem) in FILES.items() if problem}

# Bad ones that TensorFlow decodes all the same: to gigabytes, for minutes, in wrong colors.
DECODABLE = {"bomb.png", "bomb.gif", "huge_header.jpg", "scans.jpg", "palette.bmp", "masks.bmp"}


def write(folder: pathlib.Path) -> None:
    """Writes all of them, a pipe, broken links, and a file whose name is not UTF-8."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (content, _) in FILES.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "circle.jpg").symlink_to(folder / "circle.jpg")
    with open(os.path.join(os.fsencode(folder), b"not_utf8_\xff.png"), "wb") as file:
        file.write(encoded("PNG", size=(33, 30)))


# name -> pattern of the reported problem, of what is not a regular file
NO_FILES = {
    "pipe.jpg": "is not a regular file",
    "dangling.jpg": "cannot be read",
    "circle.jpg": "cannot be read",
}
