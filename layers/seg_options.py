"""The options of the data layer, read from `param_str` and checked one by one.

`Augmentation` holds the ranges of all random changes to a training example; they are stated here
and nowhere else. docs/data_layer.md explains every key.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from typing import Any

from lglstm.common.errors import InputError
from lglstm.common.labels import IGNORE
from lglstm.common.preprocessing import MEAN_BGR
from lglstm.common.rules import (
    TRUTH,
    Rule,
    check,
    interval,
    is_list,
    is_number,
    list_of,
    parse_object,
    shown,
    whole,
)

LARGEST_BLOB = 2**31 - 1
"""Numbers in one of Caffe's blobs, which it counts with an int."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Augmentation:
    """Ranges [low, high] from which each example draws evenly; the defaults change nothing.

    The order is: box, crop, scale and rotation about the box's center, mirror, color.
    Labels move with their pixels and are never interpolated. What comes from outside the photo gets
    the mean as color and `ignore_label` as label.

    box_jitter: each side of the photo moves in by this part of its distance to the object's box,
        so the object stays whole: 0 leaves the side, 1 puts it at the object.
    crop: the part of the box's height and, drawn apart, of its width that an additional crop
        keeps, at a random place.
    scale: zoom; below 1 the object gets smaller.
    rotation: degrees, counter-clockwise.
    color: factor on the intensity of each color channel, drawn apart.
    mirror: flip left to right with probability ½.
    mirror_swaps: pairs of ids that trade places in a flipped label map.
    """

    box_jitter: Range = (0, 0)
    crop: Range = (1, 1)
    scale: Range = (1, 1)
    rotation: Range = (0, 0)
    color: Range = (1, 1)
    mirror: bool = False
    mirror_swaps: tuple[tuple[int, int], ...] = ()


HORSE_COW_AUGMENTATION: dict[str, Any] = {
    "box_jitter": [0, 1],
    "crop": [0.85, 1],
    "scale": [0.85, 1.15],
    "rotation": [-10, 10],
    "color": [0.8, 1.2],
    "mirror": True,
}
"""Augmentation of the Horse-Cow models, as keys of `param_str`.

The paper follows the authors' earlier work: a random box around the object, an additional crop,
flips, color-intensity scaling and rotation. It states no ranges: these are ours. The box takes in
anything between the object alone and all of the context that the prepared crop has. The others are
moderate: a hoof or tail may be cut off now and then, but an animal is never upside down.
"""


@dataclass(frozen=True)
class SegDataOptions:
    """What `param_str` says, complete with defaults; see docs/data_layer.md."""

    list: str
    batch_size: int
    input_size: tuple[int, int]
    num_classes: int
    root: str | None = None
    label_stride: int = 1
    ignore_label: int = IGNORE
    mean: tuple[float, float, float] = MEAN_BGR
    augmentation: Augmentation = Augmentation()
    train: bool = False
    shuffle: bool = False
    seed: int = 0
    prefetch: int = 4
    workers: int = 2
    rank: int | None = None
    world_size: int | None = None

    @property
    def data_shape(self) -> tuple[int, int, int, int]:
        """(B, 3, H, W) of the top `data`."""
        return (self.batch_size, 3, *self.input_size)

    @property
    def label_shape(self) -> tuple[int, int, int, int]:
        """(B, 1, h, w) of the top `label`."""
        height, width = (math.ceil(side / self.label_stride) for side in self.input_size)
        return (self.batch_size, 1, height, width)

    def to_json(self) -> str:
        """The `param_str` that gives these options again."""
        settings = dataclasses.asdict(self)
        settings |= settings.pop("augmentation")
        return json.dumps({key: value for key, value in settings.items() if value is not None})


def _is_swaps(value: Any) -> bool:
    if not is_list(value, lambda pair: is_list(pair, whole(0, 255).allows, 2)):
        return False
    ids = [id_ for pair in value for id_ in pair]
    return len(set(ids)) == len(ids)


def _is_path(value: Any) -> bool:
    """Whether a file may have this name: neither NUL nor half a character of UTF-16 is in it."""
    try:
        return type(value) is str and value != "" and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


