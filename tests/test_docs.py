"""The documents: what they name exists, and the commands that they mark run."""

import functools
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest
from absl import flags

from cnnrnn import config
from tests import helpers

ROOT = helpers.REPOSITORY
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "BUILD_NOTES.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
IMAGES = ROOT / "docs" / "images"
FOLDERS = ("benchmarks", "cnnrnn", "configs", "data", "docs", "tests")
# Flags of other programs that the documents name.
OTHER_FLAGS = {
    "absl": {"flagfile", "help"},
    "run.sh test": {"all"},
    "run.sh bench": {"images", "peers", "rounds"},
    "tests/fuzz": {"count"},
    "benchmarks.profile_step": {"keras"},
    "benchmarks.several_workers": {"batch", "gradients"},
    "curl": {"data-binary"},
    "docker": {"gpus", "shm-size", "ulimit"},
    "pip": {"no-deps"},
    "slurm": {"kill-on-bad-exit", "nodes", "ntasks-per-node"},
    "tensorboard": {"logdir"},
    "tensorflow_model_server": {"model_base_path", "model_name", "rest_api_port"},
    "timm": {"model-ema", "recovery-interval", "resume"},
}


def text(page: pathlib.Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: pathlib.Path) -> str:
    """A page without its blocks of code between fences."""
    return re.sub(r"^```.*?^```", "", text(page), flags=re.MULTILINE | re.DOTALL)


@functools.cache
def anchors(page: pathlib.Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.append(re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-"))
    return {
        anchor if not (before := found[:i].count(anchor)) else f"{anchor}-{before}"
        for i, anchor in enumerate(found)
    }


def links(page: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
    """(file, anchor or '') of each relative link and image of a page."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def commands() -> set[str]:
    lines = text(ROOT / "cnnrnn" / "commands" / "commands.tsv").splitlines()
    return {line.split("\t")[0] for line in lines if not line.startswith("#")}


def marked_commands() -> list[str]:
    """The lines of the blocks after `<!-- test -->`."""
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"^<!-- test -->\n```sh\n(.*?)^```", text(page), re.M | re.S)
    ]
    return [line for block in blocks for line in block.splitlines()]


def test_the_tests_that_a_document_names_exist():
    modules = {path.stem: path for path in (ROOT / "tests").rglob("test_*.py")}
    named = set()
    for page in PAGES:
        named.update(re.findall(r"`(test_\w+)\.(test_\w+)`", text(page)))
    assert len(named) > 10
    for module, function in named:
        assert f"def {function}(" in text(modules[module]), function


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for path, anchor in links(page):
        assert path.is_relative_to(ROOT), f"{path} is outside of the repository"
        assert path.exists(), path
        assert not anchor or anchor in anchors(path), f"{path.name}#{anchor}"


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        found = {path for path, _ in links(page) if path.suffix == ".md"}
        waiting.extend(found - reached)
    assert set(PAGES) - reached <= {ROOT / "BUILD_NOTES.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_exist(page):
    values = flags.FlagValues()
    config.define_flags(values)
    known = set(values).union(*OTHER_FLAGS.values())
    named = set(re.findall(r"(?<![\w-])--([A-Za-z][\w-]*)", text(page)))
    assert named <= known, named - known


def test_the_flags_of_other_programs_are_named_somewhere():
    everything = "".join(map(text, PAGES))
    for flag in set().union(*OTHER_FLAGS.values()):
        assert f"--{flag}" in everything, f"{flag} can be removed from OTHER_FLAGS"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_of_the_repository_exist(page):
    pattern = rf"(?<![\w/.$~-])(?:{'|'.join(FOLDERS)})/[\w./*-]*\w"
    for code in re.findall(r"`([^`]+)`", prose(page)):
        for path in re.findall(pattern, code):
            if "NAME" not in path:
                assert (ROOT / path).exists() or list(ROOT.glob(path)), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_run_sh_exist(page):
    named = set(re.findall(r"\./run\.sh ([a-z][\w-]*)", text(page)))
    assert named <= commands(), named - commands()


def test_images_are_small():
    assert 0 < sum(path.stat().st_size for path in IMAGES.iterdir()) < 2e6


def test_the_readme_is_an_overview():
    assert len(text(ROOT / "README.md").splitlines()) <= 150


def test_few_commands_are_marked():
    assert 0 < len(marked_commands()) <= 3  # each takes seconds


@pytest.mark.parametrize("command", marked_commands())
def test_marked_commands_run(command):
    program, word, *arguments = shlex.split(command, comments=True)
    assert program == "./run.sh"
    if word == "help":
        run = ["bash", "run.sh", word, *arguments]
    else:  # in this environment: run.sh has one of its own
        run = [sys.executable, "-m", "cnnrnn.main", word, "--flagfile=flags.txt", *arguments]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout, done.stderr
