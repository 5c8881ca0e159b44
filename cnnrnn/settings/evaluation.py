"""What a run is evaluated on."""

import dataclasses

from cnnrnn.settings import fields


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """What a run is evaluated on."""

    test_dataset: str = fields.setting(
        "",
        "Evaluate on this data set, given like --dataset, instead of the run's validation images: "
        "on its validation split, or on all its images if it has none. Its classes must be among "
        "those of the run. The report goes to RUN/test-NAME.",
    )
