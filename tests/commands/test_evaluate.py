"""`evaluate` as a command."""

import pytest

from cnnrnn import errors
from cnnrnn.commands import evaluate
from cnnrnn.evaluation import predictions as predictions_lib


def test_a_damaged_manifest_is_reported_before_any_prediction(small_network, trained, monkeypatch):
    (trained.run_dir / "manifest.json").write_text('{"phase1": ')

    def predict(self, split, **keywords):
        pytest.fail("predicted before the manifest was read")

    monkeypatch.setattr(predictions_lib.Evaluator, "predict", predict)
    with pytest.raises(errors.RunError, match=r"manifest\.json"):
        evaluate.run((), trained)
