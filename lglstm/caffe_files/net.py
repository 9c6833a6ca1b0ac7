"""One description of a net, read from its prototxt, for the PyTorch modules and the ONNX writer."""

from __future__ import annotations

import os
from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lglstm.caffe_files.caffemodel import StoredLayer, blobs_by_layer
from lglstm.caffe_files.fillers import FIXED, bilinear, fill
from lglstm.caffe_files.layer_types import (
    IGNORED,
    LAYER_TYPES,
    SOURCES,
    LayerError,
    Shape,
    UnsupportedLayer,
    check_connections,
    is_fixed,
    layer_type,
    shapes_of,
)
from lglstm.caffe_files.prototxt import read_prototxt
from lglstm.caffe_files.schema import LayerParameter
from lglstm.common.errors import InputError
from lglstm.common.paths import as_text

if TYPE_CHECKING:
    from lglstm.caffe_files.schema import Message

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Layer:
    """One layer, with everything that a target needs to compute it.

    name, type, bottoms, tops: as in the prototxt; Python layers of this repository go by the type
        that they implement.
    options: see lglstm.caffe_files.layer_types.
    blobs: own blob name ("weight") to the key of the net's weight that it is ("conv1.weight");
        layers that share a weight have the same key.
    bottom_shapes, top_shapes: at the net's own input size.
    line: where the prototxt has it. message: what the prototxt says.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    options: dict
    blobs: dict[str, str]
    bottom_shapes: tuple[Shape, ...]
    top_shapes: tuple[Shape, ...]
    line: int
    message: LayerParameter = field(repr=False, compare=False)

    @property
    def is_fixed(self) -> bool:
        """Whether the layer has weights that are never learned, such as bilinear upsampling."""
        return is_fixed(self.message)


@dataclass(frozen=True)
class Net:
    """A net of one phase: its layers in order, without those that only bring data.

    inputs: name and shape of each blob that comes from outside.
    outputs: the blobs that no layer takes, in the order they are made.
    weights: key and shape of every learnable blob, shared ones once, in Caffe's order.
    stages: those in which the net was read, to be given to Caffe.
    """

    path: str
    name: str
    inputs: dict[str, Shape]
    outputs: tuple[str, ...]
    layers: tuple[Layer, ...]
    weights: dict[str, Shape]
    stages: tuple[str, ...] = ()

    def multipliers(self) -> dict[str, tuple[float, float]]:
        """`lr_mult` and `decay_mult` of each weight; of a shared one, where they are stated.

        The statistics of BatchNorm never learn.
        """
        statistics = {
            key
            for layer in self.layers
            if layer.type == "BatchNorm"
            for key in layer.blobs.values()
        }
        stated: dict[str, dict[str, float]] = {key: {} for key in self.weights}
        for layer in self.layers:
            for key, param in zip(layer.blobs.values(), layer.message.param, strict=False):
                for name in ("lr_mult", "decay_mult"):
                    if param.HasField(name):
                        stated[key].setdefault(name, getattr(param, name))
        return {
            key: (
                0.0 if key in statistics else found.get("lr_mult", 1.0),
                found.get("decay_mult", 1.0),
            )
            for key, found in stated.items()
        }

    def stored(self, weights: Weights) -> list[tuple[LayerParameter, list[np.ndarray]]]:
        """Layers with their blobs, as `write_caffemodel` takes them."""
        return [
            (layer.message, [weights[key] for key in layer.blobs.values()]) for layer in self.layers
        ]

    def description(self) -> dict:
        """The net as JSON, all that `lglstm.convert.torch.Net` needs besides the weights."""
        return {
            "name": self.name,
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "outputs": list(self.outputs),
            "weights": {key: list(shape) for key, shape in self.weights.items()},
            "layers": [
                {
                    "name": layer.name,
                    "type": layer.type,
                    "bottoms": list(layer.bottoms),
                    "tops": list(layer.tops),
                    "options": layer.options,
                    "blobs": layer.blobs,
                }
                for layer in self.layers
            ],
        }


def read_net(
    path: str | os.PathLike[str],
    phase: str = "TEST",
    size: tuple[int, int] | None = None,
    batch_factor: int = 1,
    supported: Container[str] = LAYER_TYPES,
    advice: str = "correct the prototxt",
    stages: Collection[str] = (),
) -> Net:
    """Read a prototxt into a Net. Raises InputError that names the layer and its line.

    phase: "TEST" or "TRAIN", as in include and exclude rules. size: (H, W) to give every 4-axis
    input instead of its own. batch_factor: to multiply every input's first axis by. supported: the
    layer types that the caller can convert. advice: what to do about a layer that does not fit.
    stages: of Caffe's NetState, such as DIGITS' "deploy".
    """
    message, lines = read_prototxt(path, phase, stages)
    builder = _Builder(path, size, batch_factor, supported)
    for layer, line in zip(message.layer, lines, strict=True):
        try:
            builder.add(layer, line)
        except LayerError as error:
            where = f'{path}: line {line}: layer "{layer.name}" of type {layer.type}'
            advice = "" if isinstance(error, UnsupportedLayer) else f"; {advice}"
            raise InputError(f"{where}: {error}{advice}") from None
    if not builder.layers:
        raise InputError(f"{path}: has no layers in phase {phase}; give a net's prototxt")
    return builder.net(message.name or as_text(Path(path).stem), tuple(stages))


class _Builder:
    """Follows the layers as Caffe's Net::Init does."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: tuple[int, int] | None,
        batch_factor: int,
        supported: Container[str],
    ) -> None:
        self.path, self.size, self.batch_factor = path, size, batch_factor
        self.supported = supported
        self.shapes: dict[str, Shape] = {}
        self.unused: dict[str, None] = {}
        self.inputs: dict[str, Shape] = {}
        self.layers: list[Layer] = []
        self.weights: dict[str, Shape] = {}
        self.owners: dict[str, str] = {}
        self.names: dict[str, bool] = {}  # of layers, and whether one of the name has blobs

    def net(self, name: str, stages: tuple[str, ...]) -> Net:
        outputs = tuple(blob for blob in self.unused if blob not in self.inputs)
        layers = tuple(self.layers)
        return Net(str(self.path), name, self.inputs, outputs, layers, self.weights, stages)

    def add(self, message: LayerParameter, line: int) -> None:
        if message.type in IGNORED:
            return
        kind = self._type(message)
        check_connections(kind, message, self.shapes)
        bottoms = [self.shapes[blob] for blob in message.bottom]
        options = LAYER_TYPES[kind].options(message)
        if kind in SOURCES and options["shapes"]:
            options["shapes"] = [self._resized(shape) for shape in options["shapes"]]
        tops, blobs = shapes_of(kind, options, message, bottoms)
        self._check_name(message.name, has_blobs=bool(blobs))
        for blob in message.bottom:
            self.unused.pop(blob, None)
        for blob, shape in zip(message.top, tops, strict=True):
            self.shapes[blob] = shape
            self.unused[blob] = None
        if kind in SOURCES:
            self.inputs |= dict(zip(message.top, tops, strict=True))
            return
        self.layers.append(
            Layer(
                name=message.name,
                type=kind,
                bottoms=tuple(message.bottom),
                tops=tuple(message.top),
                options=options,
                blobs=self._blobs(message, blobs),
                bottom_shapes=tuple(bottoms),
                top_shapes=tuple(tops),
                line=line,
                message=message,
            )
        )

    def _resized(self, shape: list[int]) -> list[int]:
        size = self.size if self.size and len(shape) == 4 else shape[2:]
        return [*(count * self.batch_factor for count in shape[:1]), *shape[1:2], *size]

    def _type(self, message: LayerParameter) -> str:
        kind = layer_type(message)
        if kind not in LAYER_TYPES or kind not in self.supported:
            raise UnsupportedLayer(
                "this type cannot be converted; supported are "
                + ", ".join(sorted(kind for kind in LAYER_TYPES if kind in self.supported))
            )
        return kind

    def _check_name(self, name: str, has_blobs: bool) -> None:
        """Refuse a repeated name where it matters: Caffe finds a layer's blobs by it."""
        if name in self.names and (has_blobs or self.names[name]):
            raise LayerError(
                "another layer has the same name, by which Caffe finds the weights of both"
            )
        self.names[name] = has_blobs

    def _blobs(self, message: LayerParameter, shapes: dict[str, Shape]) -> dict[str, str]:
        """Register the layer's blobs; a named param that exists already is shared."""
        blobs = {}
        for index, (name, shape) in enumerate(shapes.items()):
            key = f"{message.name}.{name}"
            shared = message.param[index].name if index < len(message.param) else ""
            if shared:
                key = self.owners.setdefault(shared, key)
            if self.weights.setdefault(key, shape) != shape:
                raise LayerError(
                    f'it shares "{shared}" of shape {list(self.weights[key])} but needs '
                    f"{list(shape)}"
                )
            blobs[name] = key
        return blobs


