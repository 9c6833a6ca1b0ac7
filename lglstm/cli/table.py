"""`lglstm table`: the paper's tables, with our results below the rows they reproduce."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lglstm.cli.options import Choice, warn
from lglstm.cli.paths import FilePath
from lglstm.common.errors import InputError

if TYPE_CHECKING:
    from lglstm.evaluation.evaluation_json import StoredEvaluation
    from lglstm.evaluation.paper import PaperRow, PaperTable

EXAMPLES = """\b
Examples:
  lglstm table 5
  lglstm table 5 runs
  lglstm table all runs --json
"""

ALL = "all"


@click.command(epilog=EXAMPLES)
@click.argument("number", type=Choice(["1", "2", "3", "4", "5", ALL]))
@click.argument("runs", required=False, type=FilePath(), metavar="[RUNS_DIR]")
@click.option("--json", "as_json", is_flag=True, help="Print the tables as JSON.")
def command(number: str, runs: Path | None, as_json: bool) -> None:
    """Print table NUMBER of the paper, with our results from RUNS_DIR.

    RUNS_DIR is searched at any depth for the evaluation.json files that `lglstm evaluate` wrote;
    each says which row of the paper it belongs to. If there are several for a row, the newest one
    counts. Rows without a result are printed alone.
    """
    from lglstm.evaluation import paper

    numbers = range(1, 6) if number == ALL else [int(number)]
    blocks = [block for k in numbers for block in paper.blocks_of(k)]
    results = newest(find_results(runs)) if runs else {}
    if runs:
        _tell_missing(blocks, results, runs)
    if as_json:
        click.echo(json.dumps([as_dict(block, results) for block in blocks], indent=1))
    else:
        show(blocks, results)


def find_results(runs: Path) -> list[StoredEvaluation]:
    """Every evaluation below a folder; those that cannot be read are named and passed over."""
    from lglstm.evaluation import evaluation_json

    if not runs.is_dir():
        raise InputError(f"{runs}: is not a folder; give the folder that holds the evaluations")
    found = []
    for path in sorted(runs.rglob(evaluation_json.FILE)):
        try:
            found.append(evaluation_json.read(path))
        except InputError as error:
            warn(str(error))
    if not found:
        raise InputError(
            f"{runs}: holds no {evaluation_json.FILE}; evaluate the trained models first with "
            "`lglstm evaluate`"
        )
    return found


def newest(results: Sequence[StoredEvaluation]) -> dict[str, StoredEvaluation]:
    """Row of the paper → its newest result; results that belong to no row are left out."""
    by_row: dict[str, StoredEvaluation] = {}
    for result in sorted(results, key=lambda result: result.provenance.finished):
        row = result.provenance.row
        if row is None:
            continue
        if row in by_row:
            warn(f"{row}: {result.path} is newer than {by_row[row].path} and counts")
        by_row[row] = result
    return by_row


def as_dict(block: PaperTable, results: Mapping[str, StoredEvaluation]) -> dict[str, Any]:
    """A block of a table, percent, with ours (null where there is none) beside the paper's."""
    return {
        "table": block.number,
        "dataset": block.dataset,
        "title": block.title,
        "columns": dict(block.columns),
        "rows": [_row(row, results.get(row.key)) for row in block.rows],
    }


def show(blocks: Sequence[PaperTable], results: Mapping[str, StoredEvaluation]) -> None:
    from lglstm.common.console import plain_console
    from lglstm.evaluation.tables import paper_tables

    console = plain_console(highlight=False)
    ours = {row: result.percents for row, result in results.items()}
    for block in blocks:
        for table in paper_tables(block, ours, console.width):
            console.print(table)
            console.print()
    for row, result in results.items():
        images = f"{result.images:,} images of {result.provenance.list}"
        if any(row == printed.key for block in blocks for printed in block.rows):
            console.print(f"{row}: {images}, {result.path}", soft_wrap=True)


def _row(row: PaperRow, result: StoredEvaluation | None) -> dict[str, Any]:
    return {
        "row": row.key,
        "method": row.method,
        "paper": dict(row.cells),
        "ours": {metric: result.percents.get(metric) for metric in row.cells} if result else None,
        "evaluation": str(result.path) if result else None,
    }


def _tell_missing(
    blocks: Sequence[PaperTable], results: Mapping[str, StoredEvaluation], runs: Path
) -> None:
    """Say when none of the results belongs to the tables that were asked for."""
    wanted = {row.key for block in blocks for row in block.rows}
    if not wanted & set(results):
        rows = ", ".join(sorted(results)) or "no row of the paper"
        warn(f"{runs}: its evaluations belong to {rows}, none of them in this table")
