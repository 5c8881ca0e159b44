"""A comparison of trained networks with controls: differences and the verdict."""

import dataclasses
import functools

import numpy as np

from cnnrnn.evaluation import confidence_intervals, paired_differences
from cnnrnn.settings import network as network_settings

NAMES = {"cnn": "CNN alone", "gain": "CNN x constant gain", "rnn": "RNN alone"}
METRICS = ("top1", "top5")
_HELPS = "The RNN helps"
_WITH_GAIN = ("product", "gated")  # values of --fusion with which a constant RNN is a gain


@dataclasses.dataclass(frozen=True)
class Training:
    """One trained network.

    Attributes:
        top1: (N,) 1 where the validation image was classified correctly, else 0.
        top5: (N,) likewise.
        parameters: trained in the last phase.
        images_per_second: of the fastest epoch of the last phase; NaN if unknown.
        curve: (step, validation top-1) of the last phase.
        best_is_last: whether the last epoch was the best.
    """

    top1: np.ndarray
    top5: np.ndarray
    parameters: int
    images_per_second: float
    curve: list[tuple[int, float]]
    best_is_last: bool = False


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All trainings of a comparison.

    Attributes:
        data: name and size.
        trained_phases: in words.
        trainings: of each seed, in the same order for each --fusion; the first is the network
            that is compared with the others.
        notes: sentences that a reader of the figures should know.
    """

    data: str
    trained_phases: str
    trainings: dict[str, list[Training]]
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> str:
        """--fusion of the network that is compared with the controls."""
        return next(iter(self.trainings))

    @property
    def controls(self) -> list[str]:
        return [fusion for fusion in self.trainings if fusion != self.whole]

    @property
    def seeds(self) -> int:
        return len(self.trainings[self.whole])

    @property
    def has_curves(self) -> bool:
        """Whether a training was validated more than once."""
        return any(len(one.curve) > 1 for each in self.trainings.values() for one in each)

    def name(self, fusion: str) -> str:
        return NAMES.get(fusion, f"CNN and RNN ({fusion})")

    def hits(self, fusion: str, metric: str) -> np.ndarray:
        """(seeds, images)."""
        return np.stack([getattr(training, metric) for training in self.trainings[fusion]])

    @functools.cached_property
    def differences(self) -> dict[tuple[str, str], paired_differences.Difference]:
        """The network minus each control, by control and metric."""
        return {
            (control, metric): paired_differences.difference(
                self.hits(self.whole, metric), self.hits(control, metric), len(self.controls)
            )
            for control in self.controls
            for metric in METRICS
        }


def remarks(comparison: Comparison) -> tuple[str, ...]:
    """What limits the verdict: an RNN that is as good alone, and networks that still improved."""
    found = []
    if _claim(_signs(comparison), comparison.seeds == 1) == _HELPS and "rnn" in comparison.controls:
        against_rnn = comparison.differences["rnn", "top1"]
        if _sign(against_rnn) < 1:
            found.append(
                "The whole network is not measurably better than the RNN alone: the difference in "
                f"top-1 is {points(against_rnn.interval)}."
            )
    if improving := _still_improving(comparison):
        found.append(improving)
    return tuple(found)


def _still_improving(comparison: Comparison) -> str:
    """Names the networks of which the last epoch was the best; '' if there are none."""
    if not comparison.has_curves:
        return "Each network was validated once: with more --epochs the differences may be others."
    found, advice = [], ""
    for fusion, trainings in comparison.trainings.items():
        count = sum(training.best_is_last for training in trainings)
        if count:
            found.append(f"{comparison.name(fusion)} with {count} of {len(trainings)} seeds")
            if fusion in network_settings.WITHOUT_RNN and comparison.trained_phases == "phase1":
                advice = " Without an RNN, more epochs take little time (phase1 --fusion=cnn)."
    if not found:
        return ""
    return (
        f"The last epoch was the best of {'; '.join(found)}: with more --epochs the differences "
        f"may be others.{advice}"
    )


def verdict(comparison: Comparison) -> str:
    """One sentence: whether the network is better with its RNN than without."""
    found = {
        control: comparison.differences[control, "top1"]
        for control in network_settings.WITHOUT_RNN
        if control in comparison.controls
    }
    differences = ", and ".join(
        f"{points(each.interval)} against the {comparison.name(control)}"
        for control, each in found.items()
    )
    one_seed = comparison.seeds == 1
    claim = _claim(_signs(comparison), one_seed)
    improving = (training.best_is_last for each in found for training in comparison.trainings[each])
    if claim == _HELPS and any(improving):
        claim += " within these epochs"
    return (
        f"{claim}: on {comparison.data}, after "
        f"{comparison.trained_phases}, with {comparison.seeds} seed{'' if one_seed else 's'}, the "
        f"difference in top-1 of the whole network is {differences}, in percentage points (95% "
        f"intervals over images{'' if one_seed else ' and seeds'}, for {len(comparison.controls)} "
        "comparisons)."
    )


def _signs(comparison: Comparison) -> list[int]:
    """`_sign` of the difference from each control that the verdict depends on."""
    # Joined in other ways, a constant RNN is no gain but an offset, which the dense layer has.
    decisive = network_settings.WITHOUT_RNN if comparison.whole in _WITH_GAIN else ("cnn",)
    return [
        _sign(comparison.differences[control, "top1"])
        for control in decisive
        if control in comparison.controls
    ]


def _sign(difference: paired_differences.Difference) -> int:
    """1 if the network is better than a control, -1 if it is worse, 0 if that is not measurable."""
    return int(np.sign(difference.interval.value)) if difference.is_significant else 0


def _claim(signs: list[int], one_seed: bool) -> str:
    """What the differences from the controls without an RNN say; the CNN alone comes first."""
    if not any(signs):
        return "No benefit of the RNN is measurable"
    if one_seed:
        return "The networks differ, but one seed does not show that the RNN is the reason"
    if set(signs) == {1}:
        return _HELPS
    if set(signs) == {-1}:
        return "The RNN does harm"
    if set(signs) == {-1, 1}:
        cnn, gain = ("Better", "worse") if signs[0] > 0 else ("Worse", "better")
        return f"{cnn} than the CNN alone, but {gain} than with a constant in place of the RNN"
    if signs[0] > 0:
        return (
            "Better than the CNN alone, but not measurably better than with a constant in place of "
            "the RNN"
        )
    if signs[0] < 0:
        return (
            "Worse than the CNN alone, but not measurably worse than with a constant in place of "
            "the RNN"
        )
    if signs[-1] < 0:
        return (
            "Not measurably better than the CNN alone, and worse than with a constant in place of "
            "the RNN"
        )
    return "No benefit of the RNN over the CNN alone is measurable"


def points(interval: confidence_intervals.Interval) -> str:
    """'0.31 (-0.12 to 0.74)', in percentage points."""
    value, low, high = interval.points()
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"
