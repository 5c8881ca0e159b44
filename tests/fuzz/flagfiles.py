"""Fuzzer of flagfiles: valid settings, or an error with a message."""

import numpy as np
from absl import flags

from cnnrnn import config, errors
from tests.fuzz import harness, mutations
from tests.helpers import REPOSITORY


def make(seed, folder):
    texts = [
        path.read_bytes() for path in (REPOSITORY / "flags.txt", *REPOSITORY.glob("configs/*.txt"))
    ]
    lines = b"\n".join(
        f"--{name}={value}".encode() for name, value in config.Config().to_json().items()
    )
    texts += [lines, b"--flagfile=FILE\n", b"--undefok=x\n--x\n", b"--no_such_flag=1\n"]
    file = folder / "flags.txt"

    def try_one(number):
        rng = np.random.default_rng([seed, number])
        text = mutations.mutate(texts[rng.integers(len(texts))], texts, rng)
        file.write_bytes(text.replace(b"FILE", str(file).encode()))
        values = flags.FlagValues()
        flags.DEFINE_string("flagfile", "", "", flag_values=values)
        flags.DEFINE_string("undefok", "", "", flag_values=values)
        config.define_flags(values)
        try:
            values(["program", f"--flagfile={file}"])
            config.from_flags(values)
        except (flags.Error, ValueError, errors.UsageError) as error:
            if not str(error):
                raise AssertionError("an error without a message") from error
            return "refused"
        return "accepted"

    return try_one


if __name__ == "__main__":
    harness.main(make)
