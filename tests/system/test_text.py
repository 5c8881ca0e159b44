"""Text of messages."""

import sys

import pytest

from cnnrnn.system import text


@pytest.mark.parametrize(
    "name, shown",
    [("été.png", "été.png"), ("a\nb\x1b", "a\\nb\\x1b"), ("w\udcffhite", "w\\udcffhite")],
)
def test_file_names_are_printable_on_one_line(name, shown):
    assert text.printable(name) == shown


def test_halves_of_surrogate_pairs_cannot_be_encoded_and_bytes_that_are_not_utf8_can():
    texts = ("été \N{CAMERA}", "w\udcffhite", "\ud83d", "a\udd00")
    assert [text.is_encodable(t) for t in texts] == [True, True, False, False]


def test_whitespace_is_joined_to_one_line():
    assert text.one_line(" a\n\tb  c ") == "a b c"


def test_the_first_line_of_an_error_is_never_empty():
    assert text.first_line(ValueError("one\ntwo")) == "one"
    assert text.first_line(ValueError()) == "ValueError"


def test_the_first_difference_may_be_a_missing_entry():
    assert text.first_difference(["a", "b"], ["a", "c"]) == ("b", "c")
    assert text.first_difference(["a"], ["a", "b"]) == ("nothing", "b")


@pytest.mark.parametrize(
    "called, expected",
    [("/venv/bin/cnnrnn", "cnnrnn"), ("/clone/cnnrnn/main.py", "./run.sh"), ("", "./run.sh")],
)
def test_messages_name_the_program_as_the_user_calls_it(monkeypatch, called, expected):
    monkeypatch.delenv(text.CALLED_AS, raising=False)
    monkeypatch.setattr(sys, "argv", [called, "phase1"])
    assert text.program() == expected
