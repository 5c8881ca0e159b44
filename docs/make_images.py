"""Makes the images of the documentation, in docs/images.

    PYTHONPATH=. .venv/bin/python docs/make_images.py [--run=runs/sample] [NAME ...]

Without names, all of them. `phase1` records a training of the sample in a terminal (minutes). The
images of pages need a run that was trained, evaluated and exported (`./run.sh train && ./run.sh
export --model=runs/sample`), and chromium with chromedriver.
"""

import argparse
import contextlib
import csv
import fcntl
import functools
import html
import io
import itertools
import os
import pathlib
import pty
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence

import matplotlib
import PIL.Image
from matplotlib import axes as axes_lib
from matplotlib import figure
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support import ui

from cnnrnn.settings import paths

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
IMAGES = REPOSITORY / "docs" / "images"
PHOTO = "mammal/zebra.jpg"  # in the archive of the sample
_WIDTH, _HEIGHT = 1280, 960  # of a page, in pixels
_SHOWN_SECONDS = 15.0  # a recording is played in this time and stays for some seconds
_COLUMNS = 100
_WAIT_SECONDS = 300.0

# Both themes of a page show these well: a light card with dark text.
_CARD, _INK, _DIM = "#f6f8fa", "#1f2328", "#57606a"
_CNN, _RNN, _BOTH = "#3b6fb6", "#b4690e", "#1a7f37"

# The figure of the search, from the top; a network with some of the three flags is left out.
_NETWORKS = ("gain", "product", "gated", "concatenation", "sum", "rnn")
_THREE_FLAGS = "standardized + layer_norm + low_rate"
_VARIANTS = {  # remedies: place, marker, color, label
    "": (-0.22, "o", _CNN, "without flags"),
    _THREE_FLAGS: (0.0, "s", _RNN, "with the three flags"),
    f"{_THREE_FLAGS} + pretrained": (0.22, "D", _BOTH, "with them, from an RNN trained alone"),
}


def boxes(
    size: tuple[int, int],
    parts: Sequence[tuple[float, float, float, float, str, str]],
    arrows: Sequence[tuple[float, float, float, float, str]],
    description: str,
) -> str:
    """An SVG of labelled boxes and arrows on a card.

    Args:
        size: width and height.
        parts: (x, y, width, height, color, text) of each box; lines of a text are separated by a
            line break, and the first one is bold.
        arrows: (x1, y1, x2, y2, label) of each.
        description: for screen readers.
    """
    width, height = size
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" '
        f'font-family="system-ui, Segoe UI, Helvetica, Arial, sans-serif" font-size="15">',
        f"<title>{html.escape(description)}</title>",
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0 10 5 0 10z" fill="{_DIM}"/></marker></defs>',
        f'<rect width="{width}" height="{height}" rx="10" fill="{_CARD}"/>',
    ]
    for x1, y1, x2, y2, label in arrows:
        out.append(
            f'<path d="M{x1} {y1}L{x2} {y2}" stroke="{_DIM}" stroke-width="1.6" fill="none" '
            'marker-end="url(#head)"/>'
        )
        if label:
            out.append(
                f'<text x="{(x1 + x2) / 2 + 10}" y="{(y1 + y2) / 2 + 4}" '
                f'font-size="13" fill="{_DIM}">{html.escape(label)}</text>'
            )
    for x, y, box_width, box_height, color, text in parts:
        out.append(
            f'<rect x="{x}" y="{y}" width="{box_width}" height="{box_height}" rx="7" '
            f'fill="#ffffff" stroke="{color}" stroke-width="1.8"/>'
        )
        lines = text.split("\n")
        top = y + box_height / 2 - 19 * (len(lines) - 1) / 2 + 5
        for i, line in enumerate(lines):
            weight = ' font-weight="600"' if i == 0 else ' font-size="13"'
            out.append(
                f'<text x="{x + box_width / 2}" y="{top + 19 * i}" text-anchor="middle" '
                f'fill="{_INK if i == 0 else _DIM}"{weight}>{html.escape(line)}</text>'
            )
    return "\n".join([*out, "</svg>", ""])


