"""A run's place in its data, which snapshots only count: what must stay as it was for that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caffe.proto import caffe_pb2

from lglstm.caffe_files import wire
from lglstm.caffe_files.schema import field_numbers
from lglstm.common.errors import InputError
from lglstm.common.hashing import sha256_of
from lglstm.common.pycaffe import Message
from lglstm.common.rules import shown

# Layers without bottoms that have no place in any data.
PLACELESS = {"DummyData", "Input", "Parameter"}
# What decides the examples of a batch, in the parameters of Caffe's own data layers and in the
# `param_str` of those in Python.
FIELDS = {"source", "batch_size", "shuffle", "root_folder", "rand_skip"}
KEYS = ("list", "root", "source", "batch_size", "train", "shuffle", "seed", "rank", "world_size")
WORDS = {"random_seed": "random_seed", "processes": "number of GPUs", "iter_size": "iter_size"}

_LAYER = field_numbers("NetParameter")["layer"]
_BOTTOM = field_numbers("LayerParameter")["bottom"]


def settings(solver: Message, processes: int, layers: list[Message], folder: Path) -> dict:
    """What a run must be continued with, beside the layers, which are in its snapshots."""
    lists = [value for layer in layers for value in _list_files(layer)]
    hashes = {name: digest for name in lists if (digest := _fingerprint(folder / name))}
    found = {"random_seed": solver.random_seed, "processes": processes, "lists": hashes}
    # SegData counts its batches itself; other layers are moved on by iter_size per iteration.
    counted = all(layer.type == "Python" for layer in layers)
    return found if counted else found | {"iter_size": solver.iter_size}


def require_same_settings(state: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise InputError when a run was started with other settings than it is continued with."""
    for key, words in WORDS.items():
        if key in before and key in now and before[key] != now[key]:
            raise _elsewhere(state, f"the run has {words} {before[key]}, not {now[key]}")
    for name, digest in before.get("lists", {}).items():
        if now["lists"].get(name, digest) != digest:
            raise _elsewhere(
                state,
                f"{name} has changed since the run began (SHA-256 {digest[:12]}… then, "
                f"{now['lists'][name][:12]}… now)",
            )


def require_same_layers(state: Path, layers: list[Message]) -> None:
    """Raise InputError when a snapshot's data layers read other batches than `layers` would."""
    for stored in _stored_layers(state.with_suffix(".caffemodel")):
        candidates = [layer for layer in layers if layer.name == stored.name]
        if not candidates:
            raise _elsewhere(state, f"the run reads layer '{stored.name}', which the net lacks now")
        differences = [_difference(stored, layer) for layer in candidates]
        if all(differences):
            raise _elsewhere(state, f"layer '{stored.name}' of the run has {differences[-1]}")


def data_layers(net: Message) -> list[Message]:
    """The layers that bring data into a net in training."""
    return [layer for layer in net.layer if _brings_data(layer) and _trains(layer)]


def _brings_data(layer: Message) -> bool:
    return not layer.bottom and layer.type not in PLACELESS


def _trains(layer: Message) -> bool:
    def for_test(rule: Message) -> bool:
        return rule.HasField("phase") and rule.phase == caffe_pb2.TEST

    return not layer.include or not all(map(for_test, layer.include))


def _stored_layers(model: Path) -> Iterator[Message]:
    """The data layers in a caffemodel that is known to be whole."""
    with wire.mapped(model) as view:
        for number, value in wire.records(view):
            if number != _LAYER:
                continue
            content = wire.content(value)
            if all(number != _BOTTOM for number, _ in wire.records(content)):
                layer = caffe_pb2.LayerParameter.FromString(bytes(content))
                if _brings_data(layer):
                    yield layer


def _difference(stored: Message, layer: Message) -> str:
    """The first thing in which two layers differ, with both values; "" if there is none."""
    before, now = _reading(stored), _reading(layer)
    for key in before | now:
        old, new = before.get(key), now.get(key)
        if old != new:
            return f"{key} {_shown(old)}, not {_shown(new)}"
    return ""


def _shown(value: object) -> str:
    return "unset" if value is None else str(value)


def _reading(layer: Message) -> dict[str, Any]:
    """What decides which examples a data layer puts into which batch."""
    found: dict[str, Any] = {"type": layer.type}
    if layer.type == "Python":
        found["module"] = f"{layer.python_param.module}.{layer.python_param.layer}"
        return found | _options(layer.python_param.param_str)
    for field, value in layer.ListFields():
        if field.message_type is not None and field.name.endswith("_param"):
            inner = [x for x in field.message_type.fields if x.name in FIELDS]
            found |= {x.name: getattr(value, x.name) for x in inner}
    return found


def _options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text or "{}")
    except (ValueError, RecursionError):
        options = None
    if not isinstance(options, dict):
        return {"param_str": text}
    return {key: _simple(options[key]) for key in KEYS if key in options}


def _simple(value: object) -> object:
    """A value that can be compared; the layer itself refuses others."""
    return shown(value) if isinstance(value, list | dict) else value


def _list_files(layer: Message) -> list[str]:
    reading = _reading(layer)
    return [str(reading[key]) for key in ("list", "source") if reading.get(key)]


def _fingerprint(path: Path) -> str:
    """The SHA-256 of a list; "" for a folder, or for what the layer will complain of."""
    try:
        return sha256_of(path) if path.is_file() else ""
    except (OSError, ValueError):
        return ""


def _elsewhere(state: Path, what: str) -> InputError:
    return InputError(
        f"{state}: {what}, so that training would go on elsewhere in its data; set it back, or "
        f"start a new run from these weights with --weights {state.with_suffix('.caffemodel')} "
        "--set snapshot_prefix=FOLDER/NAME"
    )
