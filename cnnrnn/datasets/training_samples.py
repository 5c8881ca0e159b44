"""Training samples: their order, and the random changes of each."""

import dataclasses

import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn.datasets import sampling, splits
from cnnrnn.preprocessing import augmentation as augmentation_lib
from cnnrnn.preprocessing import mixing as mixing_lib
from cnnrnn.preprocessing import random_keys
from cnnrnn.preprocessing import views as views_lib


@dataclasses.dataclass(frozen=True)
class TrainingSamples:
    """The samples of a phase, each a pure function of its position and the seed.

    Attributes:
        order: which image each sample is.
        preprocessing: from a decoded image to the inputs.
        first: position of the phase's first sample in the order. A phase continues after the
            samples of the phase before, so that it does not repeat its images and draws.
        seed: of all that is drawn for a sample.
        augmentation: changes of the images.
        cached_views: how many augmented views of each image are used in turn, so that their
            features can be cached, K; 0: every sample is a new view.
        mixing: Mixup and CutMix.
        dropout: rate of the dropout of the fused features.
        dropout_width: number of fused features, F.
    """

    order: sampling.Order
    preprocessing: views_lib.Preprocessing
    first: int = 0
    seed: int = 0
    augmentation: augmentation_lib.Augmentation = augmentation_lib.Augmentation()
    cached_views: int = 0
    mixing: mixing_lib.Mixing = mixing_lib.Mixing()
    dropout: float = 0.0
    dropout_width: int = 0

    @classmethod
    def of(
        cls,
        config: config_lib.Config,
        split: splits.Split,
        *,
        train_cnn: bool,
        dropout_width: int,
        first: int = 0,
    ) -> "TrainingSamples":
        """The samples of a phase of a run, with images of full size.

        Args:
            config: settings.
            split: the training images.
            train_cnn: whether the phase trains the CNN, so that features cannot be cached.
            dropout_width: number of fused features.
            first: position of the phase's first sample.
        """
        settings, seed = config.augmentation, config.run.seed
        return cls(
            order=sampling.order(config.training.sampling, split.labels, seed),
            preprocessing=views_lib.Preprocessing(config.data.resize_method),
            first=first,
            seed=seed,
            augmentation=augmentation_lib.Augmentation(settings.augmentation),
            cached_views=0 if train_cnn else config.training.cached_views,
            mixing=mixing_lib.Mixing(settings.mixup, settings.cutmix),
            dropout=settings.dropout,
            dropout_width=dropout_width,
        )

    def of_size(self, image_size: int) -> "TrainingSamples":
        """The same samples with another size of the CNN's input."""
        preprocessing = dataclasses.replace(self.preprocessing, image_size=image_size)
        return dataclasses.replace(self, preprocessing=preprocessing)

    @property
    def view_count(self) -> int:
        """How many views of each image there are, 1 without augmentation; 0: each is new.

        The features of counted views can be cached.
        """
        if self.mixing.is_on:
            return 0
        return self.cached_views if self.augmentation.changes_anything else 1

    @property
    def has_draws(self) -> bool:
        """Whether anything but its view is drawn for a sample."""
        return self.mixing.is_on or self.dropout > 0

    def view_at(self, position: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """The number of the view that a sample is, by which its augmentation is drawn.

        Args:
            position: () int64, of the sample.
            index: () int64, of its image.

        Returns:
            () int64. Of K counted views of each image, `index * K + v`: the view v, from 0 to
            K - 1, changes each time that the image is drawn. Otherwise the position.
        """
        if not self.view_count:
            return position
        return index * self.view_count + self.order.visits_before(position) % self.view_count

    def example(
        self, image: tf.Tensor, sample: dict[str, tf.Tensor], *, cached: bool
    ) -> dict[str, tf.Tensor]:
        """What the network gets of a sample, for `input_pipeline`.

        Args:
            image: (height, width, 3) uint8.
            sample: with "view" () int64 if images are augmented, see `view_at`; with "position" ()
                int64 if anything else is to be drawn.
            cached: whether cached features replace the CNN's input.

        Returns:
            "image" (S, S, 3) float32 unless cached; "sequence" (23, 3887) float32; with
            "position", also what `Mixing.apply` needs, and "dropout" (F,) float32, 0 or
            1 / (1 - rate).
        """
        draws = self._draws(sample["position"]) if "position" in sample else {}
        return {**self._inputs(image, sample, cached), **draws}

    def _inputs(
        self, image: tf.Tensor, sample: dict[str, tf.Tensor], cached: bool
    ) -> dict[str, tf.Tensor]:
        preprocessing, augmentation = self.preprocessing, self.augmentation
        if augmentation.changes_anything:
            key = random_keys.key(self.seed, random_keys.AUGMENTATION, sample["view"])
            image = augmentation.geometry(image, key)
        if augmentation.changes_colors:
            rgb = augmentation.colors(preprocessing.rgb(image), key)
            inputs = preprocessing.inputs_of(rgb)
            return {"sequence": inputs["sequence"]} if cached else inputs
        if cached:
            return {"sequence": preprocessing.sequence(image)}
        return preprocessing.inputs(image)

    def _draws(self, position: tf.Tensor) -> dict[str, tf.Tensor]:
        draws = {}
        if self.mixing.is_on:
            key = random_keys.key(self.seed, random_keys.MIXING, position)
            draws |= self.mixing.draw(key)
        if self.dropout:
            # Keras's Dropout would draw the same mask in all replicas, and from a state.
            key = random_keys.key(self.seed, random_keys.DROPOUT, position)
            uniform = tf.random.stateless_uniform((self.dropout_width,), key)
            draws["dropout"] = tf.cast(uniform >= self.dropout, tf.float32) / (1.0 - self.dropout)
        return draws