def network() -> None:
    """network.svg: both branches, their shapes and their product. Narrow, for phones."""
    left, right, wide, high = 20, 240, 200, 58
    rows = [96, 178, 260]
    cnn = ["color view\n299 x 299 x 3", "Xception\npretrained on ImageNet", "average\n2048 values"]
    rnn = ["gray sequence\n23 timesteps of 3887", "LSTM, LSTM\n2048 units each",
           "last timestep\n2048 values"]  # fmt: skip
    parts = [
        (130, 14, wide, high, _DIM, "image\nJPEG, PNG, ..."),
        *((left, y, wide, high, _CNN, text) for y, text in zip(rows, cnn, strict=True)),
        *((right, y, wide, high, _RNN, text) for y, text in zip(rows, rnn, strict=True)),
        (206, 344, 48, 44, _BOTH, "\u00d7"),
        (130, 414, wide, high, _BOTH, "dense layer\nclasses"),
    ]
    arrows = [
        (200, 14 + high, 150, rows[0] - 2, ""),
        (260, 14 + high, 310, rows[0] - 2, ""),
        *((x, y + high, x, below - 2, "")
          for x in (left + wide / 2, right + wide / 2) for y, below in itertools.pairwise(rows)),
        (left + wide / 2, rows[2] + high, 206, 360, ""),
        (right + wide / 2, rows[2] + high, 254, 360, ""),
        (230, 388, 230, 412, ""),
    ]  # fmt: skip
    text = boxes((460, 488), parts, arrows, "The network: Xception times LSTM, then a dense layer")
    _write(IMAGES / "network.svg", text)


def architecture() -> None:
    """architecture.svg: the way of an image through the packages."""
    stages = [
        ("file on disk", _DIM, "path"),
        ("datasets\nlists and checks images, makes the splits", _CNN, "bytes, label, index"),
        ("preprocessing\ndecodes, augments, makes both views", _CNN, "color view, gray sequence"),
        ("models\nXception, LSTM, product, dense layer", _RNN, "logits"),
        ("training\na step, an epoch, a phase", _RNN, "weights"),
        ("runs\ncheckpoints, best weights", _BOTH, "best weights"),
        ("evaluation\npredictions, scores, report.html", _BOTH, "figures"),
        ("export, serving\nfiles and a server without cnnrnn", _BOTH, ""),
    ]
    parts, arrows = [], []
    for i, (text, color, label) in enumerate(stages):
        y = 16 + 92 * i
        parts.append((40, y, 380, 56, color, text))
        if label:
            arrows.append((230, y + 56, 230, y + 90, label))
    text = boxes((460, 732), parts, arrows, "The path of an image through the packages of cnnrnn")
    _write(IMAGES / "architecture.svg", text)


def rnn() -> None:
    """rnn.svg: top-1 of each network minus that of the CNN alone, from results/rnn_search."""
    shown = {"digit_stacks": (-40, 40), "digits": (-40, 40), "tiny_imagenet_100": (-6, 6)}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "", "font.size": 10}):
        chart = figure.Figure(figsize=(9, 4.2), layout="constrained", facecolor=_CARD)
        columns = chart.subplots(1, len(shown), sharey=True)
        for axes, (data, limits) in zip(columns, shown.items(), strict=True):
            axes.axvline(0, color=_DIM, linewidth=1)
            axes.set(title=data, xlim=limits, facecolor="white")
            axes.spines[["top", "right"]].set_visible(False)
            path = REPOSITORY / "results" / "rnn_search" / f"{data}.csv"
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    _draw_difference(axes, row)
        axes.set_yticks(range(len(_NETWORKS)), _NETWORKS)
        axes.invert_yaxis()
        chart.supxlabel("top-1 minus that of the CNN alone, points", fontsize=10)
        for _, marker, color, label in _VARIANTS.values():
            axes.plot([], [], marker, color=color, label=label, markersize=5)
        chart.legend(loc="outside upper center", ncols=len(_VARIANTS), frameon=False)
        chart.savefig(IMAGES / "rnn.svg", metadata={"Date": None})
    print(IMAGES / "rnn.svg")


