"""`lglstm predict`: parse photos into part labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from lglstm.cli.model_files import (
    choose_device,
    choose_labels,
    device_options,
    initial_layers_warning,
    labels_option,
    one_class_warning,
    progress_bar,
    warn,
)
from lglstm.common.errors import InputError
from lglstm.common.models import find_model

EXAMPLES = """\b
Examples:
  lglstm predict horse horse.jpg --weights runs/horse_iter_8820.caffemodel
  lglstm predict atr photos/ --weights runs/atr.caffemodel --out parsed/ --batch 8
  lglstm predict atr photos/ --weights /nfs/atr.caffemodel --out /nfs/parsed \\
      --scheduler tcp://10.0.0.1:8786
"""

FEW = 12
"""Up to so many photos the parts of each are printed."""

CHUNK = 8
"""Photos that a Dask worker gets at a time."""


@click.command(epilog=EXAMPLES)
@click.argument("model")
@click.argument("photos", metavar="IMAGE…|DIR", nargs=-1, required=True, type=Path)
@click.option("--weights", metavar="FILE", type=Path, required=True, help="Trained weights.")
@click.option(
    "--out", metavar="DIR", type=Path, help="Where the results go (default: runs/predict/MODEL)."
)
@labels_option
@click.option("--scores", is_flag=True, help="Also write score maps (NumPy, float32, C × h × w).")
@click.option("--no-overlays", is_flag=True, help="Write label maps and areas only.")
@click.option(
    "--batch", metavar="N", type=click.IntRange(min=1), default=1, show_default=True,
    help="Photos in one pass of the net.",
)  # fmt: skip
@device_options
@click.option(
    "--scheduler", metavar="ADDRESS",
    help="Spread the photos over the workers of this Dask scheduler; all must see the same paths.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the areas of all photos as JSON.")
@click.pass_context
def command(context: click.Context, as_json: bool, **options: object) -> None:
    """Parse photos, or all photos in folders, with MODEL.

    Writes for each photo a palette PNG of label ids at the photo's own size and an overlay with a
    legend; areas.csv holds the share of each part in each photo. Photos that were parsed before
    with the same weights are not parsed again, so an interrupted run goes on when the same command
    is given again. Unreadable photos are named and passed over; then the exit code is 1.
    """
    outcome = predict(Request(**options))
    if as_json:
        click.echo(json.dumps(as_dict(outcome), indent=1))
    else:
        show(outcome)
    for result in outcome.bad:
        click.echo(f"not parsed: {result.error}", err=True)
    context.exit(1 if outcome.bad else 0)


@dataclass(frozen=True)
class Request:
    """The options of one call, as `lglstm predict --help` explains them."""

    model: str
    photos: tuple[Path, ...]
    weights: Path
    out: Path | None
    labels: str | None
    scores: bool
    no_overlays: bool
    batch: int
    gpu: int | None
    cpu: bool
    scheduler: str | None


@dataclass(frozen=True)
class Outcome:
    """What was parsed, and where it is."""

    results: list
    wanted: object

    @property
    def bad(self) -> list:
        return [result for result in self.results if result.error]


def predict(request: Request) -> Outcome:
    """Parse everything that is not parsed yet; write areas.csv last."""
    from lglstm.evaluation import photos, predictions
    from lglstm.evaluation.inference import Parser
    from lglstm.evaluation.scoring import check_classes

    collection = photos.find_photos(request.photos)
    model = find_model(request.model)
    gpu = choose_device(request.gpu, request.cpu)
    parser = Parser(model.file, request.weights, gpu=gpu, batch_size=request.batch)
    labels = choose_labels(request.labels, model, parser.num_classes, None)
    check_classes(parser, labels)
    if warning := initial_layers_warning(request.weights, parser.loaded):
        warn(warning)
    out = (request.out or Path("runs/predict", model.name)).resolve()
    wanted = photos.Wanted(out, labels, not request.no_overlays, request.scores)
    made_by = predictions.manifest(parser, labels)
    predictions.claim(out, made_by, ("labels", "overlays", "scores"))
    if request.scheduler:
        recipe = photos.Recipe(model.file.resolve(), request.weights.resolve(), gpu, request.batch)
        stream = _on_cluster(request.scheduler, recipe, wanted, collection)
    else:
        stream = photos.parse_photos(parser, collection, wanted)
    results = _collect(stream, collection)
    photos.write_areas(out, results, labels)
    _warn_of_one_class(results, labels)
    return Outcome(results, wanted)


def _on_cluster(address: str, recipe, wanted, collection: list) -> Iterator:
    """Parse chunks of the collection on Dask workers; yield the results as they come."""
    from lglstm.common.parallel import stream
    from lglstm.evaluation.photos import parse_chunk

    size = max(CHUNK, recipe.batch_size)
    chunks = (tuple(collection[k : k + size]) for k in range(0, len(collection), size))
    try:
        for _, results in stream(partial(parse_chunk, recipe, wanted), chunks, scheduler=address):
            yield from results
    except Exception as error:
        if type(error).__name__ != "KilledWorker":  # of distributed, which may not be installed
            raise
        raise InputError(
            f"{address}: workers died again and again on the same photos; give them more memory, "
            "then give the same command again (what is done is kept)"
        ) from error


def _collect(stream: Iterator, collection: list) -> list:
    """Follow the results with a progress bar; return them in the order of the collection."""
    by_name = {}
    with progress_bar("photos") as progress:
        progress(0, len(collection))
        for result in stream:
            by_name[result.photo.name] = result
            progress(len(by_name), len(collection))
    return [by_name[photo.name] for photo in collection]


def _warn_of_one_class(results: list, labels) -> None:
    pixels = [
        sum(column) for column in zip(*(r.pixels for r in results if not r.error), strict=True)
    ]
    if pixels and (sentence := one_class_warning(labels.names, pixels)):
        warn(sentence)


def as_dict(outcome: Outcome) -> list[dict]:
    """Each photo with its files and the share of every part, 0 to 1."""
    names = outcome.wanted.labels.names
    return [
        {"photo": str(result.photo.path), "error": result.error}
        if result.error
        else {
            "photo": str(result.photo.path),
            "labels": str(outcome.wanted.label(result.photo)),
            "areas": {
                name: count / sum(result.pixels)
                for name, count in zip(names, result.pixels, strict=True)
            },
        }
        for result in outcome.results
    ]


def show(outcome: Outcome) -> None:
    """Print the parts of a few photos, and where everything is."""
    from rich.console import Console

    from lglstm.evaluation.text import areas_table

    console = Console(highlight=False)
    good = [result for result in outcome.results if not result.error]
    if 0 < len(good) <= FEW:
        console.print(areas_table(good, outcome.wanted.labels.names))
    console.print(f"{len(good):,} photos parsed: {outcome.wanted.out}", soft_wrap=True)
