"""The verdict on a comparison of networks."""

import dataclasses

import numpy as np
import pytest

from cnnrnn.evaluation import network_comparison
from tests.evaluation import comparisons


@pytest.mark.parametrize(
    "whole, cnn, gain, claim",
    [
        ([0.9, 0.9], [0.5, 0.5], None, "The RNN helps: "),
        ([0.9, 0.9], [0.5, 0.5], [0.9, 0.89], "Better than the CNN alone, but not"),
        ([0.5, 0.5], [0.9, 0.9], None, "The RNN does harm: "),
        ([0.5, 0.5], [0.9, 0.9], [0.5, 0.49], "Worse than the CNN alone, but not"),
        ([0.75, 0.74], [0.74, 0.75], None, "No benefit of the RNN is measurable: "),
        ([0.9, 0.9], [0.9, 0.89], [0.5, 0.5], "No benefit of the RNN over the CNN alone"),
        ([0.75, 0.74], [0.74, 0.75], [0.95, 0.95], "Not measurably better than the CNN alone, and"),
        ([0.7, 0.7], [0.4, 0.4], [0.95, 0.95], "Better than the CNN alone, but worse than with a"),
        ([0.7, 0.7], [0.95, 0.95], [0.4, 0.4], "Worse than the CNN alone, but better than with a"),
        ([0.9], [0.5], None, "The networks differ, but one seed does not show"),
        ([0.75], [0.74], None, "No benefit of the RNN is measurable: "),
    ],
)
def test_the_verdict(whole, cnn, gain, claim):
    found = network_comparison.verdict(comparisons.comparison(whole, cnn, gain))
    assert found.startswith(claim) and "cats, 400 validation images" in found
    assert f"is {100 * np.mean(np.subtract(whole, cnn)):+.2f} (" in found
    assert ") against the CNN alone, and " in found


def test_in_a_sum_a_constant_is_no_gain_and_does_not_matter_for_the_verdict():
    product = comparisons.comparison([0.9, 0.9], [0.5, 0.5], [0.9, 0.89])
    trainings = {"sum": product.trainings["product"]} | {
        control: product.trainings[control] for control in product.controls
    }
    found = network_comparison.verdict(dataclasses.replace(product, trainings=trainings))
    assert found.startswith("The RNN helps: ") and "against the CNN x constant gain" in found


def test_networks_that_were_still_improving_are_named():
    found = comparisons.comparison([0.9, 0.9], [0.5, 0.5])
    assert not any("last epoch" in remark for remark in network_comparison.remarks(found))
    improving = dataclasses.replace(found.trainings["cnn"][0], best_is_last=True)
    found.trainings["cnn"][0] = improving
    assert network_comparison.verdict(found).startswith("The RNN helps within these epochs: ")
    note = network_comparison.remarks(found)[-1]
    assert note.startswith("The last epoch was the best of CNN alone with 1 of 2 seeds: with more")
    assert note.endswith("take little time (phase1 --fusion=cnn).")
    both = dataclasses.replace(found, trained_phases="phase1 and phase2")
    assert network_comparison.remarks(both)[-1].endswith("may be others.")
    found.trainings["cnn"][0] = dataclasses.replace(improving, best_is_last=False)
    found.trainings["rnn"][0] = improving
    assert network_comparison.remarks(found)[-1].endswith("may be others.")


@pytest.mark.parametrize(
    "whole, cnn, rnn, remark",
    [
        ([0.9, 0.9], [0.5, 0.5], [0.9, 0.89], "The whole network is not measurably better than"),
        ([0.8, 0.8], [0.5, 0.5], [0.95, 0.95], "The whole network is not measurably better than"),
        ([0.9, 0.9], [0.5, 0.5], [0.25, 0.25], None),
        ([0.9, 0.9], [0.9, 0.89], [0.9, 0.89], None),  # no benefit that could be misread
    ],
)
def test_an_rnn_that_is_as_good_alone_is_remarked(whole, cnn, rnn, remark):
    found = comparisons.comparison(whole, cnn)
    top1 = [np.arange(400) < share * 400 for share in rnn]
    trainings = found.trainings | {"rnn": [comparisons.training(values) for values in top1]}
    remarks = network_comparison.remarks(dataclasses.replace(found, trainings=trainings))
    assert [text[: len(remark or "")] for text in remarks] == ([remark] if remark else [])
