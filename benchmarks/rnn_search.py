"""Does the RNN earn its place? Every fusion, with and without remedies for an idle RNN.

    python -m benchmarks.rnn_search --dataset=digit_stacks --fold=1/5 --epochs=20

Every fusion is trained with all remedies but pretraining and without any, then the RNN alone with
all but pretraining, every fusion from that RNN, and the RNN alone with fewer remedies.

Takes the flags of phase1. It trains phase 1 of each network by the program's own commands and
scores all on the same held-out part of the training images: --fold, by default 1/10. The validation
images of the data set are not used, so that they can judge what was chosen here. The networks share
the cached features of the CNN.

Runs are in RUN.rnn_search, beside the run folder of the flags. A network that is complete is not
trained again, and one that was interrupted resumes. Weights are deleted once a network is scored,
except those of an RNN that others start from: all would take 50 GB. The figures go to
results/rnn_search, NAME.csv for each data set, and README.md with the tables of all.
"""

import dataclasses
import json
import math
import pathlib
import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from benchmarks import headline_record
from cnnrnn import config as config_lib
from cnnrnn import errors, phases
from cnnrnn.evaluation import branch_ablation, confidence_intervals
from cnnrnn.runs import event_files, fixed_settings, manifest, run_folder
from cnnrnn.settings import network as network_settings
from cnnrnn.system import atomic_files, child_process, stop_signals
from cnnrnn.system import devices as devices_lib