def _draw_difference(axes: axes_lib.Axes, row: dict[str, str]) -> None:
    """Draws the interval of a network, an arrow if it is outside the axis; only if it is shown."""
    if row["fusion"] not in _NETWORKS or row["remedies"] not in _VARIANTS:
        return
    place, marker, color, _ = _VARIANTS[row["remedies"]]
    y, left = _NETWORKS.index(row["fusion"]) + place, axes.get_xlim()[0]
    middle, low, high = (100 * float(row[f"minus_cnn{end}"]) for end in ("", "_low", "_high"))
    if middle < left:
        text = f"\u25c4 {middle:.0f}"
        axes.annotate(text, (left, y), color=color, va="center", fontsize=8)
    else:
        axes.plot([low, high], [y, y], color=color, linewidth=1.5)
        axes.plot(middle, y, marker, color=color, markersize=5)


def phase1() -> None:
    """phase1.svg: a recording of `./run.sh phase1`, played in some seconds.

    With an empty cache but for the weights, as in a first start after the downloads.
    """
    weights = paths.cache_dir() / "weights"
    with tempfile.TemporaryDirectory() as folder:
        cache = pathlib.Path(folder, "cache")
        cache.mkdir()
        if weights.exists():
            (cache / "weights").symlink_to(weights.resolve())
        lines = _recorded(
            ["./run.sh", "phase1", f"--runs_dir={folder}/runs"], CNNRNN_CACHE=str(cache)
        )
    shown = [(str(weights.resolve().parent), "~/.cache/cnnrnn"), (str(cache), "~/.cache/cnnrnn")]
    for path, short in [*shown, (f"{folder}/runs", "runs")]:
        lines = [(seconds, line.replace(path, short)) for seconds, line in lines]
    _write(IMAGES / "phase1.svg", _terminal("./run.sh phase1", lines))


def _recorded(command: list[str], **variables: str) -> list[tuple[float, str]]:
    """Runs a command in a terminal; returns the seconds and the text of each finished line."""
    primary, secondary = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color"} | variables
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 40, _COLUMNS, 0, 0))
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdin=secondary, stdout=secondary, stderr=secondary,
        env=environment,
    )  # fmt: skip
    os.close(secondary)
    began, lines, rest = time.monotonic(), [], ""
    with open(primary, "rb", buffering=0) as stream, contextlib.suppress(OSError):
        while content := stream.read(4096):
            rest += content.decode(errors="replace")
            *finished, rest = rest.split("\n")
            now = time.monotonic() - began
            # Of a line that overwrites itself, the last state.
            lines += [(now, line.rstrip("\r").rpartition("\r")[2].rstrip()) for line in finished]
    if process.wait():
        raise SystemExit(f"{' '.join(command)} failed: {lines[-1][1] if lines else ''}")
    while lines and not lines[-1][1]:
        lines.pop()
    return lines


_COLORS = {"1": "#ffffff", "31": "#ff7b72", "32": "#56d364", "33": "#e3b341"}


def _terminal(command: str, lines: list[tuple[float, str]]) -> str:
    """An SVG of a terminal in which lines appear; without animation it shows all of them."""
    lines = [(0.0, f"$ {command}"), *lines]
    scale = _SHOWN_SECONDS / max(lines[-1][0], 1e-9)
    width, height, step = 9 * _COLUMNS + 40, 21 * len(lines) + 60, 21
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" '
        'font-size="14.5">',
        f"<title>A recording of {html.escape(command)}</title>",
        "<style>@keyframes show{from{opacity:0}to{opacity:1}}"
        "text{white-space:pre;animation:show .01s both}"
        "@media (prefers-reduced-motion:reduce){text{animation:none}}</style>",
        f'<rect width="{width}" height="{height}" rx="10" fill="#161b22"/>',
        *(
            f'<circle cx="{24 + 20 * i}" cy="22" r="6" fill="{color}"/>'
            for i, color in enumerate(("#ff5f57", "#febc2e", "#28c840"))
        ),
    ]
    for i, (seconds, line) in enumerate(lines):
        spans = "".join(
            f'<tspan fill="{color}">{html.escape(text)}</tspan>'
            for color, text in _spans(line if len(line) <= _COLUMNS else f"{line[:_COLUMNS]}...")
        )
        out.append(
            f'<text x="20" y="{58 + step * i}" style="animation-delay:{seconds * scale:.2f}s">'
            f"{spans}</text>"
        )
    return "\n".join([*out, "</svg>", ""])


