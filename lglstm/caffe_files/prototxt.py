"""Reads prototxts without Caffe, or into Caffe's own messages; says in one sentence what is wrong.

`read_message` reads any prototxt as it is; `read_prototxt` a net's as Caffe would build it: old
forms upgraded, layers of the other phase left out.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from google.protobuf import text_format

from lglstm.caffe_files import wire
from lglstm.caffe_files.layer_types import LAYER_TYPES
from lglstm.caffe_files.schema import V1_LAYER_TYPES, LayerParameter, NetParameter
from lglstm.common.errors import InputError

if TYPE_CHECKING:
    from lglstm.caffe_files.schema import Message, ParamSpec

AnyMessage = TypeVar("AnyMessage", bound="Message")

# Nets of a thousand layers have half of it; protobuf's parser takes seconds for it.
_MAX_BYTES = 2 << 20
_MAX_DEPTH = 64
_SHOWN = 160
"""Characters of protobuf's reason that a message shows; it quotes whole lines."""

# A string that is not closed ends with its line: were it no token, its rest would be searched for
# one from each of its quotes anew.
_TOKEN = re.compile(
    r""""(?:\\.|[^"\\\n])*+"?|'(?:\\.|[^'\\\n])*+'?|\#[^\n]*|[A-Za-z_]\w*|[][{}<>\n]"""
)


def read_message(
    path: str | os.PathLike[str], message: AnyMessage, for_caffe: bool = False
) -> AnyMessage:
    """Read a prototxt into `message`, one of lglstm.caffe_files.schema or of pycaffe; return it.

    for_caffe: Caffe will read the file itself, so what only Caffe refuses is refused, too.
    Raises InputError with the file's line when it is missing or is not such a message.
    """
    path = Path(path)
    text = _read_text(path, for_caffe)
    _layer_lines(path, text)
    error = _parse(text, message)
    if error is not None:
        raise _not_a_message(path, message, error)
    return message


def read_prototxt(
    path: str | os.PathLike[str], phase: str = "TEST", stages: Collection[str] = ()
) -> tuple[NetParameter, list[int]]:
    """Read a net's prototxt; return its message and the line at which each layer begins.

    The older forms (`layers`, `input`, `input_dim`) become today's, and layers whose include and
    exclude rules leave them out of `phase` are dropped, as Caffe does on loading; stages: those
    that the net is in, besides the ones that it names itself. Raises InputError with the file's
    line for text that is not a net.
    """
    path = Path(path)
    text = _read_text(path)
    lines = _layer_lines(path, text)
    net = _parse_net(path, text)
    if net.layer and net.layers:
        raise InputError(
            f"{path}: has both 'layer' and 'layers' entries; use the current 'layer' throughout"
        )
    layers = [*net.layer, *(_upgraded(layer) for layer in net.layers)]
    stages = {*stages, *net.state.stage}
    kept = [
        (layer, line)
        for layer, line in zip(layers, lines, strict=True)
        if _in(layer, phase, stages)
    ]
    kept = [(layer, 1) for layer in _input_layers(path, net)] + kept
    result = NetParameter(name=net.name, layer=[layer for layer, _ in kept])
    return result, [line for _, line in kept]


def _read_text(path: Path, for_caffe: bool = False) -> str:
    """The file's text, without the byte-order mark that Windows' editors begin it with."""
    with wire.opened(path) as file:
        try:
            content = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if len(content) > _MAX_BYTES:
        raise InputError(
            f"{path}: has more than {_MAX_BYTES:,} bytes, too many for a prototxt; give the text "
            "description, not the weights"
        )
    if for_caffe and content.startswith(codecs.BOM_UTF8):
        raise InputError(
            f"{path}: begins with a byte-order mark, which Caffe cannot read; save it as UTF-8 "
            "without one"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text; give a prototxt here, not the weights") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path}: line {line}: holds a NUL, which is not text; remove it")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _layer_lines(path: Path, text: str) -> list[int]:
    """The line of each layer's `{`, in order, by counting brackets outside strings.

    Layers may also be written as a list, `layer: [{…}, {…}]`.
    """
    found, line, depth, previous, listed = [], 1, 0, "", False
    for token in _TOKEN.findall(text):
        if token[0] == "\n":
            line += 1
            continue
        if token[0] == "#":
            continue
        if token in "{<":
            if depth == 0 and (listed or previous in ("layer", "layers")):
                found.append(line)
            depth += 1
            if depth > _MAX_DEPTH:
                raise InputError(f"{path}: line {line}: is nested too deep for a net; correct it")
        elif token in "}>":
            depth -= 1
        elif depth == 0 and token in "[]":
            listed = token == "[" and previous in ("layer", "layers")
        previous = token
    return found


