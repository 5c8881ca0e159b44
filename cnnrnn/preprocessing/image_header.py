"""The number of pixels in an image's header, as TensorFlow ops, to be checked before decoding.

A small file can decode to gigabytes, or for minutes. These are ops because an exported model
contains only ops.
Offsets are those of the formats' specifications (PNG: ISO 15948; GIF89a; BMP; WebP: RFC 9649).
"""

from collections.abc import Callable

import tensorflow as tf

_HEAD_BYTES = 66
# A progressive JPEG usually has ten scans. Each may be empty, and takes as long as a full one.
_JPEG_MAX_SCANS = 100
_BMP_PALETTE_AT, _BMP_COLOR_BYTES = 14, 4  # the palette begins after both headers
_BMP_MASKS_AT, _BMP_MASKS = 54, (0xFF0000, 0xFF00, 0xFF)  # of red, green and blue
_GIF_FRAME, _GIF_EXTENSION = 0x2C, 0x21
_GIF_MAX_STEP_BYTES = 1024  # a frame's header with 256 colors, or a sub-block of 255 bytes
# A step is a sub-block; a block takes as long as 16. This many hold 50 MB and take two seconds.
_GIF_MAX_STEPS, _GIF_BLOCK_STEPS = 200_000, 16


def pixels(encoded: tf.Tensor) -> tf.Tensor:
    """Width times height, from the header.

    Args:
        encoded: () string.

    Returns:
        () int64, for a GIF the sum of all frames; 0 for other formats than the five that are
        supported.

    Raises:
        tf.errors.InvalidArgumentError: the header of a JPEG is damaged, a JPEG has too many scans
            or a GIF too many blocks, or the image is of a kind that TensorFlow does not read: a BMP
            with a palette of colors, unusual color masks or an OS/2 header, a WebP with
            transparency.
    """
    start = tf.strings.substr(encoded, 0, _HEAD_BYTES)
    head = tf.cast(tf.io.decode_raw(start, tf.uint8), tf.int64)
    head = tf.pad(head, [[0, _HEAD_BYTES - tf.size(head)]])  # (_HEAD_BYTES,)

    def begins(text: bytes, at: int = 0) -> tf.Tensor:
        return tf.reduce_all(head[at : at + len(text)] == tf.constant(list(text), tf.int64))

    def number(at: int, size: int, big_endian: bool = False) -> tf.Tensor:
        digits = head[at : at + size]
        digits = tf.reverse(digits, [0]) if big_endian else digits
        return tf.reduce_sum(digits * tf.constant([256**i for i in range(size)], tf.int64))

    def webp() -> tf.Tensor:
        bits = number(21, 4)
        is_transparent = (begins(b"VP8X", 12) & (head[20] // 16 % 2 == 1)) | (
            begins(b"VP8L", 12) & (bits // 2**28 % 2 == 1)
        )
        opaque = tf.debugging.Assert(
            ~is_transparent, ["a WebP with transparency, which TensorFlow does not read"]
        )
        with tf.control_dependencies([opaque]):
            return tf.identity(webp_size(bits))

    def webp_size(bits: tf.Tensor) -> tf.Tensor:
        return tf.case(
            [
                (begins(b"VP8X", 12), lambda: (number(24, 3) + 1) * (number(27, 3) + 1)),
                (begins(b"VP8L", 12), lambda: (bits % 2**14 + 1) * (bits // 2**14 % 2**14 + 1)),
            ],
            default=lambda: (number(26, 2) % 2**14) * (number(28, 2) % 2**14),
        )

    return tf.case(
        [
            (begins(b"\xff\xd8"), lambda: _jpeg_pixels(encoded)),
            (begins(b"\x89PNG"), lambda: number(16, 4, True) * number(20, 4, True)),
            (begins(b"GIF8"), lambda: _gif_pixels(encoded)),
            (begins(b"RIFF") & begins(b"WEBP", 8), webp),
            (begins(b"BM"), lambda: _bmp_pixels(encoded, number)),
        ],
        default=lambda: tf.constant(0, tf.int64),
    )


def _bmp_pixels(encoded: tf.Tensor, number: Callable[..., tf.Tensor]) -> tf.Tensor:
    """Like `pixels`, for a BMP. `number` reads `size` bytes of the header at an offset."""
    # In that header, width and height have 2 bytes each.
    known = tf.debugging.Assert(
        number(14, 4) != 12, ["a BMP with an OS/2 header, which TensorFlow does not read"]
    )
    colors = _bmp_colors(encoded, number(14, 4), number(10, 4))
    is_gray = tf.reduce_all(colors == tf.range(tf.shape(colors)[0])[:, tf.newaxis])
    with tf.control_dependencies([known]):
        plain = tf.debugging.Assert(
            (number(28, 2) != 8) | is_gray,
            ["a BMP with a palette, whose colors TensorFlow does not read"],
        )
    # Where the colors are in the 32 bits of a pixel. Pillow takes 0 for the usual masks.
    masks = [number(_BMP_MASKS_AT + 4 * i, 4) for i in range(3)]
    usual = [mask == expected for mask, expected in zip(masks, _BMP_MASKS, strict=True)]
    has_masks = (number(28, 2) == 32) & (number(30, 4) == 3)
    with tf.control_dependencies([known]):
        ordered = tf.debugging.Assert(
            ~has_masks | tf.reduce_all(usual) | (tf.add_n(masks) == 0),
            ["a BMP with unusual color masks, which TensorFlow does not read"],
        )
    height = number(22, 4)  # above 2**31 it is negative: rows are stored top to bottom
    with tf.control_dependencies([plain, ordered]):
        return number(18, 4) * tf.minimum(height, 2**32 - height)


def limited(encoded: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Returns an encoded image, () string, unchanged if it is small enough to be decoded.

    Raises:
        tf.errors.InvalidArgumentError: it has more than `max_pixels` pixels, it is of another
            format (TensorFlow would decode JPEG XL, whose size is not known here), or see `pixels`.
    """
    count = pixels(encoded)
    known = tf.debugging.assert_positive(count, "an image of another format")
    small = tf.debugging.assert_less_equal(count, tf.constant(max_pixels, tf.int64))
    with tf.control_dependencies([known, small]):
        return tf.identity(encoded)


def _jpeg_pixels(encoded: tf.Tensor) -> tf.Tensor:
    """Width times height; raises InvalidArgumentError if there are too many scans."""
    data = tf.io.decode_raw(encoded, tf.uint8)
    # FF DA, the length of the header in two bytes, 6 + 2n, and n, the number of components.
    # A video that follows the image, as phones write it, has these bytes hardly ever.
    first, second, high, low, count = data[:-4], data[1:-3], data[2:-2], data[3:-1], data[4:]
    scans = tf.math.count_nonzero(
        (first == 0xFF)
        & (second == 0xDA)
        & (high == 0)
        & (low == 6 + 2 * count)
        & (count >= 1)
        & (count <= 4)
    )
    most = tf.constant(_JPEG_MAX_SCANS, tf.int64)
    few = tf.debugging.assert_less_equal(scans, most, "a JPEG with too many scans")
    with tf.control_dependencies([few]):
        return tf.reduce_prod(tf.cast(tf.io.extract_jpeg_shape(encoded)[:2], tf.int64))


def _bmp_colors(encoded: tf.Tensor, header_bytes: tf.Tensor, pixels_at: tf.Tensor) -> tf.Tensor:
    """The palette of a BMP with 8 bits per pixel, (colors, 3) int32: blue, green and red.

    Args:
        encoded: the file.
        header_bytes: size of its second header.
        pixels_at: where the palette ends.
    """
    start = tf.minimum(_BMP_PALETTE_AT + header_bytes, pixels_at)
    data = tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int32)[start:pixels_at]
    whole = tf.size(data) // _BMP_COLOR_BYTES * _BMP_COLOR_BYTES
    return tf.reshape(data[:whole], (-1, _BMP_COLOR_BYTES))[:256, :3]


def _gif_pixels(encoded: tf.Tensor) -> tf.Tensor:
    """The pixels of all frames: each may be larger than the canvas, and all are decoded.

    A GIF is the size of its canvas, then blocks. The data of a block is a list of sub-blocks of up
    to 255 bytes, each preceded by its length; a length of 0 ends the list.
    """
    # Zeros after the end, as many as the longest step below may skip, end each loop.
    data = tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int32)
    data = tf.pad(data, [[0, 2 * _GIF_MAX_STEP_BYTES]])

    def byte(at: tf.Tensor) -> tf.Tensor:
        return tf.gather(data, at)

    def size(at: tf.Tensor) -> tf.Tensor:
        """Width times height, two bytes each."""
        width, height = (byte(at + i) + 256 * byte(at + i + 1) for i in (0, 2))
        return tf.cast(width, tf.int64) * tf.cast(height, tf.int64)

    def colors(at: tf.Tensor) -> tf.Tensor:
        """The size in bytes of the color table that the flags at an offset describe."""
        flags = byte(at)
        return tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)

    def more_sub_blocks(at: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        return (byte(at) > 0) & (steps < _GIF_MAX_STEPS)

    def sub_block(at: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return at + byte(at) + 1, steps + 1

    def more_blocks(at: tf.Tensor, steps: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        is_block = (byte(at) == _GIF_FRAME) | (byte(at) == _GIF_EXTENSION)
        return is_block & (steps < _GIF_MAX_STEPS)

    def block(at: tf.Tensor, steps: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, ...]:
        is_frame = byte(at) == _GIF_FRAME
        start = tf.where(is_frame, at + 10 + colors(at + 9) + 1, at + 2)
        steps += _GIF_BLOCK_STEPS
        last, steps = tf.while_loop(more_sub_blocks, sub_block, (start, steps))
        return last + 1, steps, total + tf.where(is_frame, size(at + 5), 0)

    first = 13 + colors(tf.constant(10))
    start = (first, tf.constant(0), tf.constant(0, tf.int64))
    _, steps, total = tf.while_loop(more_blocks, block, start)
    bounded = tf.debugging.assert_less(steps, _GIF_MAX_STEPS, "a GIF with too many blocks")
    with tf.control_dependencies([bounded]):
        return tf.maximum(size(tf.constant(6)), total)
