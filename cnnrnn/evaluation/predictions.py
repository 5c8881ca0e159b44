"""Predictions for a split: one pass that scores every example exactly once."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from cnnrnn import errors, metrics
from cnnrnn.datasets import input_pipeline, splits
from cnnrnn.preprocessing import views as views_lib
from cnnrnn.system import pipelined, progress
from cnnrnn.system import workers as workers_lib


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The network's predictions for the N examples of a split, ordered by index.

    Attributes:
        label: (N,) int64, true classes.
        top: (N, k) int32, the k most likely classes, most likely first.
        probability: (N,) float32, of the most likely class.
        loss: (N,) float32, cross-entropy in nats.
        top1: (N,) float32, 1 where the label is the most likely class, else 0.
        top5: (N,) float32, 1 where the label is among the 5 most likely classes, else 0.
        cnn: (N, 2048) float32, outputs of the CNN branch, if the step returned them.
        rnn: (N, 2048) float32, outputs of the RNN branch, likewise.
    """

    label: np.ndarray
    top: np.ndarray
    probability: np.ndarray
    loss: np.ndarray
    top1: np.ndarray
    top5: np.ndarray
    cnn: np.ndarray | None = None
    rnn: np.ndarray | None = None

    @property
    def means(self) -> metrics.Means:
        columns = (self.loss, self.top1, self.top5, np.ones_like(self.loss))
        return metrics.Means.of_sums(np.array([np.sum(c, dtype=np.float64) for c in columns]))


class Evaluator:
    """Scores a split with a compiled evaluation step, as often as it is asked to.

    The iterator over the split is kept from one pass to the next: a new one would be traced again,
    and deleting one can take long (see `input_pipeline.distribute`).

    Args:
        eval_step: from `training.steps.make_eval_step`.
        strategy: the strategy that `eval_step` was compiled for.
        batch_size: global batch size.
        preprocessing: the preprocessing that the network was trained with.
    """

    def __init__(
        self,
        eval_step: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]],
        strategy: tf.distribute.Strategy,
        batch_size: int,
        preprocessing: views_lib.Preprocessing,
    ):
        self._eval_step, self._strategy = eval_step, strategy
        self._workers = workers_lib.Workers(strategy)
        self._batch_size, self._preprocessing = batch_size, preprocessing
        self._kept: _Kept | None = None

    def predict(
        self,
        split: splits.Split,
        *,
        label: str,
        features: input_pipeline.Features | None = None,
    ) -> Predictions:
        """Scores every example of a split exactly once.

        Args:
            split: examples to score.
            label: text in front of the progress line.
            features: cached CNN features of the split; if given, the CNN is not run.

        Raises:
            RunError: an image cannot be decoded, or an example was not scored exactly once.
        """
        iterator = self._take_iterator(split, features)
        step = pipelined.Pipelined(self._eval_step)
        scored = _Scored(len(split))
        with progress.Progress(label, len(split), "images") as bar:
            for start in range(0, len(split), self._batch_size):
                end = min(start + self._batch_size, len(split))
                indices = functools.partial(np.arange, start, end)
                with input_pipeline.naming_bad_images(split, indices):
                    batch = next(iterator)
                outputs = step.call(batch)
                if outputs is not None:
                    scored.add(outputs)
                    bar.update(start)
                self._workers.check_stop()
            scored.add(step.drain())
            bar.update(len(split))
        self._kept = _Kept(split, features, iterator)
        return scored.predictions()

    def _take_iterator(
        self, split: splits.Split, features: input_pipeline.Features | None
    ) -> Iterator[dict[str, tf.Tensor]]:
        """An iterator that begins a pass over a split, kept again only if that pass is complete."""
        kept, self._kept = self._kept, None
        if kept is not None and kept.split is split and kept.features is features:
            return kept.iterator
        batches = input_pipeline.evaluation(
            split,
            batch_size=self._batch_size,
            preprocessing=self._preprocessing,
            features=features,
            repeats=True,
            share=self._workers.share,
        )
        return input_pipeline.distribute(batches, self._strategy)


@dataclasses.dataclass(frozen=True)
class _Kept:
    """An iterator that stands at the beginning of a pass, and what it passes over."""

    split: splits.Split
    features: input_pipeline.Features | None
    iterator: Iterator[dict[str, tf.Tensor]]


class _Scored:
    """Collects the outputs of batches, each at the index of its example.

    The outputs of the branches take 16 KB per example, so they are kept once.

    Args:
        count: number of examples.
    """

    _NAMES = {field.name for field in dataclasses.fields(Predictions)}

    def __init__(self, count: int):
        self._times = np.zeros(count, np.int64)  # that each example was scored
        self._columns: dict[str, np.ndarray] = {}

    def add(self, outputs: dict[str, np.ndarray]) -> None:
        """Adds the outputs of a batch, without the padding of the last one, which has weight 0."""
        counted = outputs["weight"] > 0
        indices = outputs["index"][counted]
        np.add.at(self._times, indices, 1)
        for name in self._NAMES & outputs.keys():
            values = outputs[name][counted]
            if name not in self._columns:
                shape = (len(self._times), *values.shape[1:])
                self._columns[name] = np.empty(shape, values.dtype)
            self._columns[name][indices] = values

    def predictions(self) -> Predictions:
        """All of them, in the order of the examples.

        Raises:
            RunError: an example was not scored exactly once.
        """
        if np.any(self._times != 1):
            raise errors.RunError(
                f"evaluation scored {self._times.sum():,} examples "
                f"({np.count_nonzero(self._times):,} different ones) of {len(self._times):,}, but "
                "each must be scored exactly once. This is a bug in cnnrnn."
            )
        return Predictions(**self._columns)