def _parse_net(path: Path, text: str) -> NetParameter:
    net = NetParameter()
    error = _parse(text, net)
    if error is None:
        return net
    # Layers of Caffe's many forks have parameters of their own. Read around them here, so that
    # the layer can be refused by its name; if every layer is known, the field is a mistake.
    net = NetParameter()
    other = _parse(text, net, allow_unknown_field=True)
    if other is not None or all(layer.type in LAYER_TYPES for layer in net.layer):
        raise _not_a_message(path, net, other or error)
    return net


def _parse(text: str, message: Message, allow_unknown_field: bool = False) -> Exception | None:
    """Parse text into a message; return the error, if there is one."""
    try:
        text_format.Parse(
            text,
            message,
            allow_unknown_field=allow_unknown_field,
            descriptor_pool=message.DESCRIPTOR.file.pool,
        )
    except (text_format.ParseError, RecursionError) as error:
        return error
    return None


def _not_a_message(path: Path, message: Message, error: Exception) -> InputError:
    package = message.DESCRIPTOR.file.package
    reason = " ".join(str(error).split()).replace(f'"{package}.', '"').rstrip(".")
    reason = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in reason)
    reason = re.sub(r"\S{48,}", lambda word: f"{word[0][:24]}…{word[0][-8:]}", reason)
    if len(reason) > _SHOWN:
        reason = f"{reason[: _SHOWN // 3]} … {reason[-2 * _SHOWN // 3 :]}"
    return InputError(
        f"{path}: is not a Caffe {message.DESCRIPTOR.name}: {reason}; correct the file"
    )


def _upgraded(old: Message) -> LayerParameter:
    """A layer of the older format as one of today's."""
    layer = LayerParameter(name=old.name, bottom=old.bottom, top=old.top)
    layer.type = V1_LAYER_TYPES[old.type]
    layer.loss_weight.extend(old.loss_weight)
    layer.include.extend(old.include)
    layer.exclude.extend(old.exclude)
    for index, name in enumerate(old.param):
        _param(layer, index).name = name
    for index, mode in enumerate(old.blob_share_mode):
        _param(layer, index).share_mode = mode
    for index, rate in enumerate(old.blobs_lr):
        _param(layer, index).lr_mult = rate
    for index, decay in enumerate(old.weight_decay):
        _param(layer, index).decay_mult = decay
    for field, value in old.ListFields():
        if field.name.endswith("_param"):
            getattr(layer, field.name).CopyFrom(value)
    return layer


def _param(layer: LayerParameter, index: int) -> ParamSpec:
    while len(layer.param) <= index:
        layer.param.add()
    return layer.param[index]


def _input_layers(path: Path, net: NetParameter) -> list[LayerParameter]:
    """The net-level `input:` entries as an Input layer."""
    if not net.input:
        return []
    shapes = [list(shape.dim) for shape in net.input_shape]
    if not shapes:
        dims = list(net.input_dim)
        shapes = [dims[at : at + 4] for at in range(0, len(dims), 4)]
    if len(shapes) != len(net.input) or any(not shape for shape in shapes):
        raise InputError(
            f"{path}: names {len(net.input)} inputs but gives {len(shapes)} shapes; give one "
            "input_shape, or four input_dim, for each"
        )
    layer = LayerParameter(name="input", type="Input", top=net.input)
    for shape in shapes:
        layer.input_param.shape.add().dim.extend(shape)
    return [layer]


def _in(layer: LayerParameter, phase: str, stages: Collection[str]) -> bool:
    """Whether Caffe would take the layer into the net of this phase, at level 0."""
    if layer.include:
        return any(_meets(rule, phase, stages) for rule in layer.include)
    return not any(_meets(rule, phase, stages) for rule in layer.exclude)


def _meets(rule: Message, phase: str, stages: Collection[str]) -> bool:
    wanted = {"TRAIN": 0, "TEST": 1}[phase]
    return (
        (not rule.HasField("phase") or rule.phase == wanted)
        and (not rule.HasField("min_level") or rule.min_level <= 0)
        and (not rule.HasField("max_level") or rule.max_level >= 0)
        and all(stage in stages for stage in rule.stage)
        and not any(stage in stages for stage in rule.not_stage)
    )
