"""A network built from a description of its layers, as a directed graph of modules."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .layers import LAYERS, SoftmaxWithLoss

if TYPE_CHECKING:
    import numpy as np


class Net(nn.Module):
    """One Caffe net: each layer is a submodule of the layer's name, each blob a tensor.

    description: see `lglstm.caffe_files.Net.description`; `load` takes it from the converted file.
    Layers that share a weight hold the same Parameter.

    Called with the net's inputs in order, for a deploy net one batch (B, 3, H, W) of BGR photos
    minus the mean, it returns the output blob, or a dict of them if there are several; for a train
    net, called with photos and labels, the sum of all losses.
    """

    def __init__(self, description: Mapping):
        super().__init__()
        self.description = dict(description)
        self.inputs, self.outputs = list(description["inputs"]), list(description["outputs"])
        self.trains = any(layer["type"].endswith("Loss") for layer in description["layers"])
        owners: dict[str, tuple[nn.Module, str]] = {}
        self._steps = []
        for layer in description["layers"]:
            module = self._module(layer)
            name = self._unused_name(layer["name"])
            self.add_module(name, module)
            self._steps.append((name, layer["bottoms"], layer["tops"]))
            for blob, key in layer["blobs"].items():
                if key in owners:
                    owner, owner_blob = owners[key]
                    setattr(module, blob, getattr(owner, owner_blob))
                else:
                    owners[key] = module, blob
        self._owners = owners

    def _module(self, layer: Mapping) -> nn.Module:
        if layer["type"] not in LAYERS:
            raise ValueError(f'layer "{layer["name"]}": no module for the type {layer["type"]}')
        shapes = {blob: self.description["weights"][key] for blob, key in layer["blobs"].items()}
        return LAYERS[layer["type"]](layer["options"], shapes)

    def _unused_name(self, name: str) -> str:
        """The layer's name as that of a submodule: without dots, and not that of a method."""
        name = name.replace(".", "_") or "layer"
        while hasattr(self, name):
            name += "_"
        return name

    def forward(self, *inputs: Tensor) -> Tensor | dict[str, Tensor]:
        blobs = self.blobs(inputs, self.outputs)
        if self.trains:
            return functools.reduce(torch.add, blobs.values())
        return blobs[self.outputs[0]] if len(blobs) == 1 else blobs

    def blobs(self, inputs: Iterable[Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
        """Run the net and return the wanted blobs by name; others are freed after their last use.

        A blob that several layers write in place (ReLU) has its last value.
        """
        last_use = {
            blob: step for step, (_, bottoms, _) in enumerate(self._steps) for blob in bottoms
        }
        wanted = list(wanted)
        values = self._named(list(inputs))
        for step, (name, bottoms, tops) in enumerate(self._steps):
            result = getattr(self, name)(*(values[blob] for blob in bottoms))
            result = result if isinstance(result, tuple | list) else (result,)
            values.update(zip(tops, result, strict=True))
            for blob in (*bottoms, *tops):
                if last_use.get(blob, -1) <= step and blob not in wanted:
                    values.pop(blob, None)
        return {blob: values[blob] for blob in wanted}

    def _named(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        """The inputs by name. Raises ValueError for another count or other channels."""
        if len(inputs) != len(self.inputs):
            raise ValueError(
                f"the net {self.name} takes {len(self.inputs)} inputs, {', '.join(self.inputs)}, "
                f"not {len(inputs)}"
            )
        for (name, shape), value in zip(self.description["inputs"].items(), inputs, strict=True):
            if value.dim() != len(shape) or list(value.shape[1:2]) != list(shape[1:2]):
                raise ValueError(
                    f"{name} has the shape {list(value.shape)}, but the net {self.name} takes "
                    f"{list(shape)}, of any batch"
                )
        return dict(zip(self.inputs, inputs, strict=True))

    def weights(self) -> dict[str, Tensor]:
        """Every weight once, by its key in the description ("conv1.weight")."""
        return {key: getattr(module, blob) for key, (module, blob) in self._owners.items()}

    def load_weights(self, weights: Mapping[str, np.ndarray | Tensor]) -> Net:
        """Copy weights in, by key; more than the net has may be given, but none may be missing."""
        with torch.no_grad():
            for key, target in self.weights().items():
                if key not in weights:
                    raise ValueError(f"the weights lack {key}, which the net {self.name} needs")
                source = torch.as_tensor(weights[key])
                if source.shape != target.shape:
                    raise ValueError(
                        f"{key} has the shape {list(source.shape)}, the net {self.name} needs "
                        f"{list(target.shape)}"
                    )
                target.copy_(source)
        return self

    def count_across_processes(self) -> Net:
        """Let losses be means over the labels of all processes; return the net.

        For DistributedDataParallel, which averages the gradients of its processes: with this, they
        are those of one process with the whole batch, also where images have ignored labels.
        """
        for module in self.modules():
            if isinstance(module, SoftmaxWithLoss):
                module.across_processes = True
        return self

    @property
    def name(self) -> str:
        return self.description["name"]


class Losses(nn.Module):
    """A train net that returns its losses by name, times their weights, instead of their sum.

    For DistributedDataParallel and others that call `forward` alone.
    """

    def __init__(self, net: Net):
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        return self.net.blobs(inputs, self.net.outputs)
