"""`lglstm evaluate`: measure a trained model, or any label maps, in the form of the paper."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lglstm.cli.model_files import (
    ModelFiles,
    choose_device,
    choose_labels,
    device_options,
    initial_layers_warning,
    labels_option,
    never_predicted_warning,
    one_class_warning,
    progress_bar,
    registered,
    warn,
)
from lglstm.common.errors import InputError
from lglstm.common.models import find_model

if TYPE_CHECKING:
    from lglstm.common.labels import LabelSet
    from lglstm.evaluation.paper import Cell
    from lglstm.evaluation.record import Origin
    from lglstm.evaluation.scoring import Evaluation

EXAMPLES = """\b
Examples:
  lglstm evaluate horse --weights runs/horse_iter_8820.caffemodel
  lglstm evaluate horse --weights runs/horse_iter_8820.caffemodel \\
      --expect horse.lg_lstm --tolerance 0.5
  lglstm evaluate fashionista_largefov --weights runs/f.caffemodel \\
      --list data/fashionista/test.txt --paper fashionista.lg_lstm --all-layers
  lglstm evaluate --predictions their_output/ --list data/horse/test.txt --labels horse
"""


@click.command(epilog=EXAMPLES)
@click.argument("model", required=False)
@click.option("--weights", metavar="FILE", type=Path, help="Trained weights (.caffemodel).")
@click.option(
    "--list", "list_path", metavar="FILE", type=Path,
    help="Lines of `photo label` (default: the model's test list).",
)  # fmt: skip
@click.option(
    "--root", metavar="DIR", type=Path, help="Where the list's paths start (default: its folder)."
)
@click.option(
    "--predictions", metavar="DIR", type=Path,
    help="Score these label maps, <photo>.png each, instead of running a net.",
)  # fmt: skip
@labels_option
@click.option(
    "--paper", "row", metavar="ROW",
    help="The paper's row to compare with, such as horse.lg_lstm (default: the model's own).",
)  # fmt: skip
@click.option(
    "--expect", metavar="ROW", help="Compare with this row, and exit 1 when a number is off."
)
@click.option(
    "--tolerance", metavar="POINTS", type=click.FloatRange(min=0), default=0.5, show_default=True,
    help="How far a number may be off, in percentage points.",
)  # fmt: skip
@click.option("--all-layers", is_flag=True, help="Score every LG-LSTM layer's own prediction too.")
@click.option(
    "--log", "logs", metavar="FILE", type=Path,
    help="CSV or log of the training run; puts its loss curve into the report.",
)  # fmt: skip
@click.option(
    "--out", metavar="DIR", type=Path,
    help="Where predictions, evaluation.json and report.html go (default: runs/evaluation/…).",
)  # fmt: skip
@click.option(
    "--batch", metavar="N", type=click.IntRange(min=1), default=1, show_default=True,
    help="Photos in one pass of the net.",
)  # fmt: skip
@device_options
@click.option("--json", "as_json", is_flag=True, help="Print evaluation.json instead of a table.")
@click.pass_context
def command(context: click.Context, as_json: bool, **options: object) -> None:
    """Score MODEL on every image of a list, at the size of its true label maps.

    MODEL is a name in models/ or the path of a deploy net. Prints paper, ours and difference, and
    writes the predictions as palette PNGs, evaluation.json and the HTML report. An evaluation that
    was interrupted goes on when the same command is given again.
    """
    request = Request(**options)
    outcome = evaluate(request)
    if as_json:
        click.echo(json.dumps(outcome.contents, indent=1))
    else:
        show(outcome)
    missed = outcome.missed(request.tolerance) if request.expect else []
    for cell in missed:
        ours = "not measured" if cell.ours is None else f"{cell.ours:.2f}"
        click.echo(
            f"outside ± {request.tolerance:g}: {cell.heading} is {ours}, "
            f"{request.expect} has {cell.paper:.2f}",
            err=True,
        )
    context.exit(1 if missed else 0)


@dataclass(frozen=True)
class Request:
    """The options of one call, as `lglstm evaluate --help` explains them."""

    model: str | None
    weights: Path | None
    list_path: Path | None
    root: Path | None
    predictions: Path | None
    labels: str | None
    row: str | None
    expect: str | None
    tolerance: float
    all_layers: bool
    logs: Path | None
    out: Path | None
    batch: int
    gpu: int | None
    cpu: bool

    def __post_init__(self) -> None:
        if self.predictions is None and (self.model is None or self.weights is None):
            raise InputError(
                "give MODEL and --weights FILE to run a net, or --predictions DIR to score label "
                "maps that are there already"
            )
        if self.predictions is not None and (self.weights is not None or self.all_layers):
            raise InputError(
                "--predictions scores finished label maps, so --weights and --all-layers have no "
                "use with it; leave them out"
            )
        if self.expect and self.row and self.expect != self.row:
            raise InputError("--expect and --paper name different rows; give one of them")


@dataclass(frozen=True)
class Outcome:
    """What an evaluation gave: evaluation.json, the cells of its table, and its folder."""

    contents: dict
    cells: list[Cell]
    out: Path

    def missed(self, tolerance: float) -> list[Cell]:
        """The cells in which the paper's number is off by more than `tolerance` points."""
        from lglstm.evaluation import paper

        return paper.outside(self.cells, tolerance)


