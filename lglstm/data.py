"""`lglstm data`: turn downloaded sets into images, label PNGs and lists; check and show them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from common.errors import InputError
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
    lines = [f"{dest}: labels of '{summary['label_set']}'"]
    for split, count in summary["examples"].items():
        published = summary["published"].get(split)
        lines.append(f"  {count} {split}" + (f" (published: {published})" if published else ""))
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


def _lists(*splits: str) -> Callable[[Callable], Callable]:
    """Add an option per split that takes a list file."""

    def add(function: Callable) -> Callable:
        for name in reversed(splits):
            text = f"List of the {name} names; give all lists or none."
            option = click.option(f"--{name}", type=click.Path(path_type=Path), help=text)
            function = option(function)
        return function

    return add


def _given(**lists: Path | None) -> dict[str, Path]:
    """Return the lists that were given; a training list alone would leave nothing to test on."""
    given = {name: path for name, path in lists.items() if path}
    if given and not {"train", "test"} <= given.keys():
        raise InputError("give --train and --test together: a set needs both lists")
    return given


@command.command("horse-cow")
@click.option("--animal", type=click.Choice(["horse", "cow"]), default="horse", show_default=True)
@click.option("--annotations", type=click.Path(path_type=Path), help="Folder, when not in SOURCE.")
@_lists("train", "test")
@click.option("--neck", type=click.Choice(["body", "head"]), default="body", show_default=True)
@click.option(
    "--others",
    type=click.Choice(["ignore", "background"]),
    default="ignore",
    show_default=True,
    help="What other objects in the picture become.",
)
@click.option(
    "--context",
    type=click.FloatRange(0, 10),
    default=0.2,
    show_default=True,
    help="How far the crop reaches beyond the animal on each side, in sides of its box.",
)
@click.option("--whole", is_flag=True, help="Keep whole photos instead of cropping.")
@click.option(
    "--smallest",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    help="Without lists: leave out animals whose longer side has fewer pixels.",
)
@preparing
def horse_cow(source: Path, annotations, train, test, context, whole, **options: Any) -> Plan:
    """SOURCE has VOC 2010's JPEGImages and PASCAL-Part's Annotations_Part in it.

    One example per animal, with the labels background, head, body, leg, tail. A folder of merged
    label maps (PNG, or .mat with one array of ids) works in place of PASCAL-Part.

    \b
    lglstm data horse-cow VOC2010 data/horse
    lglstm data horse-cow VOC2010 data/cow --animal cow --train train_ids.txt --test test_ids.txt
    """
    from data_prep import horse_cow as reader

    chosen = reader.Options(context=None if whole else context, **options)
    return reader.plan(source, chosen, annotations, _given(train=train, test=test))


@command.command()
@click.option("--more", is_flag=True, help="Add the dataset10k_ photos to the training part.")
@_lists("train", "val", "test")
@preparing
def atr(source: Path, more: bool, **lists: Path | None) -> Plan:
    """SOURCE is the folder `humanparsing` with JPEGImages and SegmentationClassAug.

    \b
    lglstm data atr humanparsing data/atr
    lglstm data atr humanparsing data/atr_more --more
    """
    from data_prep import atr as reader

    return reader.plan(source, more, _given(**lists))


@command.command()
@DESTINATION
@click.option("--train", "count_train", type=click.IntRange(1), default=300, show_default=True)
@click.option("--test", "count_test", type=click.IntRange(1), default=100, show_default=True)
@click.option("--size", type=click.IntRange(33, 1025), default=97, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--animal", type=click.Choice(["horse", "cow"]), default="horse", show_default=True)
def synthetic(dest: Path, count_train: int, count_test: int, size: int, seed: int, animal) -> None:
    """Draw quadrupeds in the layout of VOC and PASCAL-Part, for `lglstm data horse-cow`.

    \b
    lglstm data synthetic drawn --train 300 --test 100
    lglstm data horse-cow drawn data/drawn --whole \\
        --train drawn/ImageSets/train.txt --test drawn/ImageSets/test.txt
    """
    from data_prep.synthetic import make_synthetic

    with _progress("synthetic") as on_progress:
        make_synthetic(dest, count_train, count_test, size, seed, animal, on_progress)
    click.echo(f"{dest}: {count_train} training and {count_test} test pictures of {size} × {size}")