RESULTS = pathlib.Path(__file__).resolve().parent.parent / "results" / "rnn_search"
REMEDIES: dict[str, dict[str, Any]] = {
    "standardized": {"rnn_input": "standardized"},
    "layer_norm": {"rnn_layer_norm": True},
    # RMSprop changes every weight by about the rate, whatever the gradient. A unit of the first
    # layer adds up 3,887 inputs, so that a step at the full rate can saturate it.
    "low_rate": {"rnn_rate_factor": (0.03, 0.03)},
    "pretrained": {},  # by --rnn_weights, from the RNN alone with the other remedies
}
_CHOSEN = ("fusion", "rnn_input", "rnn_layer_norm", "rnn_rate_factor", "rnn_weights")
_REFUSED = (*_CHOSEN, "init_from", "test_dataset", "max_minutes", "patience")
_MUST_AGREE = ("dataset", "precision", "xception_weights")
_FOLD = "1/10"
_ROW = "search.json"
_HEADING = """# Does the RNN earn its place?

Made by `python -m benchmarks.rnn_search`. Phase 1 of each network, scored on training images that
were held out; 95 % intervals are in brackets. These images chose the epoch of each network, too,
and many networks are compared on few images, so the highest figure is optimistic. `cnn` and `gain`
have no RNN. A `pretrained` RNN was trained before on the same images, for as many epochs, so these
networks have had more training than the others. Minus `cnn`: the difference in top-1 from the CNN
alone, in points, paired by image (Agresti and Min 2005); each network was trained once. The
networks of a table may have been trained by different commits of the program.

RNN output: its mean absolute value, and its standard deviation across images. Where that is small
compared with the mean absolute value, the output hardly depends on the image. Lost: points of
top-1, if the RNN's outputs are permuted across images. Images/s are those of the fastest epoch,
often while other programs ran.
"""
_COLUMNS = """
| fusion | remedies | top-1 | minus `cnn` | RNN output | deviation | lost | images/s | flags |
| --- | --- | --- | --- | ---: | ---: | --- | ---: | --- |
"""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A network of the search.

    Attributes:
        fusion: of the network.
        remedies: names in `REMEDIES`.
    """

    fusion: str
    remedies: tuple[str, ...]

    @property
    def run(self) -> str:
        """The name of its run."""
        return "+".join((self.fusion, *self.remedies))

    def settings(self, root: pathlib.Path) -> dict[str, Any]:
        """Its settings by flag name; `root` is the folder of all runs."""
        changes = {"fusion": self.fusion, "runs_dir": str(root), "run": self.run}
        for remedy in self.remedies:
            changes |= REMEDIES[remedy]
        if "pretrained" in self.remedies:
            changes["rnn_weights"] = str(root / Trial("rnn", self.remedies[:-1]).run)
        return changes


def _trials() -> tuple[Trial, ...]:
    """All networks: first those that compare the fusions, so that half a search does, too.

    What others start from comes before them.
    """
    names = tuple(REMEDIES)
    alone = (*network_settings.WITHOUT_RNN, "rnn")
    joined = [fusion for fusion in network_settings.FUSIONS if fusion not in alone]
    found = [Trial(fusion, ()) for fusion in network_settings.WITHOUT_RNN]
    found += [Trial(fusion, remedies) for remedies in (names[:-1], ()) for fusion in joined]
    found += [Trial("rnn", names[:-1]), *(Trial(fusion, names) for fusion in joined)]
    found += [Trial("rnn", names[:count]) for count in range(len(names) - 1)]
    return tuple(found)


TRIALS = _trials()


@dataclasses.dataclass(frozen=True)
class Row:
    """What was found about a network.

    Attributes:
        fusion, remedies: of the network.
        epoch: of the best weights.
        images: held-out images.
        loss, top1: on them; `_low` and `_high` are the ends of 95 % intervals.
        rnn_mean_abs: mean absolute value of the RNN's output; NaN without an RNN, like the others.
        rnn_std: its standard deviation across images.
        lost: top-1 lost if the RNN's outputs are permuted across images.
        minus_cnn: top-1 minus that of the CNN alone, paired by image; NaN until it is computed.
        images_per_second: of training.
        flags: that differ from their default, without paths of the machine.
        precision: of training; '' until it is read from the manifest.
    """

    fusion: str
    remedies: str
    epoch: int
    images: int
    loss: float
    top1: float
    top1_low: float
    top1_high: float
    rnn_mean_abs: float
    rnn_std: float
    lost: float
    lost_low: float
    lost_high: float
    images_per_second: float
    flags: str
    minus_cnn: float = math.nan
    minus_cnn_low: float = math.nan
    minus_cnn_high: float = math.nan
    precision: str = ""


def search(
    config: config_lib.Config,
    program: Sequence[str] = child_process.PROGRAM,
    results: pathlib.Path = RESULTS,
) -> None:
    """Trains and scores all networks; writes the results after each.

    Args:
        config: the settings that all have in common.
        program: the command line of the child processes, up to the command word.
        results: the folder of the results.

    Raises:
        UsageError: a setting is chosen by the search, or would train the networks differently, or a
            network was trained with others.
        RunError: a training or an evaluation failed.
    """
    given = {flag.partition("=")[0].removeprefix("--") for flag in config.to_flags()}
    for name in _REFUSED:
        if name in given:
            why = "is chosen by the search" if name in _CHOSEN else "does not fit a comparison"
            raise errors.UsageError(f"--{name} {why}: leave it out.")
    config = config.replace(fold=config.data.fold or _FOLD)
    root = config.run_dir.with_name(f"{config.run_dir.name}.rnn_search")
    networks = [(trial, config.replace(**trial.settings(root))) for trial in TRIALS]
    for _, own in networks:  # a mistake is found before hours of training
        folder = run_folder.RunFolder(own.run_dir)
        fixed_settings.check(folder, _settings(own), is_complete=(folder.root / _ROW).exists())
    rows, manifests = [], []
    for number, (trial, own) in enumerate(networks, start=1):
        print(f"\nnetwork {number} of {len(TRIALS)}: {trial.run}", flush=True)
        row = _row(trial, own, program)
        manifests.append(run_folder.RunFolder(own.run_dir).manifest()[phases.PHASE1.name])
        difference = _minus_cnn(root, trial)
        rows.append(
            dataclasses.replace(
                row,
                minus_cnn=difference.value,
                minus_cnn_low=difference.low,
                minus_cnn_high=difference.high,
                precision=manifests[-1]["precision"],
            )
        )
        different = manifest.mixed(manifests)
        if any(text.startswith(_MUST_AGREE) for text in different):
            raise errors.UsageError(
                f"{trial.run} and {TRIALS[0].run} were not trained on the same images, in the same "
                f"precision, from the same weights ({'; '.join(different)}): give another "
                "--run=NAME."
            )
        _write(results, config.run_dir.name, rows)
    for text in different:
        print(f"note: not all networks were trained by the same program: {text}")
    print(f"\nresults: {results / 'README.md'}")


def _write(results: pathlib.Path, name: str, rows: list[Row]) -> None:
    """Writes the table and the page, but not over a table with more networks."""
    path = results / f"{name}.csv"
    if path.exists() and len(list(headline_record.read_rows(path, Row))) > len(rows):
        print(f"note: {path} stays as it is: it has more networks than this search so far")
        return
    headline_record.write_rows(path, Row, rows)
    atomic_files.write_text(results / "README.md", _page(results))


def _settings(config: config_lib.Config) -> dict[str, Any]:
    """The settings that a network must be trained with, by flag."""
    return {f"--{name}": value for name, value in config.to_json().items()}


def _row(trial: Trial, config: config_lib.Config, program: Sequence[str]) -> Row:
    """Trains and scores one network, or reads what was found earlier."""
    folder, asked = run_folder.RunFolder(config.run_dir), config.to_flags()
    path = folder.root / _ROW
    if not path.exists():
        fixed_settings.record(folder, _settings(config))
        child_process.run(program, ["phase1", *asked])
        child_process.run(program, ["evaluate", *asked])
        row = _scored(trial, config, folder)
        atomic_files.write_json(path, {"row": dataclasses.asdict(row)})
    for unused in (folder.root / "checkpoints", folder.best)[: 1 + (trial.fusion != "rnn")]:
        shutil.rmtree(unused, ignore_errors=True)
    return Row(**json.loads(path.read_text(encoding="utf-8"))["row"])


def _minus_cnn(root: pathlib.Path, trial: Trial) -> confidence_intervals.Interval:
    """A network's top-1 minus that of the CNN alone, on the same held-out images."""
    if trial == Trial("cnn", ()):
        return confidence_intervals.Interval(0.0, 0.0, 0.0)
    of_cnn, own = (
        headline_record.hits(root / run / "evaluation" / headline_record.PREDICTIONS)
        for run in (Trial("cnn", ()).run, trial.run)
    )
    return confidence_intervals.paired_difference((own - of_cnn)[:, 0])