def _spans(line: str) -> Iterator[tuple[str, str]]:
    """(color, text) of the parts of a line with escape sequences."""
    color = "#c9d1d9"
    for part in re.split(r"(\x1b\[\d*m)", line):
        if code := re.fullmatch(r"\x1b\[(\d*)m", part):
            color = _COLORS.get(code[1], "#c9d1d9")
        elif part:
            yield color, part


@contextlib.contextmanager
def _browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("headless", "no-sandbox", "disable-gpu", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--window-size={_WIDTH},{_HEIGHT}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()


def _screenshot(browser: webdriver.Chrome, name: str) -> None:
    """Writes the page as a PNG of few colors, which is a third of the size."""
    image = PIL.Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    image = image.quantize(128, dither=PIL.Image.Dither.NONE)
    image.save(IMAGES / name, optimize=True)
    print(IMAGES / name)


def report(run: pathlib.Path) -> None:
    """report.png: the top of the report of a run."""
    with _browser() as browser:
        browser.get((run / "evaluation" / "report.html").resolve().as_uri())
        time.sleep(1)
        _screenshot(browser, "report.png")


def explain(run: pathlib.Path) -> None:
    """explain.png: the explanation of one photograph."""
    with tempfile.TemporaryDirectory() as folder:
        photo = _photo(pathlib.Path(folder))
        subprocess.run(
            ["./run.sh", "explain", str(photo), f"--model={run.resolve()}", "--top=2"],
            cwd=REPOSITORY, check=True,
        )  # fmt: skip
    newest = max((run / "explanations").glob("*.png"), key=lambda path: path.stat().st_mtime)
    image = PIL.Image.open(newest).convert("RGB")
    image.thumbnail((_WIDTH, _HEIGHT))
    image.quantize(255).save(IMAGES / "explain.png", optimize=True)
    print(IMAGES / "explain.png")


def tensorboard(run: pathlib.Path) -> None:
    """tensorboard.png: the curves of a run."""
    command = ["./run.sh", "tensorboard", f"--logdir={run.resolve() / 'events'}"]
    with _server(command) as address, _browser() as browser:
        shown = "tagFilter=%5E(loss%7Ctop1%7Ctop5%7Clearning_rate)%24&smoothing=0"
        browser.get(f"{address}/?{shown}#timeseries")
        ui.WebDriverWait(browser, _WAIT_SECONDS).until(
            lambda page: len(page.find_elements(By.CSS_SELECTOR, "card-view")) > 2
        )
        browser.find_element(By.CSS_SELECTOR, "button.settings-button").click()  # closes them
        time.sleep(8)  # charts are drawn one after another
        _screenshot(browser, "tensorboard.png")


def server(run: pathlib.Path) -> None:
    """server.png: the page of the server with a classified photograph."""
    command = ["./run.sh", "serve", f"--model={run.resolve()}"]
    with (
        tempfile.TemporaryDirectory() as folder,
        _server(command) as address,
        _browser() as browser,
    ):
        browser.get(address)
        browser.find_element(By.ID, "file").send_keys(str(_photo(pathlib.Path(folder))))
        ui.WebDriverWait(browser, _WAIT_SECONDS).until(
            lambda page: page.find_element(By.ID, "figure").is_displayed()
        )
        time.sleep(1)
        _screenshot(browser, "server.png")


def _photo(folder: pathlib.Path) -> pathlib.Path:
    with zipfile.ZipFile(REPOSITORY / "data" / "photos" / "photos.zip") as archive:
        return pathlib.Path(archive.extract(PHOTO, folder))


@contextlib.contextmanager
def _server(command: list[str]) -> Iterator[str]:
    """Runs a web server on a free port; yields its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*command, f"--port={port}"], cwd=REPOSITORY)
    try:
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{' '.join(command)} did not start")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _write(path: pathlib.Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    print(path)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=pathlib.Path, default=REPOSITORY / "runs" / "sample")
    parser.add_argument("names", nargs="*", help="of the images")
    given = parser.parse_args(arguments)
    of_run = (report, explain, tensorboard, server)
    makers: dict[str, Callable[[], None]] = {
        "network": network,
        "architecture": architecture,
        "rnn": rnn,
        "phase1": phase1,
        **{make.__name__: functools.partial(make, given.run) for make in of_run},
    }
    IMAGES.mkdir(exist_ok=True)
    for name in given.names or makers:
        makers[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
