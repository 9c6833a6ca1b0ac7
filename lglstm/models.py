"""`lglstm models`: generate the nets of the paper and look inside them."""

from __future__ import annotations

import shlex

import click
from rich.console import Console
from rich.table import Table

from common.errors import InputError


@click.group()
def command() -> None:
    """Generate and describe the nets in models/."""


@command.command("list")
def list_models() -> None:
    """List the models: what each is, and where the paper reports it."""
    from prototxt_gen.registry import MODELS

    table = Table("model", "what", "paper", box=None)
    for name, model in MODELS.items():
        table.add_row(name, model.what, model.paper)
    Console().print(table)


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
@click.option("--name", "new_name", help="Name of the variant that --set or --engine makes.")
@click.option("--engine", type=click.Choice(["caffe", "python"]), help="Short for --set engine=….")
def generate(
    names: tuple[str, ...],
    check: bool,
    settings: tuple[str, ...],
    new_name: str | None,
    engine: str | None,
) -> None:
    """Write models/NAME/{train,test,deploy,solver}.prototxt; all models without NAME.

    \b
    Examples:
      lglstm models generate
      lglstm models generate --check
      lglstm models generate horse --set share_spatial=false --name horse_distinct
      lglstm models generate demo --engine python --name demo_python
    """
    from prototxt_gen import files
    from prototxt_gen.options import with_settings
    from prototxt_gen.registry import MODELS, find

    changes = [*settings, *([f"engine={engine}"] if engine else [])]
    if changes or new_name:
        if len(names) != 1 or not new_name or new_name in MODELS:
            raise InputError(
                "--set and --engine make a variant of one model under a new name; write: "
                "lglstm models generate MODEL --set option=value --name NEW"
            )
        options = with_settings(find(names[0]).options, changes)
        jobs = [(new_name, options, origin(names[0], changes, new_name))]
    else:
        jobs = [(name, find(name).options, origin(name)) for name in names or MODELS]
    if check:
        out_of_date = [path for name, *job in jobs for path in files.stale(job[0], name, job[1])]
        if out_of_date:
            raise InputError(
                f"out of date: {', '.join(map(str, out_of_date))}; run lglstm models generate"
            )
        click.echo(f"{len(jobs)} models are up to date")
        return
    for name, options, command_line in jobs:
        for path in files.write(options, name, command_line):
            click.echo(path)


def origin(name: str, changes: list[str] | None = None, new_name: str | None = None) -> str:
    """Return the command line that makes a model, for the header of its files."""
    words = ["lglstm", "models", "generate", name]
    for change in changes or []:
        words += ["--set", change]
    return shlex.join(words + (["--name", new_name] if new_name else []))
