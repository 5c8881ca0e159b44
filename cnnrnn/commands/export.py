"""`export`: a trained run as files that work without this package.

EXPORT/
  saved_model/           takes an image's file, names classes; TensorFlow, TensorFlow Serving
  model.keras            plain Keras
  model.tflite           LiteRT, float32
  model_quantized.tflite LiteRT, weights of 8 bits
  classes.txt            the class names, in the order of the outputs
  README.md              what it is: data, figures, limits, how to use each file
  seal.json              sizes and hashes, what made it
"""

from collections.abc import Sequence

from cnnrnn import config as config_lib
from cnnrnn import errors
from cnnrnn.export import bundle
from cnnrnn.runs import best_weights, run_folder
from cnnrnn.runs import classifier as classifier_lib
from cnnrnn.system import checksummed


def run(arguments: Sequence[str], config: config_lib.Config) -> None:
    """Exports the best weights of a run into its folder, in the place of an earlier export.

    Raises:
        UsageError: there is no such run, another process works on it, or in the export's place is
            something else.
        RunError: it cannot be written.
    """
    folder = run_folder.RunFolder(config.model_dir)
    target = folder.root / "export"
    if target.exists() and not (target / checksummed.CHECKSUMS).exists():
        raise errors.UsageError(f"{target} is there and is no export: move it away.")
    best_weights.latest(folder.best)
    with folder.opened():
        print("export: loading the network")
        classifier = classifier_lib.load(folder.root, precision="float32")
        notes = bundle.describe(folder, classifier, config)
        print("export: writing; LiteRT's files take a minute each", flush=True)
        try:
            with checksummed.writing(target, notes) as temporary:
                bundle.write(classifier, temporary, config, notes)
        except OSError as error:
            reason = error.strerror or error
            raise errors.RunError(f"cannot export to {target}: {reason}.") from error
    for path in sorted(target.rglob("*")):
        if path.is_file():
            print(f"  {path.stat().st_size / 1e6:>8.1f} MB  {path}")
