"""Input pipelines, measured in turn: from encoded JPEGs to batches that a network reads."""

import pathlib
import statistics
import tempfile
import time
import zipfile
from collections.abc import Iterator

import cnnrnn  # noqa: F401  before TensorFlow: it selects TensorFlow's CPU kernels

# isort: split
import keras
import numpy as np
import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn.datasets import dataset as dataset_lib
from cnnrnn.datasets import input_pipeline, training_samples

BATCH = 32
CLASSES, PER_CLASS = 4, 500
ROUNDS = 3
IMAGES = 2048  # per round


def synthetic_images(root: pathlib.Path) -> pathlib.Path:
    """Writes class folders of smooth 64x64 JPEGs of about 2 KB, like small photographs."""
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        folder = root / f"class{label}"
        folder.mkdir(parents=True)
        for i in range(PER_CLASS):
            coarse = rng.uniform(0, 255, (8, 8, 3)).astype(np.float32)
            smooth = tf.image.resize(coarse, (64, 64), "bicubic") + rng.normal(0, 6, (64, 64, 3))
            pixels = tf.cast(tf.clip_by_value(smooth, 0, 255), tf.uint8)
            (folder / f"{i:04d}.jpg").write_bytes(tf.io.encode_jpeg(pixels, quality=90).numpy())
    return root


def unpacked(archive: pathlib.Path, root: pathlib.Path) -> pathlib.Path:
    """Writes class folders with the first images of each class of tiny-imagenet's zip."""
    with zipfile.ZipFile(archive) as file:
        by_class: dict[str, list[str]] = {}
        for name in file.namelist():
            parts = name.split("/")
            if name.endswith(".JPEG") and "train" in parts:
                by_class.setdefault(parts[parts.index("train") + 1], []).append(name)
        if not by_class:
            raise SystemExit(f"{archive} has no train/CLASS/images/*.JPEG: is it tiny-imagenet's?")
        for label, names in by_class.items():
            folder = root / label
            folder.mkdir(parents=True)
            for name in names[: max(1, CLASSES * PER_CLASS // len(by_class))]:
                (folder / pathlib.PurePosixPath(name).name).write_bytes(file.read(name))
    return root


def measure(images: pathlib.Path | None) -> dict[str, float]:
    """Runs all pipelines in turn.

    Args:
        images: class folders or tiny-imagenet's zip; None: synthetic images.

    Returns:
        images/s by the name of the pipeline: the median over the rounds.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "images"
        if images is None:
            root = synthetic_images(folder)
        else:
            root = unpacked(images, folder) if images.is_file() else images
        iterators = {
            "this program: RGB and gray view": _program(root),
            "this program, features cached: gray view alone": _program(
                root, input_pipeline.ConstantFeatures(2048)
            ),
            "keras image_dataset_from_directory: RGB": _keras_directory(root),
            "keras ImageDataGenerator: RGB": _image_data_generator(root),
        }
        rates = {name: [] for name in iterators}
        for round_number in range(ROUNDS + 1):
            for name, iterator in iterators.items():
                batches = IMAGES // BATCH // (8 if "Generator" in name else 1)  # it is slow
                start = time.perf_counter()
                for _ in range(batches):
                    next(iterator)
                if round_number:  # round 0 warms up
                    rates[name].append(batches * BATCH / (time.perf_counter() - start))
        del iterators  # before the files that they read
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        print(f"pipeline, {name}: {rate:,.0f} images/s", flush=True)
    return medians


def _program(root: pathlib.Path, features: input_pipeline.Features | None = None) -> Iterator:
    config = config_lib.Config.of(dataset=str(root))
    data = dataset_lib.load(config)
    return iter(
        input_pipeline.training(
            data.train,
            training_samples.TrainingSamples.of(
                config, data.train, train_cnn=False, dropout_width=0
            ),
            batch_size=BATCH,
            start=0,
            features=features,
        )
    )


def _keras_directory(root: pathlib.Path) -> Iterator:
    images = keras.utils.image_dataset_from_directory(
        root, image_size=(299, 299), batch_size=BATCH, verbose=False
    )
    scaled = images.map(lambda image, label: (image / 127.5 - 1, label))
    return iter(scaled.repeat().prefetch(2))


def _image_data_generator(root: pathlib.Path) -> Iterator:
    """The pipeline of the original code of 2017; Keras 3 has it as a private module."""
    from keras.src.legacy.preprocessing import image

    generator = image.ImageDataGenerator(preprocessing_function=lambda x: x / 127.5 - 1)
    return generator.flow_from_directory(
        root, target_size=(299, 299), batch_size=BATCH, class_mode="sparse"
    )
