"""The documents: what they name exists."""

import re

from tests import helpers


def test_the_tests_that_a_document_names_exist():
    modules = {path.stem: path for path in (helpers.REPOSITORY / "tests").rglob("test_*.py")}
    named = set()
    for document in (helpers.REPOSITORY / "docs").glob("*.md"):
        named.update(re.findall(r"`(test_\w+)\.(test_\w+)`", document.read_text(encoding="utf-8")))
    assert len(named) > 10
    for module, function in named:
        assert f"def {function}(" in modules[module].read_text(encoding="utf-8"), function
