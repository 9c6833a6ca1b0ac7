"""Options that several commands share, and how they print warnings."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from lglstm.cli.paths import FilePath
from lglstm.common.labels import LABEL_SETS
from lglstm.common.suggest import close

Function = TypeVar("Function", bound=Callable[..., Any])

PICTURES = (".png", ".pdf", ".svg")


MOST_WORKERS = 1024
MOST_SEED = 2**63 - 1  # that of a data layer
MOST_ITERATIONS = 2**31 - 1  # Caffe's
LONGEST = 1_000_000
"""Seconds; more than eleven days."""

WORKERS = click.IntRange(1, MOST_WORKERS)
BATCH = click.IntRange(1, 1 << 16)
SEED = click.IntRange(0, MOST_SEED)


class FiniteRange(click.FloatRange):
    """As click's, but NaN, which no limit stops, is refused; has an upper limit, so inf is, too."""

    def __init__(self, min: float, max: float, min_open: bool = False, max_open: bool = False):
        super().__init__(min, max, min_open, max_open)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number.", param, ctx)
        return number


SECONDS = FiniteRange(0, LONGEST, min_open=True)


class Choice(click.Choice):
    """As click's, with the nearest name for a mistyped one."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        message = super().get_invalid_choice_message(value, ctx)
        meant = close(str(value), map(str, self.choices))
        return f"{message} Did you mean '{meant}'?" if meant else message


def complete_model(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """What a shell offers for a model: the names in models/, or files if none begins like that."""
    from lglstm.common.models import known_models

    names = [name for name in known_models() if name.startswith(incomplete)]
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


def device_options(function: Function) -> Function:
    """Add --gpu and --cpu to a command that computes on one device."""
    gpu = click.option(
        "--gpu", type=click.IntRange(0, 1023), metavar="N", help="Use GPU number N (default: 0)."
    )
    cpu = click.option("--cpu", is_flag=True, help="Use the CPU even if there is a GPU.")
    return gpu(cpu(function))


labels_option = click.option(
    "--labels",
    metavar="NAME|FILE",
    help=f"Label set: {', '.join(LABEL_SETS)}, or a JSON file (default: the model's).",
)


backend_option = click.option(
    "--backend", type=Choice(["caffe", "onnx", "torch"]),
    help="What runs the net (default: Caffe if it is installed, else what is).",
)  # fmt: skip

weights_option = click.option(
    "--weights", metavar="FILE|MODEL", type=FilePath(),
    help="Trained weights, in any format that convert reads (default: those in models/MODEL).",
)  # fmt: skip


def list_options(default: str) -> Callable[[Function], Function]:
    """--list and --root: the images to score, by default those that `default` names."""
    image_list = click.option(
        "--list", "list_path", metavar="FILE", type=FilePath(),
        help=f"Lines of `photo label` (default: {default}).",
    )  # fmt: skip
    root = click.option(
        "--root", metavar="DIR", type=FilePath(),
        help="Where the list's paths start (default: its folder).",
    )  # fmt: skip

    def add(function: Function) -> Function:
        return image_list(root(function))

    return add


trust_option = click.option(
    "--trust-net", is_flag=True,
    help="Also run layers of the net that may read or write files or run code.",
)  # fmt: skip


def output_option(help: str, metavar: str = "DIR", **settings: Any) -> Callable[..., Any]:
    """-o/--output: where a command writes, as a Path."""
    return click.option("-o", "--output", type=FilePath(), metavar=metavar, help=help, **settings)


def picture_option(help: str, **settings: Any) -> Callable[..., Any]:
    """-o/--output for a picture, whose suffix says the format."""
    return output_option(help, "FILE", callback=_check_picture, **settings)


def _check_picture(
    ctx: click.Context, parameter: click.Parameter, path: Path | None
) -> Path | None:
    if path is not None and path.suffix.lower() not in PICTURES:
        raise click.BadParameter(
            f"{path}: unknown picture format; use a name that ends in {', '.join(PICTURES)}",
            ctx,
            parameter,
        )
    return path


def warn(sentence: str) -> None:
    click.echo(f"warning: {sentence}", err=True)
