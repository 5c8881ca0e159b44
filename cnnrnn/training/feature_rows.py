"""Rows of the feature cache: one for each image, or one for each augmented view."""

import dataclasses
import hashlib

import numpy as np
import tensorflow as tf

from cnnrnn.datasets import input_pipeline, splits
from cnnrnn.datasets import training_samples as training_samples_lib
from cnnrnn.preprocessing import augmentation as augmentation_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.system import workers as workers_lib

CHUNK_SIZE = 512  # rows


@dataclasses.dataclass(frozen=True)
class Rows:
    """What the rows of a split's features are: its images, or the views of each.

    Attributes:
        split: the images.
        name: of the split.
        samples: with several views of each image; None: the images as they are.
    """

    split: splits.Split
    name: str
    samples: training_samples_lib.TrainingSamples | None

    def __len__(self) -> int:
        return len(self.split) * self.views

    def __str__(self) -> str:
        """For messages."""
        views = f" in {self.views} views each" if self.samples else ""
        return f"{len(self.split):,} images of {self.name}{views}"

    @property
    def views(self) -> int:
        return self.samples.view_count if self.samples else 1

    @property
    def images_sha256(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.split.digests).tobytes()).hexdigest()

    @property
    def augmentation(self) -> dict[str, int | str]:
        """What the key has in addition if there are several views."""
        if self.samples is None:
            return {}
        return {
            "augmentation": self.samples.augmentation.policy,
            "augmentation_version": augmentation_lib.VERSION,
            "seed": self.samples.seed,
            "views": self.views,
        }

    @property
    def chunks(self) -> int:
        return -(-len(self) // CHUNK_SIZE)

    def chunk_length(self, number: int) -> int:
        return min(CHUNK_SIZE, len(self) - number * CHUNK_SIZE)

    def images(
        self,
        numbers: np.ndarray,
        batch_size: int,
        preprocessing: views_lib.Preprocessing,
        share: workers_lib.Share,
    ) -> tf.data.Dataset:
        """A worker's share of batches with "image" for rows, in order; the last one is padded."""
        if self.samples is not None:
            return input_pipeline.views(self.split, self.samples, numbers, batch_size, share)
        return input_pipeline.evaluation(
            self.split.take(numbers),
            batch_size=batch_size,
            preprocessing=preprocessing,
            share=share,
        )