_PATH = Rule(_is_path, "a path in quotes")

RULES: dict[str, Rule] = {
    "list": _PATH,
    "root": _PATH,
    "batch_size": whole(1, 65_536),
    "input_size": list_of(
        whole(1, 16_384).allows, "[height, width] in pixels, each from 1 to 16,384", length=2
    ),
    "label_stride": whole(1, 1_024),
    "num_classes": whole(1, 256),
    "ignore_label": whole(0, 255),
    "mean": list_of(
        lambda part: is_number(part) and 0 <= part <= 255,
        "[blue, green, red], each from 0 to 255",
        length=3,
    ),
    "box_jitter": interval(0, 1),
    "crop": interval(0.1, 1),
    "scale": interval(0.1, 10),
    "rotation": interval(-180, 180),
    "color": interval(0, 10),
    "mirror": TRUTH,
    "mirror_swaps": Rule(_is_swaps, "pairs of ids such as [[9, 10], [12, 13]], each id once"),
    "train": TRUTH,
    "shuffle": TRUTH,
    "seed": whole(0, 2**63 - 1),
    "prefetch": whole(1, 1_024),
    "workers": whole(0, 256),
    "rank": whole(0, 65_535),
    "world_size": whole(1, 65_536),
}
"""Every key of `param_str`; SegDataOptions and Augmentation hold the defaults."""

REQUIRED = ("list", "batch_size", "input_size", "num_classes")

EXAMPLE = '{"list": "data/horse/train.txt", "batch_size": 2, …}'


def parse(text: str) -> SegDataOptions:
    """Return the options that a `param_str` states.

    Raises InputError that names the layer by its list, the key, what was given and what is allowed.
    """
    given = parse_object("SegData layer", text, EXAMPLE)
    name = given.get("list", "no list")
    where = f"SegData layer of {name if _is_path(name) else shown(name)}"
    check(where, given, RULES, REQUIRED)
    options = _build(given)
    _check_together(where, options)
    return options


def seg_data_layers(net: Any) -> list[Any]:
    """The SegData layers of a net, a NetParameter of Caffe's or of lglstm.caffe_files.schema."""
    return [layer for layer in net.layer if layer.python_param.layer == "SegData"]


def of_net(net: Any, path: str | os.PathLike[str]) -> SegDataOptions:
    """The options of a training net's one SegData layer; path: the net's file, for an error."""
    layers = seg_data_layers(net)
    if len(layers) != 1:
        raise InputError(
            f"{path}: has {len(layers)} SegData layers, not one; name the train.prototxt of a model"
        )
    return parse(layers[0].python_param.param_str)


def _build(given: dict[str, Any]) -> SegDataOptions:
    frozen = {key: _frozen(value) for key, value in given.items()}
    names = {field.name for field in dataclasses.fields(Augmentation)}
    augmentation = Augmentation(**{key: frozen.pop(key) for key in names & frozen.keys()})
    frozen.setdefault("shuffle", frozen.get("train", False))
    return SegDataOptions(augmentation=augmentation, **frozen)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _check_together(where: str, options: SegDataOptions) -> None:
    """Refuse keys that are fine alone but contradict each other."""
    if math.prod(options.data_shape) > LARGEST_BLOB:
        raise InputError(
            f"{where}: batch_size and input_size ask for {math.prod(options.data_shape):,} numbers "
            f"at a time; Caffe allows {LARGEST_BLOB:,}, so make one of them smaller"
        )
    beyond = [
        id_ for pair in options.augmentation.mirror_swaps for id_ in pair
        if id_ >= options.num_classes
    ]  # fmt: skip
    if beyond:
        raise InputError(
            f"{where}: mirror_swaps names id {beyond[0]}; it must be below num_classes, "
            f"{options.num_classes}"
        )
    if (options.rank is None) != (options.world_size is None):
        raise InputError(f"{where}: rank and world_size belong together; give both or neither")
    if options.rank is None or options.world_size is None:
        return
    if options.rank >= options.world_size:
        raise InputError(
            f"{where}: rank is {options.rank}; it must be below world_size, {options.world_size}"
        )
