"""`lglstm models`: generate the nets of the paper and look inside them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from lglstm.cli.group import Group
from lglstm.cli.options import Choice
from lglstm.cli.paths import FilePath
from lglstm.common.console import plain_console
from lglstm.common.errors import InputError
from lglstm.common.files import write_text
from lglstm.common.models import find_model


@click.group(cls=Group)
def command() -> None:
    """Generate and describe the nets in models/."""


@command.command("list")
def list_models() -> None:
    """List the models: what each is, where the paper reports it, and whose weights are here."""
    from lglstm.prototxt_gen.registry import MODELS

    table = Table("model", "what", "paper", "weights", box=None)
    for name, model in MODELS.items():
        table.add_row(name, model.what, model.paper, weights_of(name))
    plain_console().print(table)


def weights_of(name: str) -> str:
    """The size of the trained weights in a model's folder; nothing where there are none."""
    try:
        weights = find_model(name).weights
    except InputError:  # in the registry, but not generated here
        return ""
    return f"{weights.stat().st_size / 1e6:.1f} MB" if weights else ""


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--check", is_flag=True, help="Write nothing; fail when a file is out of date.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="OPTION=VALUE",
    help="Change an option (needs --name); repeat for more.",
)
@click.option(
    "--data", type=FilePath(), metavar="DIR",
    help="Take classes, lists and their lengths from this prepared data set (needs --name).",
)  # fmt: skip
@click.option("--name", "new_name", help="Name of the variant that the options make.")
@click.option("--engine", type=Choice(["caffe", "python"]), help="Short for --set engine=….")
def generate(
    names: tuple[str, ...],
    check: bool,
    settings: tuple[str, ...],
    data: Path | None,
    new_name: str | None,
    engine: str | None,
) -> None:
    """Write models/NAME/{train,test,deploy,solver}.prototxt and labels.json; without NAME, all.

    \b
    Examples:
      lglstm models generate
      lglstm models generate --check
      lglstm models generate horse --set share_spatial=false --name horse_distinct
      lglstm models generate demo --engine python --name demo_python
      lglstm models generate demo --data data/leaves --name leaves
      lglstm models generate horse --set label_set=leaves.json --name leaves
    """
    changes = [*settings, *([f"engine={engine}"] if engine else [])]
    is_variant = changes or data or new_name
    texts = variant_texts(names, changes, data, new_name) if is_variant else model_texts(names)
    if check:
        check_texts(texts)
        return
    for path, text in texts.items():
        write_text(path, text)
        click.echo(path)


def variant_texts(
    names: tuple[str, ...], changes: list[str], data: Path | None, new_name: str | None
) -> dict[Path, str]:
    """Return path → text of a variant of one model; wrong options are usage errors."""
    from lglstm.prototxt_gen.options import with_data, with_settings
    from lglstm.prototxt_gen.registry import MODELS, check_name, find

    if len(names) != 1 or not new_name or new_name in MODELS:
        raise click.UsageError(
            "--set, --data and --engine make a variant of one model under a new name; write: "
            "lglstm models generate MODEL --set option=value --name NEW"
        )
    model = find(names[0])
    base = with_data(model.options, data) if data else model.options
    try:
        check_name(new_name)
        options = with_settings(base, changes)
    except InputError as error:
        raise click.UsageError(str(error)) from error
    from lglstm.prototxt_gen import files  # last: what is wrong above needs no Caffe to be told

    return files.texts(options, new_name, origin(names[0], changes, data, new_name))


def model_texts(names: tuple[str, ...]) -> dict[Path, str]:
    """Return path → text of the named models, or of all of them and their index."""
    from lglstm.prototxt_gen.registry import MODELS, find

    models = {name: find(name) for name in names or MODELS}
    from lglstm.prototxt_gen import files  # last: a wrong name needs no Caffe to be told

    texts: dict[Path, str] = {}
    for name, model in models.items():
        texts |= files.texts(model.options, name, origin(name))
    return texts if names else texts | files.index_text()


def check_texts(texts: dict[Path, str]) -> None:
    """Say that all files are up to date, or raise InputError with those that are not."""
    from lglstm.prototxt_gen.files import stale

    out_of_date = stale(texts)
    if out_of_date:
        raise InputError(
            f"out of date: {', '.join(map(str, out_of_date))}; run lglstm models generate"
        )
    click.echo(f"{len(texts)} files are up to date")


