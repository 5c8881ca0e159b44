"""Features that replace the CNN's input in the training and validation of a phase."""

import tensorflow as tf

from cnnrnn import config as config_lib
from cnnrnn import phases
from cnnrnn.datasets import input_pipeline, splits
from cnnrnn.datasets import training_samples as training_samples_lib
from cnnrnn.models import network as network_lib
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.training import feature_cache

Features = input_pipeline.Features


class PhaseFeatures:
    """Cached features of the frozen CNN: none if a phase trains it, or without --feature_cache.

    For a network without a CNN they are constants, and its images are not computed.

    Args:
        phase: which phase.
        config: for --feature_cache.
        network: its CNN computes the features.
        strategy: what to compute them on.
    """

    def __init__(
        self,
        phase: phases.Phase,
        config: config_lib.Config,
        network: network_lib.Network,
        strategy: tf.distribute.Strategy,
    ):
        self._directory = None if phase.train_cnn else config.training.feature_cache_dir
        self._network, self._strategy = network, strategy

    def of_training(
        self, split: splits.Split, samples: training_samples_lib.TrainingSamples, passes: float
    ) -> Features | None:
        """Features of the training images, where they pay off for this many more passes."""
        if not self._network.uses_cnn:
            return self._constant
        cache = self._cache(samples.preprocessing)
        return cache and cache.features(split, "train", passes, samples)

    def of_validation(
        self, split: splits.Split, preprocessing: views_lib.Preprocessing, passes: float
    ) -> Features | None:
        """Features of the validation images, likewise."""
        if not self._network.uses_cnn:
            return self._constant
        cache = self._cache(preprocessing)
        return cache and cache.features(split, "validation", passes)

    @property
    def _constant(self) -> Features:
        return input_pipeline.ConstantFeatures(self._network.cnn.output.shape[-1])

    def _cache(self, preprocessing: views_lib.Preprocessing) -> feature_cache.FeatureCache | None:
        if self._directory is None:
            return None
        return feature_cache.FeatureCache(
            self._directory, self._network, self._strategy, preprocessing
        )
