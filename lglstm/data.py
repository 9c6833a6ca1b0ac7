"""`lglstm data`: turn downloaded sets into images, label PNGs and lists; check and show them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data_prep.prepare import Plan, prepare

SOURCE = click.argument("source", type=click.Path(path_type=Path))
DESTINATION = click.argument("dest", type=click.Path(path_type=Path))
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group(context_settings={"max_content_width": 100})
def command() -> None:
    """Prepare, check and show data sets.

    Every set ends as DEST/images, DEST/labels (single-channel ids with a palette), one list per
    split with a line `images/a.jpg labels/a.png` per example, and DEST/dataset.json.

    \b
    lglstm data fashionista fashionista_v0.2.mat data/fashionista
    lglstm data check data/fashionista
    lglstm data show data/fashionista/train.txt
    """


def preparing(function: Callable[..., Plan]) -> Callable[..., None]:
    """Give a command that returns a Plan the options and the run that all sets share."""

    @SOURCE
    @DESTINATION
    @click.option("--workers", type=click.IntRange(1), help="Processes; by default one per core.")
    @click.option("--scheduler", metavar="ADDRESS", help="Run on the Dask cluster at this address.")
    @click.option(
        "--skip-bad", is_flag=True, help="Leave bad inputs out; DEST/skipped.txt has why."
    )
    @AS_JSON
    def run(source, dest, workers, scheduler, skip_bad, as_json, **options: Any) -> None:
        plan = function(source, **options)
        with _progress(plan.name) as on_progress:
            summary = prepare(
                plan,
                dest,
                workers=workers,
                scheduler=scheduler,
                skip_bad=skip_bad,
                on_progress=on_progress,
            )
        click.echo(json.dumps(summary) if as_json else _told(summary, dest))

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__click_params__ = getattr(function, "__click_params__", []) + run.__click_params__
    return run


class _progress:
    """A progress bar with the time left, on the error stream so that --json stays clean."""

    def __init__(self, what: str) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.task = self.bar.add_task(what, total=None)

    def __enter__(self) -> Callable[[int, int], None]:
        self.bar.start()
        return lambda done, total: self.bar.update(self.task, completed=done, total=total)

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()


def _told(summary: dict[str, Any], dest: Path) -> str:
    """Return the summary of a finished set as text."""
    counts = [f"{count} {split}" for split, count in summary["examples"].items()]
    lines = [f"{dest}: {', '.join(counts)} examples with the labels of '{summary['label_set']}'"]
    lines += [f"  {count} {what}" for what, count in summary["counts"].items()]
    lines += [f"  {note}" for note in summary["notes"]]
    if summary["skipped"]:
        lines.append(f"  {summary['skipped']} bad inputs left out, see {dest / 'skipped.txt'}")
    return "\n".join([*lines, f"next: lglstm data check {dest}"])


@command.command()
@click.option("--labels", type=click.Choice(["18", "56"]), default="18", show_default=True)
@preparing
def fashionista(source: Path, labels: str) -> Plan:
    """SOURCE is fashionista_v0.2.mat: 685 photos, 456 to train and 229 to test.

    The 18 labels are those of the ATR set, with left/right and face derived from the annotated
    pose (docs/data.md); --labels 56 keeps the original names.

    \b
    lglstm data fashionista fashionista_v0.2.mat data/fashionista
    """
    from data_prep import fashionista as reader

    return reader.plan(source, int(labels))
