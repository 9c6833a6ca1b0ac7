"""`lglstm evaluate`: measure a trained model, or any label maps, in the form of the paper."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from lglstm.cli.options import (
    BATCH,
    FiniteRange,
    backend_option,
    complete_model,
    device_options,
    labels_option,
    list_options,
    output_option,
    trust_option,
    warn,
    weights_option,
)
from lglstm.cli.paths import FilePath

if TYPE_CHECKING:
    from lglstm.evaluation.evaluate import EvaluationFiles

EXAMPLES = """\b
Examples:
  lglstm evaluate horse
  lglstm evaluate horse --weights runs/horse_iter_8820.caffemodel
  lglstm evaluate horse --weights runs/horse_iter_8820.caffemodel \\
      --expect horse.lg_lstm --tolerance 0.5
  lglstm evaluate fashionista_largefov --weights runs/f.caffemodel \\
      --list data/fashionista/test.txt --paper fashionista.lg_lstm --all-layers
  lglstm evaluate horse --class-offsets -o runs/offsets/horse
  lglstm evaluate --predictions their_output/ --list data/horse/test.txt --labels horse
"""


@click.command(epilog=EXAMPLES)
@click.argument("model", required=False, shell_complete=complete_model)
@weights_option
@backend_option
@list_options("the model's test list")
@click.option(
    "--predictions", metavar="DIR", type=FilePath(),
    help="Score these label maps, <photo>.png each, instead of running a net.",
)  # fmt: skip
@labels_option
@click.option(
    "--paper", "row", metavar="ROW",
    help="The paper's row to compare with, such as horse.lg_lstm (default: the model's own).",
)  # fmt: skip
@click.option(
    "--expect", metavar="ROW", help="Compare with this row; exit with 1 if a number is off."
)
@click.option(
    "--tolerance", metavar="POINTS", type=FiniteRange(0, 100), default=0.5, show_default=True,
    help="How far a number may be off, in percentage points.",
)  # fmt: skip
@click.option("--all-layers", is_flag=True, help="Score every LG-LSTM layer's own prediction too.")
@click.option(
    "--class-offsets", is_flag=True,
    help="Add to each class's scores the constant that is best for the other half of the images: "
    "for comparing nets apart from where they draw the line between classes.",
)  # fmt: skip
@click.option(
    "--log", metavar="FILE", type=FilePath(),
    help="CSV or log of the training run; puts its loss curve into the report.",
)  # fmt: skip
@output_option(
    "Where predictions, evaluation.json and report.html go (default: runs/evaluation/…)."
)
@click.option(
    "--batch", metavar="N", type=BATCH, default=1, show_default=True,
    help="Photos in one pass of the net.",
)  # fmt: skip
@device_options
@trust_option
@click.option("--json", "as_json", is_flag=True, help="Print evaluation.json instead of a table.")
@click.pass_context
def command(context: click.Context, as_json: bool, **options: Any) -> None:
    """Score MODEL on every image of a list, at the size of its true label maps.

    MODEL is a name in models/ or the path of a deploy net. Prints paper, ours and difference, and
    writes the predictions as palette PNGs, evaluation.json and the HTML report. To continue an
    interrupted evaluation, give the same command again.
    """
    from lglstm.evaluation.evaluate import EvaluateOptions, evaluate

    asked = EvaluateOptions(**options)
    written = evaluate(asked, warn)
    if as_json:
        click.echo(json.dumps(written.contents, indent=1))
    else:
        show(written)
    missed = written.missed(asked.tolerance) if asked.expect else []
    for cell in missed:
        ours = "not measured" if cell.ours is None else f"{cell.ours:.2f}"
        click.echo(
            f"outside ± {asked.tolerance:g}: {cell.heading} is {ours}, "
            f"{asked.expect} has {cell.paper:.2f}",
            err=True,
        )
    context.exit(1 if missed else 0)


def show(written: EvaluationFiles) -> None:
    """Print the tables, what the paper's numbers are for, and where everything is."""
    from lglstm.common.console import plain_console
    from lglstm.evaluation.paper import test_set
    from lglstm.evaluation.tables import comparison_table, layers_table

    console = plain_console(highlight=False)
    contents = written.contents
    row = contents["row"]
    console.print(comparison_table(written.cells, row, contents["images"]))
    if row:
        console.print(f"the paper's {row}: {test_set(row)}", soft_wrap=True)
    if contents["layers"]:
        console.print()
        console.print(layers_table(contents["layers"]))
    console.print(f"report: {written.report}", soft_wrap=True)
