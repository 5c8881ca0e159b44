"""Console output: plain lines, warnings, messages of other packages, capture."""

import io
import logging as python_logging
import subprocess
import sys

import pytest
from absl import logging

from cnnrnn.system import console
from tests import helpers


@pytest.fixture
def of_this_package(monkeypatch):
    """Messages of this test module are shown like those of the package."""
    monkeypatch.setattr(console, "_PACKAGE", __file__)


def test_messages_are_plain_lines_and_warnings_have_a_prefix(of_this_package, capsys):
    logging.info("an %s message", "ordinary")
    logging.warning("an alarming one")
    assert capsys.readouterr().out == "an ordinary message\nwarning: an alarming one\n"


def test_of_other_packages_only_warnings_are_printed_on_standard_error(capsys):
    with console.captured() as messages:
        logging.warning("captured by nobody")
    logging.info("a detail")
    logging.warning("a warning")
    captured = capsys.readouterr()
    assert (captured.out, captured.err, messages) == ("", "warning: a warning\n", [])


def test_debug_messages_are_left_out(of_this_package, capsys):
    logging.debug("a detail")
    assert capsys.readouterr().out == ""


def test_installing_twice_prints_once(of_this_package, capsys):
    console.install()
    console.install()
    logging.info("once")
    assert capsys.readouterr().out == "once\n"


def test_messages_can_leave_standard_output_to_results(of_this_package, capsys):
    with console.on_stderr():
        logging.warning("while predicting")
    logging.info("afterwards")
    captured = capsys.readouterr()
    assert (captured.err, captured.out) == ("warning: while predicting\n", "afterwards\n")


@pytest.mark.parametrize(
    "encoding, shown",
    [("latin-1", b"\\u732b \xe9t\xe9 \\udcff\n"), ("utf-8", "猫 été \\udcff\n".encode())],
)
def test_names_that_a_terminal_cannot_show_are_escaped(monkeypatch, encoding, shown):
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding=encoding))
    monkeypatch.setattr(console, "_is_ours", lambda _: True)
    console.install()
    # Not through the logger: pytest-xdist cannot send a report that holds such a message.
    console._lines.emit(
        python_logging.makeLogRecord({"msg": "猫 été \udcff", "levelno": python_logging.INFO})
    )
    assert output.getvalue() == shown
    print("猫 été \udcff", flush=True)
    assert output.getvalue() == 2 * shown


@pytest.mark.parametrize(
    "closed, out, err", [("<&-", 1, 1), (">&-", 0, 1), ("2>&-", 1, 0), ("<&- >&- 2>&-", 0, 0)]
)
def test_closed_streams_read_and_write_nothing(tmp_path, closed, out, err):
    program = f"""
import os, sys
from cnnrnn.system import console
console.open_closed_streams()
with open({str(tmp_path / "file")!r}, "w") as file:
    sys.stdin.read()
    for stream in (sys.stdout, sys.stderr):
        print("shown", file=stream, flush=True)
    os.write(2, b"by a library")
    sys.exit(10 * (file.fileno() > 2))
"""
    command = ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, program]
    ended = subprocess.run(
        command, cwd=helpers.REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert (ended.returncode, (tmp_path / "file").read_text()) == (10, "")
    assert ended.stdout == out * "shown\n"
    assert ended.stderr == err * "shown\nby a library"


def test_captured_messages_are_not_printed(of_this_package, capsys):
    with console.captured() as messages:
        logging.info("first")
        with console.captured() as inner:
            logging.info("second")
    logging.info("printed")
    assert inner == ["second"] and messages[0] == "first"
    assert capsys.readouterr().out == "printed\n"


def test_capturing_without_a_console_installs_none(of_this_package, capsys):
    logger = logging.get_absl_logger()
    logger.removeHandler(console._lines)
    with console.captured() as messages:
        logging.info("kept")
    assert messages == ["kept"] and console._lines not in logger.handlers
    assert isinstance(console._lines, python_logging.Handler)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    "stream, environment, expected",
    [
        (Terminal(), {}, "\x1b[33mslow\x1b[0m"),
        (Terminal(), {"NO_COLOR": ""}, "\x1b[33mslow\x1b[0m"),
        (Terminal(), {"NO_COLOR": "1"}, "slow"),
        (Terminal(), {"TERM": "dumb"}, "slow"),
        (io.StringIO(), {}, "slow"),
    ],
)
def test_only_terminals_get_color(stream, environment, expected, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert console.styled("slow", "warning", stream) == expected
