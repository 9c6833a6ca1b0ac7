"""`lglstm convert`: weights for other frameworks and back, each conversion with its proof."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from lglstm import __version__
from lglstm.cli.options import Choice, complete_model, labels_option
from lglstm.cli.paths import FilePath
from lglstm.common.console import plain_console, status_line
from lglstm.common.errors import InputError
from lglstm.common.labels import LabelSet
from lglstm.common.models import ModelFiles, find_model, find_weights
from lglstm.convert.options import PRECISIONS
from lglstm.evaluation.label_choice import known_labels

if TYPE_CHECKING:
    import numpy as np

    from lglstm.convert.options import ConvertOptions, Truth

TARGETS = ("pytorch", "onnx", "caffemodel", "hdf5", "npz", "safetensors", "web", "reference")

CALIBRATED = 100
"""The most photos that int8 is calibrated on: ranges hardly change with more."""

EXAMPLES = """\b
Examples:
  lglstm convert horse --to onnx
  lglstm convert horse runs/horse_iter_8820.caffemodel --to pytorch
  lglstm convert horse runs/horse_iter_8820.caffemodel --to onnx --any-size
  lglstm convert horse --to onnx --returns labels
  lglstm convert horse --to onnx --precision int8 --calibrate photos/ \\
      --test-list data/horse/test.txt
  lglstm convert horse runs/finetuned.safetensors --to caffemodel
  lglstm convert horse runs/horse_iter_8820.caffemodel --to web -o runs/horse_page
  lglstm convert net.prototxt net.caffemodel --to onnx
  lglstm convert net.prototxt net.caffemodel --list
