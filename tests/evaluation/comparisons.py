"""Comparisons of networks for tests."""

import numpy as np

from cnnrnn.evaluation import network_comparison


def training(top1, curve=((4, 0.5), (8, 0.75))):
    top1 = np.asarray(top1)
    return network_comparison.Training(
        top1=top1, top5=np.ones_like(top1), parameters=1000, images_per_second=9.5,
        curve=list(curve),
    )  # fmt: skip


def comparison(whole, cnn, gain=None, images=400):
    """The seeds of each network have these accuracies; images are right in order."""
    hits = {
        "product": whole, "cnn": cnn, "gain": gain or cnn, "rnn": [0.25] * len(cnn)
    }  # fmt: skip
    return network_comparison.Comparison(
        "cats, 400 validation images",
        "phase1",
        {
            fusion: [training(np.arange(images) < share * images) for share in shares]
            for fusion, shares in hits.items()
        },
    )
