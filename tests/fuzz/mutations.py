"""Random damage of bytes."""

import numpy as np

_BOUNDARY_VALUES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)


def mutate(content: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """Returns a copy of `content` with one to four random damages.

    Args:
        content: what to damage.
        others: files of the same kind, of which pieces are inserted.
        rng: source of randomness.
    """
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, len(data) + 1))
        # Headers are short but matter most: half of the damage is in the first 200 bytes.
        if rng.random() < 0.5:
            at = min(at, int(rng.integers(0, 200)))
        length = int(rng.integers(1, 64)) if rng.random() < 0.8 else int(rng.integers(1, 5000))
        match int(rng.integers(0, 8)):
            case 0:
                data[at : at + 1] = bytes([int(rng.integers(256))])
            case 1:
                data[at : at + 1] = bytes(
                    [_BOUNDARY_VALUES[int(rng.integers(len(_BOUNDARY_VALUES)))]]
                )
            case 2:
                kind = _BOUNDARY_VALUES[int(rng.integers(len(_BOUNDARY_VALUES)))]
                data[at : at + 4] = bytes([kind]) * 4  # a length or an offset
            case 3:
                del data[at:]
            case 4:
                del data[at : at + length]
            case 5:
                data[at:at] = rng.integers(0, 256, length, np.uint8).tobytes()
            case 6:
                data[at:at] = data[at : at + length]
            case 7:
                other = others[int(rng.integers(len(others)))]
                start = int(rng.integers(0, len(other) + 1))
                data[at : at + length] = other[start : start + length]
    return bytes(data)
