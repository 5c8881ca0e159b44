"""How many pixels an encoded picture says it has, as TensorFlow ops: asked before it is decoded.

For exported models, which have no Pillow beside them: a small file can decode to gigabytes.
Offsets are those of the formats' specifications (PNG: ISO 15948; GIF89a; BMP; WebP: RFC 9649).
"""

import tensorflow as tf

_HEAD_BYTES = 32


def pixels(encoded: tf.Tensor) -> tf.Tensor:
    """Reads a header.

    Args:
        encoded: () string.

    Returns:
        () int64, width times height; 0 for what is none of the five formats, which does not
        decode either.

    Raises:
        tf.errors.InvalidArgumentError: when run on a JPEG whose header is damaged.
    """
    start = tf.strings.substr(encoded, 0, _HEAD_BYTES)
    head = tf.cast(tf.io.decode_raw(start, tf.uint8), tf.int64)
    head = tf.pad(head, [[0, _HEAD_BYTES - tf.size(head)]])  # (32,)

    def begins(text: bytes, at: int = 0) -> tf.Tensor:
        return tf.reduce_all(head[at : at + len(text)] == tf.constant(list(text), tf.int64))

    def number(at: int, size: int, big_endian: bool = False) -> tf.Tensor:
        digits = head[at : at + size]
        digits = tf.reverse(digits, [0]) if big_endian else digits
        return tf.reduce_sum(digits * tf.constant([256**i for i in range(size)], tf.int64))

    def jpeg() -> tf.Tensor:
        return tf.reduce_prod(tf.cast(tf.io.extract_jpeg_shape(encoded)[:2], tf.int64))

    def webp() -> tf.Tensor:
        bits = number(21, 4)
        return tf.case(
            [
                (begins(b"VP8X", 12), lambda: (number(24, 3) + 1) * (number(27, 3) + 1)),
                (begins(b"VP8L", 12), lambda: (bits % 2**14 + 1) * (bits // 2**14 % 2**14 + 1)),
            ],
            default=lambda: (number(26, 2) % 2**14) * (number(28, 2) % 2**14),
        )

    def bmp() -> tf.Tensor:
        height = number(22, 4)  # above 2**31 it is negative: the rows are from top to bottom
        return number(18, 4) * tf.minimum(height, 2**32 - height)

    return tf.case(
        [
            (begins(b"\xff\xd8"), jpeg),
            (begins(b"\x89PNG"), lambda: number(16, 4, True) * number(20, 4, True)),
            (begins(b"GIF8"), lambda: number(6, 2) * number(8, 2)),
            (begins(b"RIFF") & begins(b"WEBP", 8), webp),
            (begins(b"BM"), bmp),
        ],
        default=lambda: tf.constant(0, tf.int64),
    )