@command.command()
@click.argument("name")
def options(name: str) -> None:
    """List every option of a model's family: what it means and the model's value.

    \b
    Example:
      lglstm models options horse
    """
    from lglstm.prototxt_gen.options import describe
    from lglstm.prototxt_gen.registry import find

    table = Table("option", "value", "meaning", "allowed", box=None)
    for row in describe(find(name).options):
        table.add_row(*row)
    plain_console().print(table)


def origin(
    name: str,
    changes: list[str] | None = None,
    data: Path | None = None,
    new_name: str | None = None,
) -> str:
    """Return the command line that makes a model, for the header of its files."""
    words = ["lglstm", "models", "generate", name, *(["--data", str(data)] if data else [])]
    for change in changes or []:
        words += ["--set", change]
    return shlex.join(words + (["--name", new_name] if new_name else []))


@command.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def summary(name: str, as_json: bool) -> None:
    """Show layers, map sizes, weights, multiply-adds and memory of a generated model.

    NAME is a folder of models/, variants included, or the path of a prototxt. Multiply-adds are
    those of one forward pass of one image; weights in brackets are shared with an earlier layer.

    \b
    Examples:
      lglstm models summary horse
      lglstm models summary horse --json
      lglstm models summary nets/own.prototxt
    """
    from lglstm.prototxt_gen.summary import summarize

    measured = summarize(find_model(name, "train"))
    if as_json:
        click.echo(json.dumps(measured.as_dict(), indent=2))
    else:
        print_summary(measured.as_dict())


@command.command("draw")
@click.argument("name")
@click.option(
    "-o",
    "--output",
    type=FilePath(),
    help="File ending in .png, .svg or .pdf.  [default: runs/NAME_net.png]",
)
def draw_model(name: str, output: Path | None) -> None:
    """Draw a generated model: backbone, transition, LG-LSTM layers, predictions and losses.

    \b
    Examples:
      lglstm models draw horse
      lglstm models draw atr -o atr.svg
    """
    from lglstm.prototxt_gen.draw import draw
    from lglstm.prototxt_gen.summary import summarize

    output = output or Path("runs") / f"{name}_net.png"
    if output.suffix not in (".png", ".svg", ".pdf"):
        raise click.UsageError(f"--output {output}: give a file that ends in .png, .svg or .pdf")
    draw(summarize(find_model(name, "train")), output)
    click.echo(output)


def print_summary(measured: dict[str, Any]) -> None:
    """Print the dictionary of a summary as two tables and a line of totals."""
    table = Table("layer", "type", "top", "weights", "multiply-adds", "lr_mult", box=None)
    for column in table.columns[3:5]:
        column.justify = "right"
    for row in measured["layers"]:
        shape = "×".join(map(str, next(iter(row["tops"].values()), [])))
        shared = f"[{row['shared_weights']:,}]" if row["shared_weights"] else ""
        table.add_row(
            row["name"],
            row["type"],
            shape,
            f"{row['weights']:,}" if row["weights"] else Text(shared),
            f"{row['multiply_adds_per_image']:,}" if row["multiply_adds_per_image"] else "",
            " ".join(f"{rate:g}" for rate in row["lr_mult"]),
        )
    groups = Table("part", "layers", "weights", "multiply-adds", box=None)
    for column in groups.columns[1:]:
        column.justify = "right"
    for part, total in measured["groups"].items():
        groups.add_row(part, *(f"{value:,}" for value in total.values()))
    console = plain_console()
    console.print(table, "", groups)
    console.print(
        f"\n{measured['model']}: {measured['weights']:,} weights; "
        f"{measured['multiply_adds_per_image'] / 1e9:.2f} G multiply-adds per image; training with "
        f"batch {measured['batch']}: {gib(measured['activation_bytes'])} of activations, "
        f"{gib(measured['gpu_bytes'])} with weights, momentum and the test net",
        soft_wrap=True,
    )


def gib(size: int) -> str:
    """Write a number of bytes for people."""
    return f"{size / 2**30:.2f} GiB"
