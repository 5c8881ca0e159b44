"""Which trained model is used, and what is reported for each image."""

import dataclasses

from cnnrnn.settings import fields


@dataclasses.dataclass(frozen=True)
class PredictionSettings:
    """Which trained model is used, and what is reported for each image."""

    model: str = fields.setting(
        "",
        "Run folder whose best weights are used. Empty: that of --run. predict also takes an "
        "export; serve needs an export, or a run that has one.",
    )
    trust_export: bool = fields.setting(
        False,
        "predict and serve: load an export without checking its manifest. An export runs as a "
        "program, which can read and write your files.",
    )
    top: int = fields.setting(
        0,
        "Number of classes reported for each image; of export: that the SavedModel returns. 0: 5, "
        "or as many as an export returns.",
        fields.NOT_NEGATIVE,
    )
    format: str = fields.setting(
        "text",
        "Output of predict: 'text', 'csv', or 'jsonl' (one JSON object per line).",
        fields.one_of("text", "csv", "jsonl"),
    )

    @property
    def top_of_run(self) -> int:
        """`top` for a run, which can report any number of classes."""
        return self.top or 5
