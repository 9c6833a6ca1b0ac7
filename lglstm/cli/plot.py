"""`lglstm plot`: draw the loss curves of training runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click

from lglstm.cli.options import picture_option
from lglstm.cli.paths import FilePath

EXAMPLES = """\b
Examples:
  lglstm plot runs/demo.csv -o demo.png
  caffe train -solver models/demo/solver.prototxt 2>&1 | tee demo.log; lglstm plot demo.log
  lglstm plot runs/demo_1.csv runs/demo_2.csv runs/demo_3.csv -o seeds.svg
"""


@click.command(epilog=EXAMPLES)
@click.argument("files", nargs=-1, required=True, type=FilePath())
@picture_option(
    "The picture to write: .png, .pdf or .svg.", default="runs/curve.png", show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="Print what was drawn as JSON.")
def command(files: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Draw the losses in FILES: the CSV of lglstm train, or the log of caffe train.

    Several files go into one picture. Test losses are drawn as points.
    """
    from lglstm.training.log import TOTAL, curve, read
    from lglstm.training.plot import draw

    runs = [read(path) for path in files]
    if len({run.name for run in runs}) < len(runs):
        for path, run in zip(files, runs, strict=True):
            run.name = str(path)
    draw(runs, output)
    drawn: list[dict[str, Any]] = []
    for path, run in zip(files, runs, strict=True):
        iterations, values = curve(run.losses[TOTAL])
        drawn.append(
            {
                "file": str(path),
                "points": len(values),
                "last_iteration": int(iterations[-1]),
                "last_loss": float(values[-1]),
                "tests": len(run.tests.get(TOTAL, {})),
            }
        )
    if as_json:
        for line in drawn:  # JSON knows no NaN
            line["last_loss"] = line["last_loss"] if math.isfinite(line["last_loss"]) else None
        click.echo(json.dumps({"output": str(output), "runs": drawn}, indent=2))
        return
    for line in drawn:
        click.echo(
            f"{line['file']}: {line['points']} losses, {line['last_loss']:.4f} at iteration "
            f"{line['last_iteration']}, {line['tests']} tests"
        )
    click.echo(f"wrote {output}")
