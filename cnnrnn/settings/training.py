"""Initial weights, duration, sizes, sampling, precision."""

import dataclasses
import pathlib

from cnnrnn.settings import fields, image_sizes, paths


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """Initial weights, duration, sizes, sampling, precision."""

    xception_weights: str = fields.setting(
        "imagenet",
        "Initial weights of the CNN branch: 'imagenet', 'none' (random), or a path to .h5, "
        ".weights.h5 or .keras.",
        fields.GIVEN,
    )
    init_from: str = fields.setting(
        "",
        "A run folder: the phase starts from the best weights of the last phase that was trained "
        "there, instead of ImageNet weights (phase 1) or this run's own phase 1 (phase 2). With "
        "train, it is for phase 1 only.",
    )
    rnn_weights: str = fields.setting(
        "",
        "Phase 1: a run folder from whose best weights the RNN branch starts instead of random "
        "ones, e.g. of a run with --fusion=rnn. The classes may differ; --rnn_input and "
        "--rnn_layer_norm must be the same. It has no effect with --init_from, which loads all "
        "weights.",
    )
    epochs: tuple[int, int] = fields.setting((30, 30), "Number of epochs.", fields.POSITIVE)
    batch_size: tuple[int, int] = fields.setting(
        (32, 16), "Images per step, summed over all replicas.", fields.POSITIVE
    )
    samples_per_epoch: tuple[int, int] = fields.setting(
        (0, 0),
        "Images per epoch; the next epoch continues in the shuffled order where the last one "
        "ended. 0: the size of the training split.",
        fields.NOT_NEGATIVE,
    )
    patience: tuple[int, int] = fields.setting(
        (0, 0),
        "Stop a phase after this many epochs without a lower validation loss (phase 1) or a "
        "higher validation top-1 (phase 2), like Keras's EarlyStopping. 0: train all epochs.",
        fields.NOT_NEGATIVE,
    )
    max_minutes: tuple[float, float] = fields.setting(
        (0.0, 0.0),
        "Stop a phase once it has trained and validated for this many minutes, summed over all "
        "its starts. The weights are then validated and saved; raise the value to continue. 0: no "
        "limit.",
        fields.NOT_NEGATIVE,
    )
    cnn_image_size: str = fields.setting(
        "299",
        "Image size of the CNN branch in training: one size, or sizes with their shares of the "
        "steps in order, e.g. 160:0.7,224:0.2,299:0.1; smaller images train faster. Two of these "
        "separated by '/' are for phase 1 and phase 2. The RNN branch always reads 299x299.",
        (
            image_sizes.is_valid,
            f"a size from {image_sizes.SMALLEST} to {image_sizes.LARGEST}, or SIZE:SHARE,... with "
            "shares that add up to 1, or two of these separated by '/'",
        ),
    )
    sampling: str = fields.setting(
        "shuffle",
        "Order of the training images: 'shuffle', each once in every pass; or 'balanced', each "
        "class equally often.",
        fields.one_of("shuffle", "balanced"),
    )
    class_weights: str = fields.setting(
        "none",
        "Factor of the training loss of each class: 'none'; 'balanced', inversely proportional to "
        "the number of its images and 1 on average over the images; or a .json file with an "
        "object {class name: factor}, in which classes that are missing get 1.",
        fields.GIVEN,
    )
    precision: str = fields.setting(
        "auto",
        "Data type of the operands of matrix products and convolutions: 'float32', 'bfloat16', "
        "'float16' (with loss scaling), or 'auto': bfloat16 where the processor or all GPUs have "
        "it, float16 on GPUs of compute capability 7.x, else float32. Weights, statistics, the "
        "head and the loss are always float32.",
        fields.one_of("auto", "float32", "bfloat16", "float16"),
    )
    lstm_kernel: str = fields.setting(
        "auto",
        "Implementation of the LSTM layers: 'ours', which runs on every device, 'cudnn', or "
        "'auto': cuDNN's on GPUs, except in bfloat16, in which TensorFlow computes wrong gradients "
        "with it; else ours.",
        fields.one_of("auto", "ours", "cudnn"),
    )
    feature_cache: str = fields.setting(
        "auto",
        "Phase 1: where the frozen CNN's features are stored, so that each is computed once. "
        "'auto': $CNNRNN_CACHE/features, or ~/.cache/cnnrnn/features; 'off': nowhere; or a folder.",
        fields.GIVEN,
    )
    cached_views: int = fields.setting(
        0,
        "Phase 1 with --augmentation: how many augmented views of each training image the feature "
        "cache holds, which are used in turn. 0: none, so that every view is new and the CNN runs "
        "in every step.",
        fields.NOT_NEGATIVE,
    )

    @property
    def feature_cache_dir(self) -> pathlib.Path | None:
        """The folder of --feature_cache, None for 'off'."""
        if self.feature_cache == "off":
            return None
        if self.feature_cache == "auto":
            return paths.cache_dir() / "features"
        return paths.expanded(self.feature_cache)
