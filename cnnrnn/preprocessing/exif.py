"""EXIF orientation of JPEGs, as TensorFlow ops. TensorFlow's decoder ignores it.

Cameras store the pixels in the sensor's orientation; EXIF tag 274, 'Orientation', describes how to
rotate or mirror them. The format is that of EXIF 2.3, chapter 4.6: 'Exif' and two zero bytes, then
a TIFF file whose first directory may have the tag.
"""

import tensorflow as tf

# The data block of a JPEG segment is at most 64 KB, and EXIF's comes first, or after JFIF's.
_HEAD_BYTES = 2 * 65536
_TIFF_BYTES = 65536
_ORIENTATION = 0x0112
_ENTRY_BYTES = 12
_UPRIGHT = 1


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of an image.

    Args:
        encoded: () string, any bytes.

    Returns:
        () int32 from 1 to 8; 1 (upright) for other formats, without the tag, and for damaged data.
    """
    head = tf.strings.substr(encoded, 0, _HEAD_BYTES)
    jpeg = tf.strings.substr(head, 0, 2) == b"\xff\xd8"
    has_exif = tf.strings.regex_full_match(head, r"\C*?Exif\x00\x00\C*")  # \C is any byte
    return tf.cond(jpeg & has_exif, lambda: _read_tag(head), lambda: tf.constant(_UPRIGHT))


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Rotates and mirrors an image to be upright.

    Args:
        image: (height, width, 3).
        orientation: () int32 from 1 to 8.

    Returns:
        (height, width, 3) or (width, height, 3).
    """

    def rotated():
        axes = tf.where(orientation >= 5, [1, 0, 2], [0, 1, 2])
        result = tf.transpose(image, axes)
        reversed_axes = tf.stack(
            [_is_one_of(orientation, 3, 4, 7, 8), _is_one_of(orientation, 2, 3, 6, 7)]
        )
        return tf.raw_ops.Reverse(tensor=result, dims=tf.concat([reversed_axes, [False]], 0))

    return tf.cond(orientation == _UPRIGHT, lambda: image, rotated)


def _is_one_of(value: tf.Tensor, *values: int) -> tf.Tensor:
    return tf.reduce_any(value == tf.constant(values))


def _read_tag(head: tf.Tensor) -> tf.Tensor:
    """The value of the tag in the first bytes of a file; 1 if it is missing or not valid."""
    tiff = tf.strings.regex_replace(head, r"^\C*?Exif\x00\x00", "", replace_global=False)
    tiff = tf.strings.substr(tiff, 0, _TIFF_BYTES)
    data = tf.cast(tf.io.decode_raw(tiff, tf.uint8), tf.int32)
    little = tf.strings.substr(tiff, 0, 4) == b"II*\x00"
    known = little | (tf.strings.substr(tiff, 0, 4) == b"MM\x00*")

    def number(at: tf.Tensor, size: int) -> tf.Tensor:
        """The unsigned number in `size` bytes; bytes after the end of the data are 0."""
        digits = data[at : at + size]
        digits = tf.pad(digits, [[0, size - tf.size(digits)]])
        digits = tf.where(little, tf.reverse(digits, [0]), digits)
        return tf.reduce_sum(digits * [256 ** (size - 1 - i) for i in range(size)])

    # An offset above 64 KB is outside of the data. All four bytes could overflow int32.
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
