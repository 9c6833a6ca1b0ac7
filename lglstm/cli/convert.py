"""`lglstm convert`: weights for other frameworks and back, each conversion with its proof."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from lglstm import __version__
from lglstm.cli.options import Choice, labels_option
from lglstm.common.console import plain_console, status_line
from lglstm.common.errors import InputError
from lglstm.common.labels import LabelSet
from lglstm.common.models import ModelFiles, find_model
from lglstm.evaluation.label_choice import known_labels

if TYPE_CHECKING:
    from lglstm.convert.options import ConvertOptions

TARGETS = ("pytorch", "onnx", "caffemodel", "hdf5", "npz", "safetensors", "web", "reference")

EXAMPLES = """\b
Examples:
  lglstm convert horse runs/horse_iter_8820.caffemodel --to pytorch
  lglstm convert horse runs/horse_iter_8820.caffemodel --to onnx --any-size
  lglstm convert horse runs/finetuned.safetensors --to caffemodel
  lglstm convert horse runs/horse_iter_8820.caffemodel --to web -o runs/horse_page
  lglstm convert net.prototxt net.caffemodel --to onnx
  lglstm convert net.prototxt net.caffemodel --list
"""


@click.command(epilog=EXAMPLES)
@click.argument("model")
@click.argument("weights", type=Path)
@click.option("--to", "target", type=Choice(TARGETS), help="The format to make.")
@click.option(
    "-o", "--output", type=Path, metavar="PATH",
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
    "--float16", is_flag=True,
    help="pytorch, safetensors: store the weights in half precision, half the size.",
)  # fmt: skip
@click.option("--photo", type=Path, metavar="FILE", help="The photo to compare on.")
@click.option(
    "--reference", type=Path, metavar="FILE",
    help="Compare with what Caffe computed elsewhere (made by --to reference).",
)  # fmt: skip
@click.option("--no-verify", is_flag=True, help="Don't compare the result with Caffe.")
@click.option("--list", "list_layers", is_flag=True, help="Only list the layers of WEIGHTS.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    model: str,
    weights: Path,
    target: str | None,
    output: Path | None,
    any_size: bool,
    preprocessing: bool,
    labels: str | None,
    license: str | None,
    float16: bool,
    photo: Path | None,
    reference: Path | None,
    no_verify: bool,
    list_layers: bool,
    as_json: bool,
) -> None:
    """Convert WEIGHTS of MODEL, and keep the result only if it computes what Caffe does.

    MODEL is a name in models/, or the prototxt of any deploy net. WEIGHTS is a .caffemodel, .h5,
    .npz, .safetensors or .pth file. Differences and versions go into a JSON file beside the result.
    """
    given = {
        "--any-size": any_size,
        "--preprocessing": preprocessing,
        "--labels": labels is not None,
        "--license": license is not None,
        "--float16": float16,
        "--photo": photo is not None,
        "--reference": reference is not None,
        "--no-verify": no_verify,
        "--to": target is not None,
        "--output": output is not None,
    }
    _check_usage(target, list_layers, [option for option, is_given in given.items() if is_given])
    if target is None:
        _list(model, weights, as_json)
        return
    from lglstm.convert.options import ConvertOptions

    found = find_model(model)
    options = ConvertOptions(
        deploy=found.file,
        weights=weights,
        format=target,
        output=_output(target, output, weights),
        verify=not no_verify,
        reference=reference,
        photo=photo,
        any_size=any_size,
        preprocessing=preprocessing,
        labels_for=functools.partial(_label_set, labels, found),
        license=license,
        float16=float16,
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


def _check_usage(target: str | None, list_layers: bool, given: list[str]) -> None:
    """Raise UsageError for options that do not go together; `given` are those of a conversion."""
    if list_layers and given:
        raise click.UsageError(f"--list converts nothing; leave out {' and '.join(given)}")
    if target is None and not list_layers:
        raise click.UsageError(f"give --to FORMAT ({', '.join(TARGETS)}), or --list")
    for option in ("--any-size", "--preprocessing"):
        if option in given and target != "onnx":
            raise click.UsageError(f"{option} is for --to onnx; leave it out")
    _check_halves(target, "--float16" in given)
    for option, other, why in (
        ("--photo", "--no-verify", "only the proof uses a photo"),
        ("--reference", "--no-verify", "only the proof uses a reference"),
        ("--photo", "--reference", "a reference holds its own photo"),
        ("--float16", "--reference", "a reference is of the weights before they are rounded"),
    ):
        if option in given and other in given:
            raise click.UsageError(f"{option} and {other} exclude each other: {why}")
    for option in ("--reference", "--no-verify"):
        if option in given and target == "reference":
            raise click.UsageError(f"{option} is for a conversion; leave it out")


def _check_halves(target: str | None, asked: bool) -> None:
    from lglstm.convert.write import FORMATS

    able = [name for name, format_ in FORMATS.items() if format_.halves]
    if asked and target not in able:
        raise click.UsageError(f"--float16 is for --to {', '.join(able)}; leave it out")


def _output(target: str, output: Path | None, weights: Path) -> Path:
    """Where to write: as asked, if the name says the format, else beside the weights."""
    from lglstm.convert.write import FORMATS, REFERENCE_SUFFIXES, default_output

    if target == "web":
        return output or default_output(weights, "_page")
    suffixes = REFERENCE_SUFFIXES if target == "reference" else FORMATS[target].suffixes
    if output is None:
        return default_output(weights, suffixes[0])
    if target != "onnx" and not output.name.endswith(suffixes):  # they are read by their suffix
        raise click.UsageError(
            f"--output {output}: give a name that ends in {' or '.join(suffixes)} for --to {target}"
        )
    return output


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
        allowed = f"allowed: {report['tolerance']:g}"
        console.print(f"compared with {report['reference']}; {allowed}", soft_wrap=True)
    if report.get("rounding"):
        moved = max(d["relative"] for d in report["rounding"])
        console.print(f"half precision moves blobs by up to {moved:.1e}", soft_wrap=True)
    if report.get("second_reader"):
        console.print(report["second_reader"], soft_wrap=True)
    if report.get("exact_blobs"):
        console.print(f"{report['exact_blobs']} blobs read back, equal bit for bit")
    if not report["options"]["verify"]:
        console.print("not compared with anything: --no-verify")
    console.print(f"wrote {report['output']}", soft_wrap=True)


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


def _list(model: str, weights: Path, as_json: bool) -> None:
    """The layers of a weights file, and the line of each in the prototxt of MODEL."""
    from lglstm.convert.read import read_deploy, read_weights

    net, reason = None, None
    try:
        net = read_deploy(find_model(model).file)
    except InputError as error:
        reason = str(error)
    stored = read_weights(weights, (net,) if net else ()).stored
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
