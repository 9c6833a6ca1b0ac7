"""Loads converted networks, and Caffe's own files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .layers import LAYERS
from .net import Net

_SOURCES = {"Input", "SegData", "DummyData"}
"""Layers that bring a net's inputs; what they bring is given to the module."""


def load(path: str | os.PathLike[str], train: bool = False) -> Net:
    """Load a file that `lglstm convert … --to pytorch` made, .safetensors or .pth.

    Returns the deploy net in evaluation mode; with `train`, the net with its losses, in training
    mode, if the model has one. Raises ValueError for another file.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        weights, descriptions = _read_safetensors(path)
    else:
        # weights_only: tensors and plain data; nothing in the file is run.
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or not {"state_dict", "nets"} <= content.keys():
            raise _not_converted(path)
        weights, descriptions = content["state_dict"], json.loads(content["nets"])
    phase = "train" if train else "deploy"
    if phase not in descriptions:
        raise ValueError(
            f"{path}: holds no {phase} net, only {' and '.join(sorted(descriptions))}; convert it "
            "with a model that has one"
        )
    return Net(descriptions[phase]).load_weights(weights).train(train)


def _not_converted(path: Path) -> ValueError:
    return ValueError(
        f"{path}: was not made by `lglstm convert … --to pytorch` or by save, which keep the net "
        "with its weights; give such a file"
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata, keys = file.metadata() or {}, file.keys()
        if "nets" not in metadata:
            raise _not_converted(path)
        return {key: file.get_tensor(key) for key in keys}, json.loads(metadata["nets"])


def save(net: Net, path: str | os.PathLike[str]) -> None:
    """Write a net's weights, .safetensors or .pth, for `load` and for `lglstm convert` to Caffe."""
    path = Path(path)
    weights = {key: value.detach().cpu().contiguous() for key, value in net.weights().items()}
    nets = json.dumps({"train" if net.trains else "deploy": net.description})
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(weights, path, {"nets": nets})
    else:
        torch.save({"state_dict": weights, "nets": nets}, path)


def load_caffemodel(
    prototxt: str | os.PathLike[str], caffemodel: str | os.PathLike[str], train: bool = False
) -> Net:
    """Build the net of a prototxt and load a caffemodel into it; Caffe is not needed.

    With `train`, the prototxt is read in phase TRAIN. Raises InputError (a ValueError) for files
    that are wrong or do not belong together, and ImportError without the package `lglstm`.
    """
    try:
        from lglstm.caffe_files import read_caffemodel, read_net, weights_for
    except ImportError as error:
        raise ImportError(
            "load_caffemodel reads Caffe's files with the Python package lglstm, which cannot be "
            f"imported here ({error}); install it from a checkout of LG-LSTM, or convert the files "
            "there with `lglstm convert MODEL WEIGHTS --to pytorch` and use load"
        ) from error
    net = read_net(prototxt, "TRAIN" if train else "TEST", supported=_SOURCES | LAYERS.keys())
    weights = weights_for(net, read_caffemodel(caffemodel), str(caffemodel))
    return Net(net.description()).load_weights(weights).train(train)
