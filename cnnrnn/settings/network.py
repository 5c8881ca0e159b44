"""Variants of the network, for comparison with the original one."""

import dataclasses

from cnnrnn.settings import fields

FUSIONS = ("product", "sum", "concatenation", "gated", "cnn", "rnn", "gain")
WITHOUT_RNN = ("cnn", "gain")  # the RNN is no part of these networks


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """Variants of the network, for comparison with the original one."""

    fusion: str = fields.setting(
        "product",
        "How the outputs of CNN and RNN are joined before the last layer: their 'product', as in "
        "the original; their 'sum'; their 'concatenation', which equals the sum of the logits of "
        "two heads; 'gated', CNN x (1 + RNN), with which the CNN passes where the RNN is 0; or a "
        "control: 'cnn' or 'rnn' alone, or 'gain', the CNN times a trained constant per feature.",
        fields.one_of(*FUSIONS),
    )
    rnn_input: str = fields.setting(
        "raw",
        "The gray sequence of the RNN: 'raw', values from -1 to 1, or 'standardized', each "
        "timestep of each image with mean 0 and standard deviation 1.",
        fields.one_of("raw", "standardized"),
    )
    rnn_layer_norm: bool = fields.setting(
        False, "Layer normalization, with trained scale and offset, of the RNN's output."
    )