def evaluate(request: Request) -> Outcome:
    """Predict what is not predicted yet, score it, and write evaluation.json and the report."""
    from lglstm.evaluation import paper, record, report

    curves = _curves(request.logs)
    model = find_model(request.model) if request.model else None
    row = request.expect or request.row or (paper.row_of_model(model.name) if model else None)
    list_path = _list_of(request, model)
    run = _score_predictions if request.predictions else _run_net
    evaluation, out, warnings = run(request, model, list_path, row)
    warnings += _warnings_of(evaluation)
    for sentence in warnings:
        warn(sentence)
    cells = paper.compare(evaluation.metrics, row)
    origin = _origin(request, model, list_path, row, evaluation.labels, out, warnings)
    contents = record.as_dict(origin, evaluation, cells)
    record.write(out / record.FILE, contents)
    report.write(out / report.FILE, origin, evaluation, cells, curves)
    return Outcome(contents, cells, out)


def _list_of(request: Request, model: ModelFiles | None) -> Path:
    """The list that was asked for, else the model's own."""
    if request.list_path:
        return request.list_path
    if model and (test_list := registered(model, "test_list")):
        return model.root / test_list
    raise InputError("it is not known which images to score; name their list with --list FILE")


def _run_net(
    request: Request, model: ModelFiles, list_path: Path, row: str | None
) -> tuple[Evaluation, Path, list[str]]:
    """Parse and score the list; return the evaluation, its folder, and what to warn of."""
    from lglstm.evaluation import paper
    from lglstm.evaluation.inference import Parser
    from lglstm.evaluation.scoring import evaluate_list

    gpu = choose_device(request.gpu, request.cpu)
    parser = Parser(
        model.file,
        request.weights,
        gpu=gpu,
        batch_size=request.batch,
        test=model.form("test") if request.all_layers else None,
    )
    labels = choose_labels(request.labels, model, parser.num_classes, list_path)
    paper.headings(row, labels.names)  # a row that does not fit is told before an hour of work
    out = request.out or Path("runs/evaluation", model.name, request.weights.stem)
    with progress_bar(f"{model.name} on {'CPU' if gpu is None else f'GPU {gpu}'}") as progress:
        evaluation = evaluate_list(
            parser, list_path, labels, out, root=request.root, progress=progress
        )
    warning = initial_layers_warning(request.weights, parser.loaded)
    return evaluation, out, [warning] if warning else []


def _score_predictions(
    request: Request, model: ModelFiles | None, list_path: Path, row: str | None
) -> tuple[Evaluation, Path, list[str]]:
    """Score label maps that are there; return as `_run_net` does."""
    from lglstm.evaluation import paper
    from lglstm.evaluation.samples import read_list
    from lglstm.evaluation.scoring import score

    labels = choose_labels(request.labels, model, None, list_path)
    paper.headings(row, labels.names)
    samples = read_list(list_path, request.root)
    out = request.out or Path("runs/evaluation", request.predictions.resolve().name)
    with progress_bar("label maps") as progress:
        evaluation = score(samples, request.predictions, labels, progress)
    return evaluation, out, []


def _warnings_of(evaluation: Evaluation) -> list[str]:
    predicted = evaluation.metrics.matrix.sum(axis=0).tolist()
    sentences = (
        one_class_warning(evaluation.labels.names, predicted),
        never_predicted_warning(evaluation.metrics),
    )
    return [sentence for sentence in sentences if sentence]


def _origin(
    request: Request,
    model: ModelFiles | None,
    list_path: Path,
    row: str | None,
    labels: LabelSet,
    out: Path,
    warnings: list[str],
) -> Origin:
    """What evaluation.json says about where its numbers come from."""
    from lglstm.evaluation import predictions
    from lglstm.evaluation.record import Origin

    return Origin(
        model=model.name if model else None,
        weights=str(request.weights) if request.weights else None,
        weights_sha256=predictions.sha256(request.weights) if request.weights else None,
        predictions=str(request.predictions or predictions.folder_of(out, "score")),
        list=str(list_path),
        labels=labels.name,
        row=row,
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        warnings=tuple(warnings),
    )


def _curves(path: Path | None) -> dict[str, dict[int, float]]:
    """Name → {iteration: loss} of a training run; empty without its log."""
    if path is None:
        return {}
    from lglstm.training import log

    run = log.read(path)
    curves = {"training loss": run.losses[log.TOTAL]}
    if run.tests.get(log.TOTAL):
        curves["test loss"] = run.tests[log.TOTAL]
    return curves


def show(outcome: Outcome) -> None:
    """Print the comparison, the layers' mean IoUs, and where everything is."""
    from rich.console import Console

    from lglstm.evaluation.text import comparison_table, layers_table

    console = Console(highlight=False)
    contents = outcome.contents
    console.print(comparison_table(outcome.cells, contents["row"], contents["images"]))
    if contents["layers"]:
        console.print()
        console.print(layers_table(contents["layers"]))
    console.print(f"report: {outcome.out / 'report.html'}", soft_wrap=True)
