"""What a run is evaluated on."""

import dataclasses

from cnnrnn.settings import fields


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """What a run is evaluated on."""

    test_dataset: str = fields.setting(
        "",
        "Evaluate on this data set, given like --dataset, instead of the run's validation images: "
        "if it has a validation split, on that only; otherwise on all its images, or the lines of "
        "a list with the split 'test'. Its classes must be among those of the run. The report goes "
        "to RUN/test-NAME.",
    )
