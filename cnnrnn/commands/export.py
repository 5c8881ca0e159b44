"""`export`: writes a trained run as files that run without this package; see `export.bundle`."""

from collections.abc import Sequence

from absl import logging

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.export import bundle
from cnnrnn.runs import best_weights, run_folder
from cnnrnn.runs import classifier as classifier_lib
from cnnrnn.system import checksummed
from cnnrnn.system import text as text_lib


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Writes the best weights of a run to the folder export/ in it; replaces an earlier export.

    Args:
        arguments: none.
        config: `model`, `top` and `max_megapixels` are used.

    Raises:
        UsageError: if the run does not exist or is in use, or if export/ is something else.
        RunError: if the files cannot be written, or the network cannot be converted.
    """
    folder = run_folder.RunFolder(config.model_dir)
    target = folder.root / "export"
    if target.exists() and not (target / checksummed.CHECKSUMS).exists():
        raise errors.UsageError(
            f"{target} exists and is not an export: move it, and run "
            f"{text_lib.program()} export again."
        )
    best_weights.latest(folder.best)
    with folder.opened():
        logging.info("export: loading the network")
        classifier = classifier_lib.load(
            folder.root, config.data.eval_image_size, precision="float32", lstm_kernel="ours"
        )
        metadata = bundle.describe(folder, classifier, config)
        logging.info("export: writing; the LiteRT files take a minute each")
        try:
            with checksummed.writing(target, metadata) as temporary:
                bundle.write(classifier, temporary, config, metadata)
        except OSError as error:
            reason = error.strerror or error
            raise errors.RunError(f"cannot export to {target}: {reason}.") from error
    for path in sorted(target.rglob("*")):
        if path.is_file():
            print(f"  {path.stat().st_size / 1e6:>8.1f} MB  {path}")
