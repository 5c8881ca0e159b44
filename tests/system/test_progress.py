"""Progress display: durations, a log, a terminal."""

import io
import os
import termios

import pytest
from absl import logging

from cnnrnn.system import console, progress


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize(
    "seconds, text", [(0.2, "1 s"), (59, "59 s"), (185, "3 min 05 s"), (8040, "2 h 14 min")]
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text


class Clock:
    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_one_line_per_minute(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with progress.Progress("work", 300, "images", later=300) as bar:
        for done in range(1, 301):
            clock.now += 1
            bar.update(done, "loss 1.0")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[0] == (
        "work: 60/300 images  loss 1.0  1.0 images/s  4 min 00 s of 9 min 00 s left"
    )


def test_the_time_left_ends_at_the_limit_and_pauses_count_for_nothing(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with progress.Progress("work", 300, "images", later=300) as bar:
        bar.end_after(150)
        clock.now = 30.0
        with bar.paused():
            clock.now = 1000.0
        clock.now += 40.0
        bar.update(70)
        assert (bar.seconds, bar.rate) == (70, 1)
        clock.now += 100.0
        bar.update(170)
    assert [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()] == [
        "1.0 images/s  1 min 20 s of 1 min 20 s left",
        "1.0 images/s  0 s of 0 s left",
    ]


def test_work_at_another_rate_gives_the_time_left_from_then_on(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with progress.Progress("work", 300, "images", later=600) as bar:
        clock.now = 60.0
        bar.update(120)
        bar.at_another_rate(later=60)
        clock.now = 120.0
        bar.update(180)
        bar.at_another_rate(later=-60)
        clock.now = 180.0
        bar.update(210)
        assert bar.rate == pytest.approx(210 / 180)
    assert [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()] == [
        "2.0 images/s  1 min 30 s of 6 min 30 s left",
        "1.0 images/s  2 min 00 s of 3 min 00 s left",
        "0.5 images/s  1 min 00 s of 1 min 00 s left",
    ]


def test_a_terminal_gets_one_updating_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    clock, terminal = Clock(monkeypatch), Terminal()
    with progress.Progress("work", 10, "images", initial=5, stream=terminal) as bar:
        clock.now = 10.0
        bar.update(7)
        assert bar.rate == pytest.approx(0.2)  # units finished before the start do not count
        assert "15 s left" in terminal.getvalue()
    output = terminal.getvalue()
    assert "\n" not in output
    assert output.endswith("\r") and output.split("\r")[-2].strip() == ""  # erased


def test_a_long_line_is_cut_to_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal()
    with progress.Progress("a very long label of some work", 10, "images", stream=terminal):
        pass
    assert {len(line) for line in terminal.getvalue().rstrip("\n").split("\r")} == {0, 19}


def test_the_width_is_that_of_the_terminal_which_shows_the_line(monkeypatch):
    """Standard error's, for example, while standard output is a file."""
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal, shown = os.openpty()
    termios.tcsetwinsize(shown, (24, 31))
    with open(shown, "w") as stream:
        with progress.Progress("a very long label of some work", 10, "images", stream=stream):
            line = os.read(terminal, 1000)
    os.close(terminal)
    assert len(line) == 1 + 30


def test_a_terminal_without_control_characters_gets_lines_as_a_log(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    with progress.Progress("work", 10, "images", stream=terminal):
        pass
    assert terminal.getvalue() == ""


def test_a_long_label_is_shortened_so_that_the_time_left_is_shown(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    clock, terminal = Clock(monkeypatch), Terminal()
    label = f"phase1 of {'a' * 90}-seed3, epoch 1/30"
    with progress.Progress(label, 1000, "images", stream=terminal) as bar:
        clock.now = 10.0
        bar.update(500, "loss 1.0")
        line = terminal.getvalue().split("\r")[-1]
    assert len(line) == 79 and line.startswith("...aaa")
    assert line.endswith(
        "a-seed3, epoch 1/30: 500/1,000 images  loss 1.0  50.0 images/s  10 s left"
    )


def test_the_line_is_erased_for_other_output(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal()
    with progress.Progress("work", 10, "images", stream=terminal) as bar:
        bar.clear()
        assert terminal.getvalue().endswith("\r" + " " * 19 + "\r")
        length = len(terminal.getvalue())
        bar.clear()
        assert len(terminal.getvalue()) == length  # nothing to erase


def test_a_message_erases_the_line(monkeypatch, capsys):
    monkeypatch.setattr(console, "_PACKAGE", __file__)
    terminal = Terminal()
    with progress.Progress("work", 10, "images", stream=terminal):
        assert not terminal.getvalue().endswith("\r")
        logging.info("a message")
        assert terminal.getvalue().endswith("\r")
    assert capsys.readouterr().out == "a message\n"