def weights_for(
    net: Net, stored: Sequence[StoredLayer], source: str, rng: np.random.Generator | None = None
) -> Weights:
    """The net's weights out of a file's layers, by layer name, as Caffe matches them.

    `source` names the file in messages. A layer that the file lacks keeps its filler's values if
    these are fixed (constant, bilinear) and given in the prototxt; anything else that is missing or
    has another shape is an InputError, never a guess. rng: of a training that starts, where every
    filler that the prototxt gives is taken, and biases without one are zero.
    """
    by_name = blobs_by_layer(stored, source)
    weights: Weights = {}
    for layer in net.layers:
        if layer.blobs and layer.name in by_name:
            _take(net, layer, by_name[layer.name], weights, source)
    for layer in net.layers:
        for index, key in enumerate(layer.blobs.values()):
            if key not in weights:
                weights[key] = _filled(net, layer, index, source, rng)
    return {key: weights[key] for key in net.weights}


def _take(
    net: Net, layer: Layer, blobs: Sequence[np.ndarray], weights: Weights, source: str
) -> None:
    if len(blobs) != len(layer.blobs):
        raise InputError(
            f'{source}: layer "{layer.name}" has {len(blobs)} blobs, but {net.path} needs '
            f"{len(layer.blobs)}; give the weights of this model"
        )
    for blob, (name, key) in zip(blobs, layer.blobs.items(), strict=True):
        array = _fitted(blob, net.weights[key])
        if array is None:
            raise InputError(
                f'{source}: {name} of layer "{layer.name}" has the shape {list(blob.shape)}, but '
                f"{net.path} needs {list(net.weights[key])}; give the weights of this model"
            )
        if key in weights and weights[key].tobytes() != array.tobytes():
            raise InputError(
                f'{source}: layer "{layer.name}" shares {name} with others, but holds other '
                "values than they; save the weights from Caffe again"
            )
        weights[key] = array


