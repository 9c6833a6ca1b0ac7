"""`lglstm compare`: which of two evaluated nets is better, and whether the images show it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lglstm.cli.options import SEED, list_options
from lglstm.cli.paths import FilePath

EXAMPLES = """\b
Examples:
  lglstm compare runs/evaluation/horse_vgg16/horse_vgg16_iter_8820-* \\
      runs/evaluation/horse/horse_iter_8820-*
  lglstm compare baseline/ ours/ ours_again/ --json
"""


@click.command(epilog=EXAMPLES)
@click.argument("baseline", type=FilePath())
@click.argument("others", type=FilePath(), nargs=-1, required=True)
@list_options("the list of the first evaluation")
@click.option(
    "--samples", type=click.IntRange(100, 1_000_000), default=10_000, show_default=True,
    help="How often the images are drawn anew.",
)  # fmt: skip
@click.option("--seed", type=SEED, default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(
    baseline: Path,
    others: tuple[Path, ...],
    list_path: Path | None,
    root: Path | None,
    samples: int,
    seed: int,
    as_json: bool,
) -> None:
    """Compare evaluations of the same images with BASELINE, by a paired bootstrap over the images.

    BASELINE and OTHERS are folders that `lglstm evaluate` wrote, with their label maps. For every
    metric: both values, the difference in percentage points, and the interval that holds 95 % of
    the differences when the test images are drawn anew. An interval that contains 0 means that
    these images do not show which of the two is better.
    """
    from lglstm.common.console import plain_console
    from lglstm.common.progress import progress_bar
    from lglstm.evaluation.compare import compare
    from lglstm.evaluation.tables import difference_table

    with progress_bar("label maps") as progress:
        compared = compare(
            [baseline, *others],
            list_path=list_path,
            root=root,
            samples=samples,
            seed=seed,
            report=progress,
        )
    if as_json:
        click.echo(json.dumps([comparison.as_dict() for comparison in compared], indent=1))
        return
    console = plain_console(highlight=False)
    for comparison in compared:
        console.print(difference_table(comparison))
