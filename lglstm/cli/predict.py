"""`lglstm predict`: parse photos into part labels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from lglstm.cli.options import (
    BATCH,
    SECONDS,
    backend_option,
    complete_model,
    device_options,
    labels_option,
    output_option,
    trust_option,
    warn,
    weights_option,
)
from lglstm.cli.paths import FilePath

if TYPE_CHECKING:
    from lglstm.evaluation.predict import ParsedCollection

EXAMPLES = """\b
Examples:
  lglstm predict horse horse.jpg
  lglstm predict horse horse.jpg --weights runs/horse_iter_8820.caffemodel
  lglstm predict horse.onnx horse.jpg trot.mp4
  lglstm predict atr photos/ --weights runs/atr.caffemodel -o parsed/ --batch 8
  lglstm predict atr photos/ --weights /nfs/atr.caffemodel -o /nfs/parsed \\
      --scheduler tcp://10.0.0.1:8786
"""

CAMERA = click.IntRange(0, 99)
"""OpenCV takes 100 and more for the number of a driver and of its camera."""

FEW = 12
"""Up to so many photos the parts of each are printed."""


@click.command(epilog=EXAMPLES)
@click.argument("model", shell_complete=complete_model)
@click.argument("photos", metavar="IMAGE…|DIR|VIDEO", nargs=-1, type=FilePath())
@click.option("--camera", metavar="N", type=CAMERA, help="Parse what it sees.")
@click.option(
    "--seconds", metavar="S", type=SECONDS,
    help="Stop after so much of each video, or of the camera's recording (else: Ctrl-C).",
)  # fmt: skip
@weights_option
@backend_option
@output_option("Where the results go (default: runs/predict/…).")
@labels_option
@click.option("--scores", is_flag=True, help="Also write score maps (NumPy, float32, C × h × w).")
@click.option("--no-overlays", is_flag=True, help="Write label maps and areas only.")
@click.option(
    "--batch", metavar="N", type=BATCH, default=1, show_default=True,
    help="Photos in one pass of the net.",
)  # fmt: skip
@device_options
@trust_option
@click.option(
    "--scheduler", metavar="ADDRESS",
    help="Spread the photos over the workers of this Dask scheduler; all must see the same paths.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the areas of all photos as JSON.")
@click.pass_context
def command(context: click.Context, as_json: bool, **options: Any) -> None:
    """Parse photos, all photos in folders, or videos, with MODEL.

    MODEL is a name in models/, the path of a deploy net, or a file that holds its net: .onnx, or
    what `lglstm convert --to pytorch` makes.

    Writes for each photo a palette PNG of label ids at the photo's own size and an overlay with a
    legend; areas.csv holds the share of each part in each photo. Photos whose content was parsed
    before by the same net and weights are not parsed again, so giving the same command again
    continues an interrupted run. Photos that cannot be read are reported and skipped; the exit code
    is then 1. Of a video, and of what a camera sees, the parts of every frame go into a video and a
    CSV file.
    """
    from lglstm.evaluation.predict import PredictOptions, predict

    collection = predict(PredictOptions(**options), warn)
    if as_json:
        click.echo(json.dumps(as_dict(collection), indent=1))
    else:
        show(collection)
    for photo in collection.unreadable:
        click.echo(f"not parsed: {photo.error}", err=True)
    context.exit(1 if collection.unreadable else 0)


def as_dict(collection: ParsedCollection) -> list[dict[str, Any]]:
    """Each video with its files; each photo with its own and the share of every part, 0 to 1."""
    names = collection.files.labels.names
    videos = [
        {"video": x.source, "overlay": str(x.video), "areas": str(x.table), "frames": x.frames}
        for x in collection.videos
    ]
    return videos + [
        {"photo": str(parsed.photo.path), "error": parsed.error}
        if parsed.error
        else {
            "photo": str(parsed.photo.path),
            "labels": str(collection.files.label(parsed.photo)),
            "areas": dict(zip(names, parsed.shares, strict=True)),
        }
        for parsed in collection.photos
    ]


def show(collection: ParsedCollection) -> None:
    """Print the parts of a few photos, and where everything is."""
    from lglstm.common.console import plain_console
    from lglstm.evaluation.tables import areas_table

    console = plain_console(highlight=False)
    parsed, files = collection.parsed, collection.files
    if 0 < len(parsed) <= FEW:
        console.print(areas_table(parsed, files.labels.names))
    if collection.photos:
        console.print(f"{len(parsed):,} photos parsed: {files.folder}", soft_wrap=True)
    for video in collection.videos:
        console.print(
            f"{video.frames:,} frames of {video.source} parsed: {video.video}, {video.table}",
            soft_wrap=True,
        )
