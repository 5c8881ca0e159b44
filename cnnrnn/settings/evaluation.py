"""What a run is evaluated on."""

import dataclasses

from cnnrnn.settings import fields


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """What a run is evaluated on."""

    test_dataset: str = fields.setting(
        "",
        "Evaluate on this data set, given like --dataset, instead of the run's validation images: "
        "of a list, on its lines with the split 'test', else those of validation, else all; "
        "otherwise on its validation split, or all images if it has none. Its classes must be "
        "among those of the run. The report goes to RUN/test-NAME.",
    )
