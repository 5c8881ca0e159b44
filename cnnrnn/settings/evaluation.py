"""What a run is evaluated on."""

import dataclasses

from cnnrnn.settings import fields


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """What a run is evaluated on."""

    test_dataset: str = fields.setting(
        "",
        "Evaluate on this data set, in any form of --dataset, instead of the run's validation "
        "images. A .csv or .jsonl list: its 'test' lines, or its validation lines if there are "
        "none, or all. Other data sets: the split or folder test, or the validation split if there "
        "is none, or all training images. Its classes must be among those of the run. The report "
        "goes to RUN/test-NAME.",
    )
