"""A model in numbers: its layers, their groups, and the memory that training takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod

from lglstm.caffe_files.costs import MeasuredLayer, measure
from lglstm.caffe_files.layer_types import SOURCES
from lglstm.caffe_files.prototxt import read_prototxt
from lglstm.caffe_files.schema import NetParameter
from lglstm.common.errors import InputError
from lglstm.common.models import ModelFiles

BYTES = 4  # Caffe trains in float32
WEIGHT_COPIES = 3  # values, gradients, momentum
PAPER_GPU_BYTES = 12 * 2**30  # "a single NVIDIA GeForce GTX TITAN X GPU with 12GB memory"

GROUPS = (
    "data",
    "backbone",
    "image labels",
    "transition",
    "LG-LSTM",
    "extra convolutions",
    "prediction",
    "loss",
)


@dataclass(frozen=True)
class Summary:
    """A training net in numbers.

    layers: the layers of the training net. batch: its images.
    weights: learnable values, shared ones counted once.
    multiply_adds: of one forward pass, per image.
    activation_bytes: blobs with their gradients, and what layers hold beside them.
    test_bytes: the test net that Caffe keeps beside the training net.
    """

    name: str
    layers: list[MeasuredLayer]
    batch: int
    weights: int
    multiply_adds: int
    activation_bytes: int
    test_bytes: int

    @property
    def gpu_bytes(self) -> int:
        """Memory of a training run: activations, weights and the test net."""
        return self.activation_bytes + WEIGHT_COPIES * BYTES * self.weights + self.test_bytes

    def as_dict(self) -> dict:
        """Everything as plain values, for JSON."""
        return {
            "model": self.name,
            "batch": self.batch,
            "weights": self.weights,
            "multiply_adds_per_image": self.multiply_adds,
            "activation_bytes": self.activation_bytes,
            "gpu_bytes": self.gpu_bytes,
            "groups": group_totals(self),
            "layers": [layer_row(self, layer) for layer in self.layers],
        }


def summarize(model: ModelFiles) -> Summary:
    """Measure a model's training net and its test net.

    The test net of a train.prototxt is the test.prototxt beside it; any other file holds both, as
    Caffe reads the `net` of a solver, or has no test net.
    """
    layers = measure(read_prototxt(model.file, "TRAIN")[0], model.file)
    if model.file.name == "train.prototxt":
        test = model.form("test")
        return _summary(model.name, layers, measure(read_prototxt(test)[0], test))
    try:
        return _summary(model.name, layers, measure(read_prototxt(model.file)[0], model.file))
    except InputError:  # without its layers of phase TRAIN it is no net
        return _summary(model.name, layers, [])


def summarize_nets(name: str, train_net: NetParameter, test_net: NetParameter) -> Summary:
    """Measure a training net and the test net that Caffe keeps beside it."""
    return _summary(name, measure(train_net), measure(test_net))


def _summary(name: str, layers: list[MeasuredLayer], test: list[MeasuredLayer]) -> Summary:
    given = [shape for layer in layers if layer.type in SOURCES for shape in layer.tops]
    if not given or not given[0]:
        raise InputError(
            f"net {name}: no layer of it brings images; correct the prototxt, or generate it anew "
            "with `lglstm models generate`"
        )
    batch = given[0][0]
    return Summary(
        name=name,
        layers=layers,
        batch=batch,
        weights=sum(own_weights(layers).values()),
        multiply_adds=sum(layer.multiply_adds for layer in layers) // batch,
        activation_bytes=training_bytes(layers),
        test_bytes=BYTES * (sum(blob_sizes(test).values()) + workspaces(test)),
    )


def own_weights(layers: list[MeasuredLayer]) -> dict[str, int]:
    """Learnable weights per layer; a shared blob counts where it comes first."""
    seen: set[str] = set()
    own = {}
    for layer in layers:
        fresh = [
            prod(shape)
            for name, shape in zip(layer.param_names, layer.blobs, strict=True)
            if name not in seen and not layer.is_fixed
        ]
        own[layer.name] = sum(fresh)
        seen.update(layer.param_names)
    return own


def blob_sizes(layers: list[MeasuredLayer]) -> dict[str, int]:
    """Values per blob; a layer that works in place adds none."""
    return {
        top: prod(shape)
        for layer in layers
        for top, shape in zip(layer.message.top, layer.tops, strict=True)
    }


def training_bytes(layers: list[MeasuredLayer]) -> int:
    """Blobs, their gradients and the workspaces of a forward and backward pass.

    A blob that several layers read is split: every reader has a gradient of its own.
    """
    sizes = blob_sizes(layers)
    readers = Counter(
        bottom
        for layer in layers
        for bottom in dict.fromkeys(layer.message.bottom)
        if bottom not in layer.message.top
    )
    # Images and labels have no gradient.
    data = {top for layer in layers if layer.type in SOURCES for top in layer.message.top}
    gradients = {
        blob: size * (1 if readers[blob] <= 1 else 1 + readers[blob])
        for blob, size in sizes.items()
        if blob not in data
    }
    return BYTES * (sum(sizes.values()) + sum(gradients.values()) + workspaces(layers))


def workspaces(layers: list[MeasuredLayer]) -> int:
    """Values that layers hold beside their blobs."""
    return sum(layer.workspace for layer in layers)


def group(layer: MeasuredLayer) -> str:
    """The part of the net that a layer belongs to, one of GROUPS."""
    kind, name = layer.type, layer.name
    if kind in ("SegData", "Input", "Power"):
        return "data"
    if kind == "LGLSTMTransition":
        return "transition"
    if kind == "LGLSTM" or name == "silence":
        return "LG-LSTM"
    if kind in ("Accuracy", "ImageLabels", "SoftmaxWithLoss", "EuclideanLoss"):
        return "loss"
    if name.startswith(("score", "raw_score")):
        return "prediction"
    if name.startswith(("extra", "relu_extra")):
        return "extra convolutions"
    if "label" in name and kind != "Concat":
        return "image labels"
    return "backbone"


def layer_row(summary: Summary, layer: MeasuredLayer) -> dict:
    """One layer as plain values."""
    own = own_weights(summary.layers)[layer.name]
    return {
        "name": layer.name,
        "type": layer.type,
        "group": group(layer),
        "tops": {top: list(s) for top, s in zip(layer.message.top, layer.tops, strict=True)},
        "weight_shapes": [list(shape) for shape in layer.blobs],
        "weights": own,
        "shared_weights": sum(map(prod, layer.blobs)) - own,
        "multiply_adds_per_image": layer.multiply_adds // summary.batch,
        "lr_mult": [param.lr_mult for param in layer.message.param],
        "decay_mult": [param.decay_mult for param in layer.message.param],
    }


def group_totals(summary: Summary) -> dict[str, dict[str, int]]:
    """Layers, weights and multiply-adds of every group that the net has."""
    totals: dict[str, dict[str, int]] = {}
    own = own_weights(summary.layers)
    for name in GROUPS:
        members = [layer for layer in summary.layers if group(layer) == name]
        if members:
            totals[name] = {
                "layers": len(members),
                "weights": sum(own[layer.name] for layer in members),
                "multiply_adds_per_image": sum(layer.multiply_adds for layer in members)
                // summary.batch,
            }
    return totals
