"""Loads converted networks, and Caffe's own files."""

from __future__ import annotations

import io
import json
import os
import pickle
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
    mode, if the model has one. Raises ValueError for a damaged or another file, OSError where there
    is none.
    """
    path = Path(path)
    with open(path, "rb"):
        pass  # what the system says about a path is clearer than what the libraries make of it
    try:
        weights, descriptions = _read(path)
    except (ImportError, NotConverted):
        raise
    except Exception as error:  # whatever the libraries raise on a damaged file
        raise ValueError(
            f"{path}: is damaged, or no such file ({_reason(error)}); make it again"
        ) from None
    phase = "train" if train else "deploy"
    if phase not in descriptions:
        raise ValueError(
            f"{path}: holds no {phase} net, only {' and '.join(sorted(descriptions))}; convert it "
            "with a model that has one"
        )
    return _built(path, descriptions[phase], weights).train(train)


class NotConverted(ValueError):
    """A file that holds something else than a converted net."""


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights by key, and the descriptions of the nets by phase."""
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        # weights_only: tensors and plain data; nothing in the file is run.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise _not_converted(path) from None  # a module, say
    if not isinstance(content, dict) or not {"state_dict", "nets"} <= content.keys():
        raise _not_converted(path)
    return content["state_dict"], _descriptions(content["nets"])


def _descriptions(text: str) -> dict[str, Any]:
    descriptions = json.loads(text)
    if not isinstance(descriptions, dict):
        raise TypeError(f"its nets are a {type(descriptions).__name__}, not an object")
    return descriptions


def _built(path: Path, description: dict[str, Any], weights: dict[str, Tensor]) -> Net:
    """The net with its weights. Raises ValueError unless they belong together.

    The net is built without memory first: a damaged description can claim any size.
    """
    try:
        with torch.device("meta"):
            needed = {key: value.shape for key, value in Net(description).weights().items()}
    except Exception as error:
        raise ValueError(
            f"{path}: its description of the net is damaged ({_reason(error)})"
        ) from None
    for key, shape in needed.items():
        if key not in weights or weights[key].shape != shape:
            there = list(weights[key].shape) if key in weights else "not there"
            raise ValueError(f"{path}: {key} is {there}, but its net needs {list(shape)}")
    return Net(description).load_weights(weights)


def _not_converted(path: Path) -> NotConverted:
    return NotConverted(
        f"{path}: was not made by `lglstm convert … --to pytorch` or by save, which keep the net "
        "with its weights; give such a file"
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata, keys = file.metadata() or {}, file.keys()
        if "nets" not in metadata:
            raise _not_converted(path)
        return {key: file.get_tensor(key) for key in keys}, _descriptions(metadata["nets"])


def save(net: Net, path: str | os.PathLike[str]) -> None:
    """Write a net's weights, .safetensors or .pth, for `load` and for `lglstm convert` to Caffe.

    Raises OSError where it cannot be written; a file that was there before stays as it was.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        from safetensors.torch import save as serialized

        content = _content(net)
        _write(path, serialized(content["state_dict"], {"nets": content["nets"]}))
    else:
        _write_pickled(path, _content(net))


def save_checkpoint(
    net: Net, optimizer: torch.optim.Optimizer, iteration: int, path: str | os.PathLike[str]
) -> None:
    """As `save` to .pth, with what `load_checkpoint` needs to go on with a training.

    iteration: how many were done.
    """
    more = {"iteration": iteration, "optimizer": optimizer.state_dict()}
    _write_pickled(Path(path), _content(net) | more)


def load_checkpoint(
    net: Net, optimizer: torch.optim.Optimizer, path: str | os.PathLike[str]
) -> int:
    """Put a checkpoint's weights and state into a net and its optimizer; return its iteration.

    Raises ValueError for a damaged file and for one of another net, OSError where there is none.
    """
    with open(path, "rb"):
        pass
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        net.load_weights(content["state_dict"])
        optimizer.load_state_dict(content["optimizer"])
        return int(content["iteration"])
    except Exception as error:  # whatever the libraries raise on a damaged file
        raise ValueError(
            f"{path}: is no whole checkpoint of this net ({_reason(error)}); give another, or "
            "begin anew"
        ) from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _content(net: Net) -> dict[str, Any]:
    """What a .pth file of a net holds."""
    weights = {key: value.detach().cpu().contiguous() for key, value in net.weights().items()}
    nets = json.dumps({"train" if net.trains else "deploy": net.description})
    return {"state_dict": weights, "nets": nets}


def _write_pickled(path: Path, content: dict[str, Any]) -> None:
    file = io.BytesIO()
    torch.save(content, file)
    _write(path, file.getbuffer())


def _write(path: Path, content: bytes | memoryview) -> None:
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