def _scored(trial: Trial, config: config_lib.Config, folder: run_folder.RunFolder) -> Row:
    """The figures of a network that was trained and evaluated."""
    results = json.loads(folder.results.read_text(encoding="utf-8"))
    low, high = results["intervals_95"]["top1"]
    if trial.fusion in network_settings.WITHOUT_RNN:
        output = dict.fromkeys(("mean_abs", "std"), math.nan)
        lost = dict.fromkeys(("value", "low", "high"), math.nan)
    else:
        output = results["branches"]["rnn"]
        lost = next(
            ablation["top1_drop"]
            for ablation in results["branches"]["ablations"]
            if ablation["name"] == branch_ablation.permuted_name("RNN")
        )
    shown = headline_record.flags_without_paths(config.replace(run=""))
    return Row(
        fusion=trial.fusion,
        remedies=" + ".join(trial.remedies),
        epoch=results["epoch"],
        images=results["validation"]["count"],
        loss=results["validation"]["loss"],
        top1=results["validation"]["top1"],
        top1_low=low,
        top1_high=high,
        rnn_mean_abs=output["mean_abs"],
        rnn_std=output["std"],
        lost=lost["value"],
        lost_low=lost["low"],
        lost_high=lost["high"],
        images_per_second=event_files.images_per_second(folder.events(phases.PHASE1, "train")),
        flags=shlex.join(shown),
    )


def _page(results: pathlib.Path) -> str:
    """The text of README.md: a table for each CSV file."""
    page = _HEADING
    for path in sorted(results.glob("*.csv")):
        rows = list(headline_record.read_rows(path, Row))
        given = [shlex.split(row.flags) for row in rows]
        common = [flag for flag in given[0] if all(flag in others for others in given)]
        page += f"\n## {path.stem}\n\n{rows[0].images:,} held-out images; "
        page += f"{len(rows)} of {len(TRIALS)} networks so far; " * (len(rows) < len(TRIALS))
        page += f"all in {rows[0].precision}, with\n"
        page += f"\n    {shlex.join(common)}\n{_COLUMNS}"
        for row, own in zip(rows, given, strict=True):
            page += _line(row, [flag for flag in own if flag not in common])
    return page


def _line(row: Row, own_flags: list[str]) -> str:
    output, deviation, lost = "", "", ""
    if not math.isnan(row.rnn_std):
        output, deviation = f"{row.rnn_mean_abs:.3f}", f"{row.rnn_std:.4f}"
        lost = headline_record.points(
            confidence_intervals.Interval(row.lost, row.lost_low, row.lost_high)
        )
    minus_cnn = confidence_intervals.Interval(row.minus_cnn, row.minus_cnn_low, row.minus_cnn_high)
    cells = (
        row.fusion,
        row.remedies,
        f"{row.top1:.2%} [{row.top1_low:.2%}, {row.top1_high:.2%}]",
        "" if row.fusion == "cnn" else headline_record.points(minus_cnn),
        output,
        deviation,
        lost,
        f"{row.images_per_second:.1f}",
        " ".join(f"`{flag}`" for flag in own_flags),
    )
    return f"| {' | '.join(cells)} |\n"


def main(argv: Sequence[str]) -> None:
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    stop_signals.install()
    values = flags.FlagValues()
    config_lib.define_flags(values)
    try:
        positional = values(["rnn_search", *argv])[1:]
        if positional:
            raise errors.UsageError(f"expected flags only. Received: {positional[0]!r}.")
        config = config_lib.from_flags(values)
        devices_lib.configure(uses_gpus=False)  # the child processes need their memory
        search(config)
    except (flags.Error, errors.UsageError, errors.RunError, errors.Stopped) as error:
        raise SystemExit(f"rnn_search: {error}") from error


if __name__ == "__main__":
    main(sys.argv[1:])
