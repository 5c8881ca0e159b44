"""Which way up a JPEG is to be shown, as TensorFlow ops: TensorFlow's own decoding ignores it.

Cameras write the pixels as the sensor has them and say by EXIF's tag 274, 'Orientation', what is
to be done to see them upright. The layout is that of EXIF 2.3, chapter 4.6: six bytes 'Exif' and
two zeros, then a TIFF file whose first directory may have the tag.
"""

import tensorflow as tf

# The data block of a JPEG segment is at most 64 KB, and EXIF's comes first, or after JFIF's.
_HEAD_BYTES = 2 * 65536
_TIFF_BYTES = 65536
_ORIENTATION = 0x0112
_ENTRY_BYTES = 12
_UPRIGHT = 1


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Reads an image's orientation.

    Args:
        encoded: () string, any bytes at all.

    Returns:
        () int32 from 1 to 8; 1, which is upright, for whatever is no JPEG, says nothing, or is
        damaged.
    """
    head = tf.strings.substr(encoded, 0, _HEAD_BYTES)
    jpeg = tf.strings.substr(head, 0, 2) == b"\xff\xd8"
    tagged = tf.strings.regex_full_match(head, r"\C*?Exif\x00\x00\C*")  # \C is any byte
    return tf.cond(jpeg & tagged, lambda: _of_head(head), lambda: tf.constant(_UPRIGHT))


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image (height, width, 3) as its orientation, () int32, asks for."""

    def turned():
        turn = tf.where(orientation >= 5, [1, 0, 2], [0, 1, 2])
        result = tf.transpose(image, turn)
        axes = tf.stack([_is_one_of(orientation, 3, 4, 7, 8), _is_one_of(orientation, 2, 3, 6, 7)])
        return tf.raw_ops.Reverse(tensor=result, dims=tf.concat([axes, [False]], 0))

    return tf.cond(orientation == _UPRIGHT, lambda: image, turned)


def _is_one_of(value: tf.Tensor, *values: int) -> tf.Tensor:
    return tf.reduce_any(value == tf.constant(values))


def _of_head(head: tf.Tensor) -> tf.Tensor:
    tiff = tf.strings.regex_replace(head, r"^\C*?Exif\x00\x00", "", replace_global=False)
    tiff = tf.strings.substr(tiff, 0, _TIFF_BYTES)
    data = tf.cast(tf.io.decode_raw(tiff, tf.uint8), tf.int32)
    little = tf.strings.substr(tiff, 0, 4) == b"II*\x00"
    known = little | (tf.strings.substr(tiff, 0, 4) == b"MM\x00*")

    def number(at: tf.Tensor, size: int) -> tf.Tensor:
        """An unsigned number of some bytes; of what lies outside of the data, 0."""
        digits = data[at : at + size]
        digits = tf.pad(digits, [[0, size - tf.size(digits)]])
        digits = tf.where(little, tf.reverse(digits, [0]), digits)
        return tf.reduce_sum(digits * [256 ** (size - 1 - i) for i in range(size)])

    # Above 64 KB an offset lies outside in any case; as four bytes it could overflow int32.
    high, low = number(tf.where(little, 6, 4), 2), number(tf.where(little, 4, 6), 2)
    start = tf.where(high == 0, low, _TIFF_BYTES)
    entries = data[start + 2 : start + 2 + _ENTRY_BYTES * number(start, 2)]
    entries = entries[: tf.size(entries) // _ENTRY_BYTES * _ENTRY_BYTES]
    entries = tf.reshape(entries, (-1, _ENTRY_BYTES))
    low_byte = tf.where(little, 0, 1)
    tags = tf.gather(entries, low_byte, axis=1) + 256 * tf.gather(entries, 1 - low_byte, axis=1)
    values = tf.gather(entries, 8 + low_byte, axis=1)
    found = tf.boolean_mask(values, tags == _ORIENTATION)
    value = tf.concat([found, [_UPRIGHT]], 0)[0]
    return tf.where(known & (value >= 1) & (value <= 8), value, _UPRIGHT)
