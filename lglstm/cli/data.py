"""`lglstm data`: turn downloaded sets into images, label PNGs and lists; check and show them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.table import Table

from lglstm.cli.group import Group
from lglstm.cli.options import SEED, WORKERS, Choice, FiniteRange
from lglstm.cli.paths import FilePath
from lglstm.common.console import plain_console
from lglstm.common.errors import InputError
from lglstm.common.labels import IGNORE, LABEL_SETS, MOST_CLASSES
from lglstm.common.labels import label_set as named
from lglstm.common.progress import progress_bar
from lglstm.data_prep.prepare import DataSet, prepare

DESTINATION = click.argument("dest", type=FilePath())
SHARE = FiniteRange(0, 1, max_open=True)
PICTURES = click.IntRange(1, 1_000_000)
Command = TypeVar("Command", bound=Callable[..., Any])
LABEL_SET = "Label set, a name or a JSON file, when dataset.json is missing."
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group(cls=Group, context_settings={"max_content_width": 100})
def command() -> None:
    """Prepare, check and show data sets.

    Every set ends as DEST/images, DEST/labels (single-channel ids with a palette), one list per
    split with a line `images/a.jpg labels/a.png` per example, and DEST/dataset.json.

    \b
    lglstm data fashionista fashionista_v0.2.mat data/fashionista
    lglstm data check data/fashionista
    lglstm data show data/fashionista/train.txt
    """


def preparing(function: Callable[..., DataSet]) -> Callable[..., None]:
    """Give a command that returns a DataSet from SOURCE what all sets share: see `_preparing`."""
    return _preparing(function, ("source",))


def _preparing(function: Callable[..., DataSet], sources: tuple[str, ...]) -> Callable[..., None]:
    """Add the options and the run that all sets share; `sources` are the arguments before DEST."""

    @DESTINATION
    @click.option("--workers", type=WORKERS, help="Processes; by default one per core.")
    @click.option("--scheduler", metavar="ADDRESS", help="Run on the Dask cluster at this address.")
    @click.option(
        "--skip-bad", is_flag=True, help="Leave bad inputs out; DEST/skipped.txt says why."
    )
    @AS_JSON
    def run(
        dest: Path,
        workers: int | None,
        scheduler: str | None,
        skip_bad: bool,
        as_json: bool,
        **options: Any,
    ) -> None:
        try:
            data_set = function(**options)
        except OSError as error:
            raise InputError(
                f"{error.filename}: cannot be read ({error.strerror}); check the path and its "
                "permissions"
            ) from error
        with progress_bar(data_set.name) as on_progress:
            summary = prepare(
                data_set,
                dest,
                workers=workers,
                scheduler=scheduler,
                skip_bad=skip_bad,
                on_progress=on_progress,
            )
        click.echo(json.dumps(summary) if as_json else _told(summary, dest))

    command: Any = run
    for name in reversed(sources):
        command = click.argument(name, type=FilePath())(command)
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__click_params__ = getattr(function, "__click_params__", []) + command.__click_params__
    return command


def _told(summary: dict[str, Any], dest: Path) -> str:
    """Return the summary of a finished set as text."""
    lines = [f"{dest}: labels of '{summary['label_set']['name']}'"]
    for split, count in summary["examples"].items():
        published = summary["published"].get(split)
        lines.append(f"  {count} {split}" + (f" (published: {published})" if published else ""))
    lines += [f"  {count} {what}" for what, count in summary["counts"].items()]
    lines += [f"  {note}" for note in summary["notes"]]
    if summary["skipped"]:
        lines.append(f"  {summary['skipped']} bad inputs left out, see {dest / 'skipped.txt'}")
    if empty := [split for split, count in summary["examples"].items() if not count]:
        lines.append(f"  nothing to learn: no example for {', '.join(empty)}; check the source")
    return "\n".join([*lines, f"next: lglstm data check {dest}"])


@command.command(short_help="685 street photos, labels from the pose.")
@click.option("--labels", type=Choice(["18", "56"]), default="18", show_default=True)
@preparing
def fashionista(source: Path, labels: str) -> DataSet:
    """SOURCE is fashionista_v0.2.mat: 685 photos, 456 to train and 229 to test.

    The 18 labels are those of the ATR set, with left/right and face derived from the annotated
    pose (docs/data.md); --labels 56 keeps the original names.

    \b
    lglstm data fashionista fashionista_v0.2.mat data/fashionista
    """
    from lglstm.data_prep import fashionista as reader

    return reader.data_set(source, int(labels))


def _lists(*splits: str) -> Callable[[Command], Command]:
    """Add an option per split that takes a list file."""

    def add(function: Command) -> Command:
        for name in reversed(splits):
            text = f"File with the {name} names, one a line; give all lists or none."
            option = click.option(f"--{name}", type=FilePath(), help=text)
            function = option(function)
        return function

    return add


def _given(**lists: Path | None) -> dict[str, Path]:
    """Return the lists that were given; a training list alone would leave nothing to test on."""
    given = {name: path for name, path in lists.items() if path}
    if given and not {"train", "test"} <= given.keys():
        raise click.UsageError("give --train and --test together: a set needs both lists")
    return given


@command.command("horse-cow", short_help="VOC 2010 photos with the parts of PASCAL-Part.")
@click.option("--animal", type=Choice(["horse", "cow"]), default="horse", show_default=True)
@click.option("--annotations", type=FilePath(), help="Its folder, if it is not in SOURCE.")
@_lists("train", "test")
@click.option("--neck", type=Choice(["body", "head"]), default="body", show_default=True)
@click.option(
    "--others",
    type=Choice(["ignore", "background"]),
    default="ignore",
    show_default=True,
    help="What becomes of other objects in the picture.",
)
@click.option(
    "--context",
    type=FiniteRange(0, 10),
    default=0.2,
    show_default=True,
    help="How far the crop extends beyond the animal's box, as a fraction of its sides.",
)
@click.option("--whole", is_flag=True, help="Keep whole photos instead of cropping.")
@click.option(
    "--smallest",
    type=click.IntRange(1, 1 << 16),
    default=50,
    show_default=True,
    help="Without lists: leave out animals whose longer side has fewer pixels.",
)
@preparing
def horse_cow(
    source: Path,
    annotations: Path | None,
    train: Path | None,
    test: Path | None,
    context: float,
    whole: bool,
    **options: Any,
) -> DataSet:
    """SOURCE contains VOC 2010's JPEGImages and PASCAL-Part's Annotations_Part.

    One example per animal, with the labels background, head, body, leg, tail. A folder of merged
    label maps (PNG, or .mat with one array of ids) works in place of PASCAL-Part.

    \b
    lglstm data horse-cow VOC2010 data/horse
    lglstm data horse-cow VOC2010 data/cow --animal cow --train train_ids.txt --test test_ids.txt
    """
    from lglstm.data_prep import horse_cow as reader

    chosen = reader.HorseCowOptions(context=None if whole else context, **options)
    return reader.data_set(source, chosen, annotations, _given(train=train, test=test))


@command.command(short_help="Human parsing, 7,700 photos or 10,000 more.")
@click.option("--more", is_flag=True, help="Add the dataset10k_ photos to the training part.")
@_lists("train", "val", "test")
@click.option(
    "--without",
    type=FilePath(),
    metavar="DEST",
    help="A prepared set (Fashionista); do not train on its test photos, found by what they show.",
)
@preparing
def atr(source: Path, more: bool, without: Path | None, **lists: Path | None) -> DataSet:
    """SOURCE is the folder `humanparsing` with JPEGImages and SegmentationClassAug.

    \b
    lglstm data atr humanparsing data/atr
    lglstm data atr humanparsing data/atr_more --more
    lglstm data atr humanparsing data/atr_ids --train train_id.txt --test test_id.txt \\
        --without data/fashionista
    """
    from lglstm.data_prep import atr as reader

    return reader.data_set(source, more, _given(**lists), without)


def _pairs_of_two_folders(function: Callable[..., DataSet]) -> Callable[..., None]:
    return _preparing(function, ("images", "labels"))


@command.command(short_help="Any photos with their label maps.")
@click.option(
    "--labels", "label_set", metavar="NAME|FILE",
    help=f"Label set: {', '.join(LABEL_SETS)}, or a JSON file (docs/labels.md).",
)  # fmt: skip
@click.option(
    "--classes", type=click.IntRange(2, MOST_CLASSES), metavar="N",
    help="Instead: N classes without names, ids 0 to N - 1.",
)  # fmt: skip
@click.option("--binary", is_flag=True, help="The label maps are masks of 0 and 255.")
@click.option(
    "--colors", type=FilePath(), metavar="FILE",
    help='The label maps are color pictures; FILE is JSON, {"leaf": [0, 128, 0], …}.',
)  # fmt: skip
@click.option(
    "--ignore", type=click.IntRange(0, 255), default=255, show_default=True, metavar="ID",
    help="The id that means unknown in the label maps.",
)  # fmt: skip
@click.option("--suffix", default="", help="What their names have after the photos', as _mask.")
@_lists("train", "val", "test")
@click.option("--test-share", type=SHARE, default=0.2, show_default=True, help="Without lists.")
@click.option("--val-share", type=SHARE, default=0.0, show_default=True, help="Without lists.")
@click.option(
    "--seed", type=SEED, default=0, show_default=True,
    help="Another seed gives another split.",
)  # fmt: skip
@_pairs_of_two_folders
def pairs(
    images: Path,
    labels: Path,
    label_set: str | None,
    classes: int | None,
    colors: Path | None,
    train: Path | None,
    val: Path | None,
    test: Path | None,
    **options: Any,
) -> DataSet:
    """Prepare the photos in IMAGES with the label maps of the same names in LABELS.

    Label maps are PNGs whose values are ids, palette or gray, as large as their photos; or masks
    (--binary), or color pictures (--colors). Without lists, the pairs are split by the hash of
    their names.

    \b
    lglstm data pairs photos ids data/leaves --labels leaves.json
    lglstm data pairs photos masks data/cats --binary --suffix _mask --test-share 0.1
    lglstm data pairs photos painted data/rooms --colors rooms.json
    """
    from lglstm.data_prep import pairs as reader

    if colors and options["ignore"] != IGNORE:
        raise click.UsageError('--ignore is an id; name its color "ignore" in the file of --colors')
    asked = named(label_set) if label_set else None
    known, by_color = reader.classes_of(asked, classes, options["binary"], colors)
    chosen = reader.PairsOptions(labels=known, colors=by_color, **options)
    return reader.data_set(images, labels, chosen, _given(train=train, val=val, test=test))


@command.command(short_help="Draw animals to try everything with.")
@DESTINATION
@click.option("--train", "count_train", type=PICTURES, default=300, show_default=True)
@click.option("--test", "count_test", type=PICTURES, default=100, show_default=True)
@click.option("--size", type=click.IntRange(33, 1025), default=97, show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--animal", type=Choice(["horse", "cow"]), default="horse", show_default=True)
def synthetic(
    dest: Path, count_train: int, count_test: int, size: int, seed: int, animal: str
) -> None:
    """Draw quadrupeds in the layout of VOC and PASCAL-Part, for `lglstm data horse-cow`.

    \b
    lglstm data synthetic drawn --train 300 --test 100
    lglstm data horse-cow drawn data/drawn --whole \\
        --train drawn/ImageSets/train.txt --test drawn/ImageSets/test.txt
    """
    from lglstm.data_prep.synthetic import make_synthetic

    with progress_bar("synthetic") as on_progress:
        make_synthetic(dest, count_train, count_test, size, seed, animal, on_progress)
    click.echo(f"{dest}: {count_train} training and {count_test} test pictures of {size} × {size}")


@command.command(short_help="Read every file of a set and say what is wrong.")
@DESTINATION
@click.option("--label-set", metavar="NAME|FILE", help=LABEL_SET)
@click.option("--workers", type=WORKERS, help="Processes; by default one per core.")
@click.option("--sheet", type=FilePath(), help="Where to draw samples.")
@AS_JSON
def check(
    dest: Path, label_set: str | None, workers: int | None, sheet: Path | None, as_json: bool
) -> None:
    """Read every file of a prepared set and say what is wrong; exit with 1 if anything is.

    \b
    lglstm data check data/fashionista
    lglstm data check data/fashionista --sheet samples.png --json
    """
    from lglstm.data_prep import check as checking

    labels = named(label_set) if label_set else checking.label_set_of(dest)
    with progress_bar("check") as on_progress:
        found = checking.check(dest, labels, workers=workers, on_progress=on_progress)
    if sheet and found["ok"]:
        checking.write_samples(sheet, dest, labels)
    if as_json:
        click.echo(json.dumps(found))
    else:
        _print_findings(found)
        if sheet and found["ok"]:
            click.echo(f"samples: {sheet}")
    if not found["ok"]:
        raise SystemExit(1)


def _print_findings(found: dict[str, Any]) -> None:
    """Print classes, lists and problems."""
    table = Table(title=f"{found['set']}, labels of '{found['label_set']}'")
    for heading in ("id", "class"):
        table.add_column(heading)
    for split, described in found["lists"].items():
        table.add_column(f"{split}: images of {described['examples']:,}", justify="right")
        table.add_column("pixels", justify="right")
    totals = {split: max(1, _pixels(found, split)) for split in found["lists"]}
    for entry in found["classes"]:
        cells = []
        for split, total in totals.items():
            cells += [f"{entry['images'][split]:,}", f"{entry['pixels'][split] / total:.3%}"]
        table.add_row(str(entry["id"]), entry["name"], *cells)
    console = plain_console()
    console.print(table)
    for split, described in found["lists"].items():
        click.echo(f"{split}.txt: {described['examples']} examples, SHA-256 {described['sha256']}")
    for problem in found["problems"][:20]:
        click.echo(f"problem: {problem}")
    if len(found["problems"]) > 20:
        click.echo(f"and {len(found['problems']) - 20} more problems; --json lists them all")
    click.echo("ok" if found["ok"] else "not ok")


def _pixels(found: dict[str, Any], split: str) -> int:
    return sum(entry["pixels"][split] for entry in found["classes"])


@command.command(short_help="Draw examples as the net sees them.")
@click.argument("list_file", metavar="LIST", type=FilePath())
@click.option("--augmented", is_flag=True, help="Show random versions as training makes them.")
@click.option("--no-photos", is_flag=True, help="Show the labels alone, as may be published.")
@click.option("--net", type=FilePath(), help="Use size and changes of this net.")
@click.option(
    "--size", type=(int, int), default=(321, 321), show_default=True, help="Height, width."
)
@click.option("--count", type=click.IntRange(1, 200), default=12, show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--label-set", metavar="NAME|FILE", help=LABEL_SET)
@click.option(
    "-o",
    "--output",
    type=FilePath(),
    default=Path("runs/examples.png"),
    show_default=True,
    help="The sheet to draw.",
)
def show(
    list_file: Path,
    augmented: bool,
    no_photos: bool,
    net: Path | None,
    size: tuple[int, int],
    count: int,
    seed: int,
    label_set: str | None,
    output: Path,
) -> None:
    """Draw examples of a list as the net sees them, photo and labels side by side.

    \b
    lglstm data show data/horse/train.txt --augmented
    lglstm data show data/atr/train.txt --augmented --net models/atr/train.prototxt
    lglstm data show data/fashionista/test.txt --no-photos
    """
    from lglstm.data_prep import check as checking
    from lglstm.data_prep import show as showing

    if not list_file.is_file():
        raise InputError(f"{list_file}: no such list; name the train.txt or test.txt of a set")
    labels = named(label_set) if label_set else checking.label_set_of(list_file.parent)
    options = (
        showing.options_of_net(net, list_file, seed)
        if net
        else showing.options_for(list_file, labels, size, seed)
    )
    showing.write_examples(output, options, labels, count, augmented, not no_photos)
    click.echo(f"examples: {output}")