"""


@click.command(epilog=EXAMPLES)
@click.argument("model", shell_complete=complete_model)
@click.argument("weights", type=FilePath(), required=False)
@click.option("--to", "target", type=Choice(TARGETS), help="The format to make.")
@click.option(
    "-o", "--output", type=FilePath(), metavar="PATH",
    help="Where to write (default: beside WEIGHTS, with the format's suffix; --to web: a folder).",
)  # fmt: skip
@click.option("--any-size", is_flag=True, help="onnx: leave height and width free.")
@click.option(
    "--preprocessing", is_flag=True,
    help="onnx: take (batch, H, W, 3) uint8 RGB; channel order and mean go into the graph.",
)  # fmt: skip
@labels_option
@click.option(
    "--license", metavar="TEXT", help="License of the weights, to be kept in ONNX and safetensors."
)
@click.option(
    "--returns", type=Choice(["scores", "labels"]), default="scores", show_default=True,
    help="onnx: labels: take (batch, H, W, 3) uint8 RGB of any size, return ids (batch, H, W).",
)  # fmt: skip
@click.option(
    "--precision", type=Choice(PRECISIONS), default="float32", show_default=True,
    help="Of the numbers: float16 for onnx, pytorch and safetensors, int8 for onnx.",
)  # fmt: skip
@click.option(
    "--calibrate", type=FilePath(), metavar="DIR|FILE", multiple=True,
    help="int8: photos to calibrate on, like those that it will see; a hundred are taken.",
)  # fmt: skip
@click.option(
    "--test-list", type=FilePath(), metavar="FILE",
    help="float16 and int8 onnx: measure the change of mean IoU on these lines of `photo label`.",
)  # fmt: skip
@click.option("--photo", type=FilePath(), metavar="FILE", help="The photo to compare on.")
@click.option(
    "--reference", type=FilePath(), metavar="FILE",
    help="Compare with what Caffe computed elsewhere (made by --to reference).",
)  # fmt: skip
@click.option("--no-verify", is_flag=True, help="Don't compare the result with Caffe.")
@click.option("--list", "list_layers", is_flag=True, help="Only list the layers of WEIGHTS.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    model: str,
    weights: Path | None,
    target: str | None,
    output: Path | None,
    any_size: bool,
    preprocessing: bool,
    labels: str | None,
    license: str | None,
    returns: str,
    precision: str,
    calibrate: tuple[Path, ...],
    test_list: Path | None,
    photo: Path | None,
    reference: Path | None,
    no_verify: bool,
    list_layers: bool,
    as_json: bool,
) -> None:
    """Convert WEIGHTS of MODEL, and keep the result only if it computes what Caffe does.

    MODEL is a name in models/, or the prototxt of any deploy net. WEIGHTS is a .caffemodel, .h5,
    .npz, .safetensors or .pth file, or a model's name (default: the trained weights in
    models/MODEL, with the result in runs/). Differences and versions go into a JSON file beside the
    result.
    """
    given = {
        "--any-size": any_size,
        "--preprocessing": preprocessing,
        "--labels": labels is not None,
        "--license": license is not None,
        "--returns": returns != "scores",
        "--precision": precision != "float32",
        "--calibrate": bool(calibrate),
        "--test-list": test_list is not None,
        "--photo": photo is not None,
        "--reference": reference is not None,
        "--no-verify": no_verify,
        "--to": target is not None,
        "--output": output is not None,
    }
    named = [option for option, is_given in given.items() if is_given]
    _check_usage(target, list_layers, precision, named)
    if target is None:
        _list(model, weights, as_json)
        return
    from lglstm.convert.options import ConvertOptions
    from lglstm.evaluation.collection import find_photos

    found = find_model(model)
    source = find_weights(weights, found)
    beside = source if source == weights else Path("runs", found.name)  # not into models/
    options = ConvertOptions(
        deploy=found.file,
        weights=source,
        format=target,
        output=_output(target, output, beside),
        verify=not no_verify,
        reference=reference,
        photo=photo,
        any_size=any_size,
        preprocessing=preprocessing,
        labels_for=functools.partial(_label_set, labels, found),
        license=license,
        labels=returns == "labels",
        precision=precision,
        calibration=_spread([x.path for x in find_photos(calibrate)] if calibrate else []),
        truth=_truth(test_list) if test_list else None,
        versions={"lg-lstm": __version__},
    )
    report = _convert(options)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _print(report)


def _label_set(
    asked: str | None, model: ModelFiles, classes: int, described: LabelSet | None
) -> LabelSet | None:
    """Of the result: asked for, or described by the weights, or the model's; None if unknown.

    Raises InputError for one that was asked for and does not fit the net.
    """
    if asked is None and described is not None:
        return described
    labels = known_labels(asked, model, classes, near=None)
    if labels is None or labels.num_classes == classes:
        return labels
    if asked is None:
        return None
    raise InputError(
        f"{model.file}: scores {classes} classes, but the label set {labels.name} has "
        f"{labels.num_classes}; choose the model's own with --labels"
    )


def _check_usage(target: str | None, list_layers: bool, precision: str, given: list[str]) -> None:
    """Raise UsageError for options that do not go together; `given` are those of a conversion."""
    if list_layers and given:
        raise click.UsageError(f"--list converts nothing; leave out {' and '.join(given)}")
    if target is None and not list_layers:
        raise click.UsageError(f"give --to FORMAT ({', '.join(TARGETS)}), or --list")
    for option in ("--any-size", "--preprocessing", "--returns"):
        if option in given and target != "onnx":
            raise click.UsageError(f"{option} is for --to onnx; leave it out")
    _check_precision(target, precision, given)
    for option, other, why in (
        ("--test-list", "--no-verify", "only the proof measures"),
        ("--photo", "--no-verify", "only the proof uses a photo"),
        ("--reference", "--no-verify", "only the proof uses a reference"),
        ("--photo", "--reference", "a reference holds its own photo"),
        ("--any-size", "--returns", "the graph stretches photos of any size to the net's"),
    ):
        if option in given and other in given:
            raise click.UsageError(f"{option} and {other} exclude each other: {why}")
    for option in ("--reference", "--no-verify"):
        if option in given and target == "reference":
            raise click.UsageError(f"{option} is for a conversion; leave it out")


def _check_precision(target: str | None, precision: str, given: list[str]) -> None:
    """Raise UsageError for a precision that the format has not, or that lacks what it needs."""
    from lglstm.convert.write import FORMATS

    able = [name for name, format_ in FORMATS.items() if precision in format_.precisions]
    if "--precision" in given and target not in able:
        raise click.UsageError(f"--precision {precision} is for --to {', '.join(able)}")
    if "--precision" in given and target != "onnx" and "--reference" in given:
        raise click.UsageError(
            "--precision and --reference exclude each other: a reference is of the weights before "
            "they are rounded"
        )
    if (precision == "int8") != ("--calibrate" in given):
        raise click.UsageError("--precision int8 and --calibrate DIR go together")
    if "--test-list" in given and (target != "onnx" or precision == "float32"):
        raise click.UsageError("--test-list is for --to onnx --precision float16 or int8")


def _spread(photos: list[Path]) -> list[Path]:
    """As many as a calibration needs, from all over the collection."""
    return photos[:: math.ceil(len(photos) / CALIBRATED) or 1]


def _truth(list_path: Path) -> Truth:
    """Photos and their label maps, scored as `lglstm evaluate` does."""
    from lglstm.common.images import read_label
    from lglstm.convert.options import Truth
    from lglstm.evaluation.image_list import read_image_list
    from lglstm.evaluation.metrics import confusion_matrix, iou, mean

    images = read_image_list(list_path)

    def confusion(index: int, ids: np.ndarray, classes: int) -> np.ndarray:
        return confusion_matrix(read_label(images[index].label, classes), ids, classes)

    return Truth([x.photo for x in images], confusion, lambda matrix: float(mean(iou(matrix))))


def _output(target: str, output: Path | None, weights: Path) -> Path:
    """Where to write: beside the weights, or as asked if the name says the format."""
    from lglstm.convert.write import FORMATS, default_output

    if output is None:
        suffix = "_page" if target == "web" else _suffixes(target)[0]
        return default_output(weights, suffix)
    every = {suffix for format_ in FORMATS.values() for suffix in format_.suffixes}
    if target == "web":
        if output.suffix.lower() in every:
            raise click.UsageError(
                f"--output {output}: --to web makes a folder; give {output.with_suffix('')}"
            )
    elif not output.name.lower().endswith(_suffixes(target)):
        stem = output.with_suffix("") if output.suffix.lower() in every else output
        more = "; --returns labels is what makes label maps" if str(output) == "labels" else ""
        raise click.UsageError(
            f"--output {output}: files of --to {target} end in "
            f"{' or '.join(_suffixes(target))}; give {stem}{_suffixes(target)[0]}{more}"
        )
    return output


def _suffixes(target: str) -> tuple[str, ...]:
    from lglstm.convert.write import FORMATS, REFERENCE_SUFFIXES

    return REFERENCE_SUFFIXES if target == "reference" else FORMATS[target].suffixes


def _convert(options: ConvertOptions) -> dict[str, Any]:
    """Make what options.format asks for; the report, with the `output` that it is about."""
    from lglstm.convert import conversion, page

    with status_line() as say:
        if options.format == "reference":
            report = conversion.make_reference(options, say)
        elif options.format == "web":
            model = options.output / page.MODEL
            as_onnx = dataclasses.replace(options, format="onnx", output=model)
            report = page.build_page(as_onnx, say)
        else:
            report = conversion.convert(options, say)
    return {"output": str(options.output)} | report


def _print(report: dict[str, Any]) -> None:
    console = plain_console()
    if report["differences"]:
        console.print(_table(report["differences"]))
    if report.get("rounding"):
        moved = max(d["relative"] for d in report["rounding"])
        console.print(f"half precision moves blobs by up to {moved:.1e}", soft_wrap=True)
    if report.get("second_reader"):
        console.print(report["second_reader"], soft_wrap=True)
    console.print(f"wrote {report['output']}, {report['verdict']}", soft_wrap=True)


def _table(differences: list[dict[str, Any]]) -> Table:
    """The largest difference of each blob over all samples; the report file has every one."""
    table = Table("blob", "largest number", "largest difference", "relative to it", box=None)
    for blob in dict.fromkeys(d["blob"] for d in differences):
        rows = [d for d in differences if d["blob"] == blob]
        worst = {key: max(d[key] for d in rows) for key in ("largest", "absolute", "relative")}
        table.add_row(
            blob,
            f"{worst['largest']:.3g}",
            *(f"{worst[key]:.1e}" for key in ("absolute", "relative")),
        )
    return table


def _list(model: str, weights: Path | None, as_json: bool) -> None:
    """The layers of a weights file, and the line of each in the prototxt of MODEL."""
    from lglstm.convert.read import read_deploy, read_weights

    net, reason = None, None
    try:
        net = read_deploy(find_model(model).file)
    except InputError as error:
        reason = str(error)
    source = find_weights(None, find_model(model)) if weights is None else weights
    stored = read_weights(source, (net,) if net else ()).stored
    lines = {layer.name: layer.line for layer in net.layers} if net else {}
    rows = [
        (layer.name, layer.type, [list(blob.shape) for blob in layer.blobs], lines.get(layer.name))
        for layer in stored
    ]
    if as_json:
        layers = [dict(zip(("layer", "type", "shapes", "line"), row, strict=True)) for row in rows]
        click.echo(json.dumps({"layers": layers, "refused": reason}, indent=2))
        return
    table = Table("layer", "type", "blobs", "line", box=None)
    for name, kind, shapes, line in rows:
        blobs = "  ".join("x".join(map(str, shape)) or "1" for shape in shapes)
        table.add_row(name, kind, blobs, str(line or ""))
    plain_console().print(table)
    if reason:
        click.echo(f"not convertible: {reason}", err=True)
