"""The identity of a phase: the settings that must be unchanged for it to resume."""

from typing import Any

from cnnrnn import config as config_lib
from cnnrnn import phases, shapes
from cnnrnn.settings import image_sizes

# Settings that determine what a phase computes: of both phases, of one, pairs of both, and those
# that matter only if a rate or an image size changes during the phase.
_SHARED = (
    "seed",
    "init_from",
    "precision",
    "deterministic",
    "lstm_kernel",
    "eval_image_size",
    "sampling",
    "class_weights",
    "augmentation",
    "mixup",
    "cutmix",
    "label_smoothing",
    "dropout",
    "weight_decay",
    "momentum",
    "clip_norm",
    "ema",
    "fusion",
    "rnn_input",
    "rnn_layer_norm",
)
_PHASE1 = ("xception_weights", "rnn_weights", "cached_views")
_PHASE2 = ("phase2_batchnorm", "batchnorm_momentum", "layer_decay", "unfreeze_from")
_PAIRS = (
    "batch_size",
    "learning_rate",
    "rnn_rate_factor",
    "samples_per_epoch",
    "optimizer",
    "schedule",
    "warmup_epochs",
    "accumulation_steps",
)
# Settings that earlier versions did not have, with the value that those trained with: the default.
ADDED = {
    name: value
    for name, value in config_lib.Config().to_json().items()
    if name
    not in {
        *("dataset", "train_per_class", "validation_per_class", "validation_fraction"),
        *("split_seed", "resize_method", "seed", "init_from", "precision", "xception_weights"),
        *("phase2_batchnorm", "batch_size", "learning_rate", "samples_per_epoch", "epochs"),
    }
}


def of(phase: phases.Phase, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that determine what a phase computes; equal ones are written in one way.

    Args:
        phase: which phase.
        settings: by flag name, from `Config.to_json` or config.json.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: recorded settings are damaged.
    """
    settings = ADDED | settings
    own = _PHASE2 if phase.train_cnn else _PHASE1
    sizes = image_sizes.parse(settings["cnn_image_size"])[phase.index]
    found = {name: settings[name] for name in (*_SHARED, *own)}
    found |= {name: settings[name][phase.index] for name in _PAIRS}
    found["cnn_image_size"] = image_sizes.text(sizes)
    found["eval_image_size"] = found["eval_image_size"] or shapes.IMAGE_SIZE
    if found.get("batchnorm_momentum", "auto") != "auto":
        found["batchnorm_momentum"] = str(float(found["batchnorm_momentum"]))
    for name, optimizer in (("weight_decay", "adamw"), ("momentum", "sgd")):
        if found["optimizer"] != optimizer:  # that of the other phase may use it
            del found[name]
    if not epochs_can_grow(phase, settings):
        found["epochs"] = settings["epochs"][phase.index]
    return found


def epochs_can_grow(phase: phases.Phase, settings: dict[str, Any]) -> bool:
    """Whether more epochs continue a phase: its rate and its image size are constant."""
    sizes = image_sizes.parse(settings["cnn_image_size"])[phase.index]
    return settings["schedule"][phase.index] == "constant" and len(sizes) == 1
