"""The numeric modules of the evaluation and their tests need neither TensorFlow nor matplotlib."""

import subprocess
import sys

from tests import helpers

_PROGRAM = """
import sys
from cnnrnn.evaluation import html_report
from tests import conftest
from tests.evaluation import test_branch_ablation, test_class_scores, test_confidence_intervals
from tests.evaluation import test_network_comparison, test_paired_differences
print({"tensorflow", "keras", "matplotlib", "selenium"} & sys.modules.keys() or "none")
"""


def test_numeric_modules_and_their_tests_import_no_tensorflow_and_no_matplotlib():
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=helpers.REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "none"
