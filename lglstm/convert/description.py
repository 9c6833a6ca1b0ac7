"""What a converted file says of itself: names and colors of its labels, and how photos go in.

One JSON object under the key `lglstm` of a file's metadata: `metadata_props` of an ONNX file,
`__metadata__` of a safetensors file, a string beside the weights in a .pth file. Whoever has the
file needs no other to prepare a photo and to name and draw what comes out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lglstm.caffe_files import Net, wire
from lglstm.common import rules
from lglstm.common.errors import InputError, package_missing, reason_of
from lglstm.common.labels import LabelSet
from lglstm.common.preprocessing import MEAN_BGR, Size

KEY = "lglstm"
NOT_STATED = "not stated"
"""The license of weights of which nobody said one."""

PHOTO, LABELS = "photo", "labels"
"""Of ONNX graphs: the input of one that prepares photos itself, (batch, H, W, 3) uint8 RGB, and the
output of one that makes label maps, (batch, H, W) uint8 ids."""

_LONGEST = 1 << 20
"""Characters of a description; one with 255 labels takes a few thousand."""


@dataclass(frozen=True)
class Description:
    """A parsing net: one photo in, one map of class scores or of labels out.

    model: its name. label_set: of the output; None if nobody knows what the classes are.
    input_size: (height, width) that the net was trained on, to which photos are stretched.
    mean_bgr: is subtracted from the pixels, 0 … 255; `scale` multiplies what is left.
    channel_order: of the net's input, "BGR" or "RGB". license: of the weights, for people to read.
    source, source_sha256: name and hash of the file of weights that was converted.
    outputs: the names of what the net returns.
    """

    model: str
    label_set: LabelSet | None
    input_size: Size
    source: str
    source_sha256: str
    outputs: tuple[str, ...]
    license: str = NOT_STATED
    mean_bgr: tuple[float, float, float] = MEAN_BGR
    scale: float = 1.0
    channel_order: str = "BGR"

    def to_text(self) -> str:
        """The JSON object, on one line."""
        return json.dumps(
            {
                "model": self.model,
                "label_set": self.label_set and self.label_set.to_json(),
                "input_size": list(self.input_size),
                "mean_bgr": list(self.mean_bgr),
                "scale": self.scale,
                "channel_order": self.channel_order,
                "license": self.license,
                "source": self.source,
                "source_sha256": self.source_sha256,
                "outputs": list(self.outputs),
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_text(cls, text: str, where: str) -> Description:
        """Read what `to_text` wrote; `where` begins every message. Raises InputError."""
        given = _parsed(text, where)
        rules.check(where, given, _RULES, required=_RULES)
        labels = given["label_set"]
        height, width = given["input_size"]
        blue, green, red = given["mean_bgr"]
        return cls(
            model=given["model"],
            label_set=None if labels is None else LabelSet.from_json(labels, where),
            input_size=(height, width),
            source=given["source"],
            source_sha256=given["source_sha256"],
            outputs=tuple(given["outputs"]),
            license=given["license"],
            mean_bgr=(blue, green, red),
            scale=given["scale"],
            channel_order=given["channel_order"],
        )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str] | None, where: str) -> Description | None:
        """The description in a file's metadata; None if it has none. Raises InputError."""
        text = (metadata or {}).get(KEY)
        return None if text is None else cls.from_text(text, f"{where}: its description")


_LARGEST_SIDE = 65_536  # of a photo that OpenCV or Pillow writes as JPEG or PNG

_RULES = {
    "model": rules.TEXT,
    "label_set": rules.Rule(lambda x: x is None or isinstance(x, dict), "an object or null"),
    "input_size": rules.list_of(
        lambda x: type(x) is int and 1 <= x <= _LARGEST_SIDE, "[height, width] in pixels", 2
    ),
    "mean_bgr": rules.list_of(rules.is_number, "three numbers, blue first", 3),
    "scale": rules.number(1e-6, 1e6),
    "channel_order": rules.one_of("BGR", "RGB"),
    "license": rules.TEXT,
    "source": rules.TEXT,
    "source_sha256": rules.TEXT,
    "outputs": rules.list_of(lambda x: type(x) is str, "a list of names"),
}


def _parsed(text: str, where: str) -> dict[str, Any]:
    fault = "is longer than any description" if len(text) > _LONGEST else ""
    try:
        given = {} if fault else json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if fault or not isinstance(given, dict):
        raise InputError(f"{where} {fault or 'is not a JSON object'}; convert the model again")
    return given


def parsing_net(net: Net) -> tuple[Size, int] | None:
    """Input size and number of classes of a net that makes one score map of one photo, else None.

    The size is (height, width).
    """
    if len(net.inputs) != 1 or len(net.outputs) != 1:
        return None
    (batch,), (output,) = net.inputs.values(), net.outputs
    made = [
        shape
        for layer in net.layers
        for top, shape in zip(layer.tops, layer.top_shapes, strict=True)
        if top == output
    ]
    if len(batch) != 4 or batch[1] != 3 or not made or len(made[-1]) != 4:
        return None
    return (batch[2], batch[3]), made[-1][1]


def read_description(path: str | os.PathLike[str]) -> Description | None:
    """The description in an .onnx or a .safetensors file; None in files without one.

    Raises InputError for a damaged one, and for a file that cannot be read.
    """
    path = Path(path)
    read = {".onnx": _onnx_metadata, ".safetensors": _safetensors_metadata}.get(path.suffix.lower())
    if read is None:
        return None
    wire.require_readable(path)
    try:
        metadata = read(path)
    except ImportError as error:
        raise package_missing(path, error) from None
    except Exception as error:
        raise InputError(
            f"{path}: is damaged ({reason_of(error)}); convert the model again"
        ) from None
    return Description.from_metadata(metadata, str(path))


def _onnx_metadata(path: Path) -> dict[str, str]:
    import onnx

    model = onnx.load(path, load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}


def _safetensors_metadata(path: Path) -> dict[str, str] | None:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return file.metadata()