def _fitted(blob: np.ndarray, shape: Shape) -> np.ndarray | None:
    """The blob in the wanted shape, None if more than leading ones differs (old files: 4 axes)."""
    if blob.shape == shape:
        return blob
    bare = [list(s) for s in (blob.shape, shape)]
    for dims in bare:
        while dims and dims[0] == 1:
            dims.pop(0)
    return blob.reshape(shape) if bare[0] == bare[1] else None


def _filled(
    net: Net, layer: Layer, index: int, source: str, rng: np.random.Generator | None
) -> np.ndarray:
    name, key = list(layer.blobs.items())[index]
    filler = _filler(layer, name)
    if rng and filler is None and name.endswith("bias"):
        return np.zeros(net.weights[key], np.float32)
    if filler is not None and (rng or filler.type in FIXED):
        array = fill(filler, net.weights[key], rng or np.random.default_rng())
        if array is not None:
            return array
    if rng:
        kind = f"the filler {filler.type}" if filler else "no filler"
        raise InputError(
            f'{net.path}: line {layer.line}: layer "{layer.name}" has {kind} for its {name}, and '
            f"{source} has no such layer; give it one of constant, uniform, gaussian, xavier, msra"
        )
    raise InputError(
        f'{source}: has no layer "{layer.name}", which {net.path} needs (line {layer.line}); give '
        "the weights of this model"
    )


def _filler(layer: Layer, name: str) -> Message | None:
    """The filler that the prototxt gives for a blob, or None."""
    kind = name
    if layer.type == "LGLSTM":  # its weights have names of their own
        kind = "bias" if name.endswith("bias") else "weight"
    for field_, parameters in layer.message.ListFields():
        if not field_.name.endswith("_param"):
            continue
        for wanted in (f"{kind}_filler", "filler"):
            known = wanted in parameters.DESCRIPTOR.fields_by_name
            if known and parameters.HasField(wanted):
                return getattr(parameters, wanted)
    return None


def random_weights(net: Net, seed: int, contrast: float = 1) -> Weights:
    """Weights to test conversions with: such that signals are about 1 all through deep nets.

    A net's own fillers can be so small that every output is nearly zero, and any two nets agree;
    with numbers in the hundreds before a sigmoid, no two computations of it agree. contrast: the
    size of the inputs' numbers; photos have about 60. Bilinear fillers are kept.
    """
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for layer in net.layers:
        for name, key in layer.blobs.items():
            if key not in weights:
                # A blob without axes would come as a number, which no writer of arrays takes.
                weights[key] = np.asarray(_random(rng, layer, name, net.weights[key]))
                if name == "weight" and set(layer.bottoms) <= net.inputs.keys():
                    weights[key] /= contrast
    return weights


def _random(rng: np.random.Generator, layer: Layer, name: str, shape: Shape) -> np.ndarray:
    filler = _filler(layer, name)
    if filler is not None and filler.type == "bilinear":
        return bilinear(shape)
    if layer.type == "BatchNorm" or name == "scale_factor":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if layer.type.startswith("LGLSTM"):
        return (rng.standard_normal(shape) * (2 / shape[-1]) ** 0.5).astype(np.float32)
    if name == "bias":
        return (rng.standard_normal(shape) * 0.1).astype(np.float32)
    fan_in = max(1, int(np.prod(shape[1:])))
    return (rng.standard_normal(shape) * (2 / fan_in) ** 0.5).astype(np.float32)
