"""`lglstm init-weights`: make the caffemodel that the solver of a model starts from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from lglstm.cli.options import complete_model, output_option
from lglstm.cli.paths import FilePath
from lglstm.common.console import plain_console
from lglstm.common.errors import InputError
from lglstm.common.models import find_model

if TYPE_CHECKING:
    from lglstm.caffe_files import Net
    from lglstm.caffe_files.layer_types import Shape


@click.command()
@click.argument("model", shell_complete=complete_model)
@click.option(
    "--from",
    "source",
    required=True,
    type=FilePath(),
    help="VGG-16 as .caffemodel, .pth, .safetensors or .npz.",
)
@output_option("Where to write it (default: where the model's solver looks).", "FILE")
@click.option(
    "--correct-mean",
    is_flag=True,
    help="Caffe sources: let conv1_1's bias make up for VGG's mean, 103.939/116.779/123.68 instead "
    "of 104.008/116.669/122.675; DeepLab does not.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def command(
    model: str, source: Path, output: Path | None, correct_mean: bool, as_json: bool
) -> None:
    """Make the initial weights of MODEL from a VGG-16 trained on ImageNet.

    FILE may be VGG_ILSVRC_16_layers.caffemodel, vgg16_20M.caffemodel, torchvision's vgg16 (.pth or
    .safetensors), or an .npz with conv1_1_w, conv1_1_b and so on. fc6 and fc7 of VGG-16 are
    decimated to the net's 1024 filters. What a source lacks is left at its initialization.

    \b
    Examples:
      lglstm init-weights horse --from VGG_ILSVRC_16_layers.caffemodel
      lglstm init-weights horse --from vgg16-397923af.pth
      lglstm init-weights fashionista_largefov --from vgg16_conv.npz
    """
    from lglstm.caffe_files import read_net
    from lglstm.convert.init_weights import initial_weights, write_initial_weights
    from lglstm.convert.places import check_output

    if output is not None and output.suffix.lower() != ".caffemodel":
        raise click.UsageError(
            f"--output {output}: a caffemodel is made; give a name that ends in .caffemodel"
        )
    output = output or solver_weights(model)
    check_output(output, [source])
    net = read_net(find_model(model, "train").file, "TRAIN")
    made = initial_weights(source, learnable_shapes(net), correct_mean)
    digest = write_initial_weights(made.weights, output)
    note = slow_layers_note(model, net, set(made.weights))
    if as_json:
        result = {"file": str(output), "sha256": digest, "note": note}
        click.echo(json.dumps(result | {"layers": [asdict(step) for step in made.steps]}, indent=2))
        return
    table = Table("layer", "what was done", "weights", box=None)
    for step in made.steps:
        table.add_row(step.layer, step.action, step.detail)
    console = plain_console()
    console.print(table)
    console.print(f"{output}\nSHA-256 {digest}", soft_wrap=True)
    if note:
        console.print(note, soft_wrap=True)


def solver_weights(model: str) -> Path:
    """Return the initial weights that a model's solver names."""
    from lglstm.caffe_files.prototxt import read_message
    from lglstm.caffe_files.schema import SolverParameter

    found = find_model(model, "solver")
    solver = read_message(found.file, SolverParameter())
    if not solver.weights:
        raise InputError(f"model {model} is trained from scratch: it needs no initial weights")
    return found.root / solver.weights[0]


def learnable_shapes(net: Net) -> dict[str, tuple[Shape, ...]]:
    """Return the shapes of the learnable blobs by layer, of the layers that have any."""
    return {
        layer.name: tuple(net.weights[key] for key in layer.blobs.values())
        for layer in net.layers
        if layer.blobs and not layer.is_fixed
    }


def slow_layers_note(model: str, net: Net, filled: set[str]) -> str:
    """Say so when layers without initial weights learn as slowly as pre-trained ones."""
    slow = [
        layer.name
        for layer in net.layers
        if layer.name in ("fc6", "fc7")
        and layer.name not in filled
        and layer.message.param
        and layer.message.param[0].lr_mult < 1
    ]
    if not slow:
        return ""
    return (
        f"{' and '.join(slow)} start without initial weights but learn at the rate of pre-trained "
        f"layers; lglstm models generate {model} --set fc_pretrained=false --name NEW makes a "
        "model in which they are new layers"
    )
