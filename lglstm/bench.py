"""`lglstm bench`: how fast the layers, the nets and the data layer are."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lglstm.model_files import progress_bar

EXAMPLES = """\b
Examples:
  lglstm bench stack
  lglstm bench net horse --repeats 9 --json > net.json
  lglstm bench data horse --list data/horse/train.txt
  lglstm bench scale --plot scale.png
"""

STACK_EXAMPLES = """\b
Examples:
  lglstm bench stack
  lglstm bench stack --size 41x41 --batch 2 --rivals cpp,literal,factored
  lglstm bench stack --json --plot stack.png > stack.json
"""


NET_EXAMPLES = """\b
Examples:
  lglstm bench net
  lglstm bench net horse --task train --rivals stock,onednn,torch
  lglstm bench net demo --repeats 3 --json
"""


@click.group(epilog=EXAMPLES)
def command() -> None:
    """Measure how fast the layers, the nets and the data layer are.

    All competitors run in one go and take turns, each in a process of its own with the same number
    of threads; ratios are taken within a round. Let nothing else run meanwhile.
    """


def common_options(function: Callable) -> Callable:
    """--repeats, --threads, --quick, --json and --plot."""
    for option in (
        click.option(
            "--plot", type=click.Path(path_type=Path), metavar="FILE",
            help="Also draw a picture: .png, .pdf or .svg.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print everything as JSON."),
        click.option("--quick", is_flag=True, help="Tiny sizes: a try in seconds."),
        click.option(
            "--threads", type=click.IntRange(min=1), default=cores, metavar="N",
            help="Threads of every competitor (default: all cores).",
        ),
        click.option(
            "--repeats", type=click.IntRange(min=1), default=7, show_default=True, metavar="N",
            help="Rounds.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


@command.command(epilog=STACK_EXAMPLES)
@click.option(
    "--size", "sizes", multiple=True, metavar="HxW[xC]",
    help="Positions, and channels of the features; may be repeated (default: 41x41 with 1024, "
    "150x100 with 256 channels, those of the models).",
)  # fmt: skip
@click.option(
    "--batch", "batches", multiple=True, type=click.IntRange(min=1), metavar="N",
    help="Images; may be repeated (default: 1 and 2).",
)  # fmt: skip
@click.option(
    "--rivals", metavar="KEY,…",
    help="Who competes, the first is compared with: cpp, python, literal, factored, compiled "
    "(default: all).",
)  # fmt: skip
@common_options
def stack(
    sizes: tuple[str, ...],
    batches: tuple[int, ...],
    rivals: str | None,
    repeats: int,
    threads: int,
    quick: bool,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Time transition, five LG-LSTM layers and five classifiers, forward and backward.

    C++ layers, Python layers, and PyTorch: as the paper writes the equations, factored, compiled.
    All must compute the same scores and gradients, else nothing is timed.
    """
    from benchmarks import report, stack, stack_report

    report.check_picture(plot)
    chosen = stack.choose(sizes, batches, quick)
    competing = stack.choose_rivals(rivals)
    with progress_bar("stack") as tell:
        result = stack.run(chosen, competing, repeats=repeats, threads=threads, tell=tell)
    show(result, stack_report, as_json, plot)


@command.command(epilog=NET_EXAMPLES)
@click.argument("models", nargs=-1)
@click.option(
    "--task", "tasks", multiple=True, type=click.Choice(["train", "image"]),
    help="train: an iteration with its update; image: one image forward (default: both).",
)  # fmt: skip
@click.option(
    "--rivals", metavar="KEY,…",
    help="Who competes: stock, onednn, onednn_winograd (Caffe's convolution engines), torch, "
    "compiled (default: all but compiled).",
)  # fmt: skip
@common_options
def net(
    models: tuple[str, ...],
    tasks: tuple[str, ...],
    rivals: str | None,
    repeats: int,
    threads: int,
    quick: bool,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Time whole MODELS (default: horse and atr) in Caffe and in PyTorch.

    A training iteration is forward, backward and update, at the model's batch size; an image goes
    through the deploy net. Inputs are random. All must compute the same loss, gradients and scores.
    """
    from benchmarks import net, net_report, report

    report.check_picture(plot)
    competing = net.choose_rivals(rivals)
    models = models or (net.QUICK if quick else net.MODELS)
    tasks = tasks or tuple(net.TASKS)
    with progress_bar("net") as tell:
        result = net.run(models, competing, tasks, repeats=repeats, threads=threads, tell=tell)
    show(result, net_report, as_json, plot)


def show(result: dict[str, Any], presenter: Any, as_json: bool, plot: Path | None) -> None:
    """Print a result as JSON or tables, and draw it."""
    from benchmarks import report

    result = {"command": " ".join(["lglstm", *sys.argv[1:]])} | result
    if plot is not None:
        report.save(presenter.figure(result), plot)
    if as_json:
        click.echo(json.dumps(result, indent=1))
        return
    console = report.console()
    for part in presenter.tables(result):
        console.print(part)
    console.print(report.machine_line(result))
    if plot is not None:
        console.print(f"wrote {plot}")
