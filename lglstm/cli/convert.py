"""`lglstm convert`: weights for other frameworks and back, each conversion with its proof."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from lglstm import __version__
from lglstm.common.errors import InputError
from lglstm.common.models import find_model
from lglstm.evaluation.label_choice import choose_labels

TARGETS = ("pytorch", "onnx", "caffemodel", "hdf5", "npz", "safetensors", "web", "reference")

EXAMPLES = """\b
Examples:
  lglstm convert horse runs/horse_iter_8820.caffemodel --to pytorch
  lglstm convert horse runs/horse_iter_8820.caffemodel --to onnx --any-size
  lglstm convert horse finetuned.safetensors --to caffemodel
  lglstm convert horse runs/horse_iter_8820.caffemodel --to web -o horse_page
  lglstm convert net.prototxt net.caffemodel --to onnx
  lglstm convert net.prototxt net.caffemodel --list
"""


@click.command(epilog=EXAMPLES)
@click.argument("model")
@click.argument("weights", type=Path)
@click.option("--to", "target", type=click.Choice(TARGETS), help="The format to make.")
@click.option(
    "-o", "--output", type=Path, metavar="PATH",
    help="Where to write (default: beside WEIGHTS, with the format's suffix).",
)  # fmt: skip
@click.option("--any-size", is_flag=True, help="onnx: leave height and width free.")
@click.option(
    "--preprocessing", is_flag=True,
    help="onnx: take (batch, H, W, 3) uint8 RGB; channel order and mean go into the graph.",
)  # fmt: skip
@click.option("--photo", type=Path, metavar="FILE", help="The real photo to compare on.")
@click.option(
    "--reference", type=Path, metavar="FILE",
    help="Compare with what Caffe gave elsewhere (made by --to reference).",
)  # fmt: skip
@click.option("--no-verify", is_flag=True, help="Write without the proof.")
@click.option("--list", "list_layers", is_flag=True, help="Only list the layers of WEIGHTS.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    model: str,
    weights: Path,
    target: str | None,
    output: Path | None,
    list_layers: bool,
    as_json: bool,
    no_verify: bool,
    **options,
) -> None:
    """Convert WEIGHTS of MODEL, and compare the result with Caffe before it is kept.

    MODEL is a name in models/, or the prototxt of any deploy net. WEIGHTS is a .caffemodel, .h5,
    .npz, .safetensors or .pth file. Differences and versions go into a JSON file beside the result.
    """
    if list_layers:
        _list(model, weights, as_json)
        return
    if target is None:
        raise click.UsageError(f"say --to FORMAT ({', '.join(TARGETS)}), or --list")
    report = _convert(model, weights, target, output, verify=not no_verify, **options)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _print(report)


def _convert(
    model: str, weights: Path, target: str, output: Path | None, verify: bool, **options
) -> dict:
    from lglstm.convert import conversion, page

    found = find_model(model)
    for option in ("any_size", "preprocessing"):
        if options[option] and target != "onnx":
            raise InputError(f"--{option.replace('_', '-')} is for --to onnx; leave it out")
    output = output or conversion.default_output(weights, target)
    job = conversion.Job(
        deploy=found.file,
        weights=weights,
        target="onnx" if target == "web" else target,
        output=output / page.MODEL if target == "web" else output,
        verify=verify,
        versions={"lg-lstm": __version__},
        **options,
    )
    with Console(stderr=True).status("") as status:  # shown on terminals only
        if target == "reference":
            report = conversion.make_reference(job, status.update)
        elif target == "web":
            labels = functools.partial(choose_labels, None, found, near=None)
            report = page.build(job, labels, status.update)
        else:
            report = conversion.convert(job, status.update)
    return {"output": str(output)} | report


def _print(report: dict) -> None:
    console = Console()
    if report["differences"]:
        console.print(_table(report["differences"]))
        console.print(f"compared with {report['reference']}; allowed: {report['tolerance']:g}")
    if report.get("exact_blobs"):
        console.print(f"{report['exact_blobs']} blobs read back, equal bit for bit")
    if not report["options"]["verify"]:
        console.print("not compared with anything: --no-verify")
    console.print(f"wrote {report['output']}", soft_wrap=True)


def _table(differences: list[dict]) -> Table:
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
    """The layers of a weights file, and what the net of MODEL says of each."""
    from lglstm.caffe_files import read_net
    from lglstm.convert.weights import read_weights

    found, reason = None, None
    try:
        found = read_net(find_model(model).file)
    except InputError as error:
        reason = str(error)
    stored = read_weights(weights, (found,) if found else ()).stored
    lines = {layer.name: layer.line for layer in found.layers} if found else {}
    rows = [
        {
            "layer": layer.name,
            "type": layer.type,
            "shapes": [list(blob.shape) for blob in layer.blobs],
            "line": lines.get(layer.name),
        }
        for layer in stored
    ]
    if as_json:
        click.echo(json.dumps({"layers": rows, "refused": reason}, indent=2))
        return
    table = Table("layer", "type", "blobs", "line", box=None)
    for row in rows:
        shapes = "  ".join("x".join(map(str, shape)) or "1" for shape in row["shapes"])
        table.add_row(row["layer"], row["type"], shapes, str(row["line"] or ""))
    Console().print(table)
    if reason:
        click.echo(f"not convertible: {reason}", err=True)
