"""The options of the data layer, read from `param_str` and checked one by one.

`Augmentation` holds the ranges of all random changes to a training example; they are stated here
and nowhere else. docs/data_layer.md explains every key.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lglstm.common.errors import InputError
from lglstm.common.labels import IGNORE
from lglstm.common.preprocessing import MEAN_BGR
from lglstm.common.suggest import nearest

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
moderate: a hoof or tail may be cut off now and then, an animal never stands on its head.
"""


@dataclass(frozen=True)
class Options:
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


@dataclass(frozen=True)
class Rule:
    """What a key may hold: a test, and the words that say it."""

    allows: Callable[[Any], bool]
    words: str


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_list(value: Any, length: int, test: Callable[[Any], bool]) -> bool:
    return type(value) is list and len(value) == length and all(map(test, value))


def _whole(low: int, high: int) -> Rule:
    return Rule(
        lambda value: type(value) is int and low <= value <= high,
        f"a whole number from {low:,} to {high:,}",
    )


def _range(low: float, high: float) -> Rule:
    return Rule(
        lambda value: _is_list(value, 2, _is_number) and low <= value[0] <= value[1] <= high,
        f"[low, high] with {low} ≤ low ≤ high ≤ {high}",
    )


def _is_swaps(value: Any) -> bool:
    if type(value) is not list or not all(
        _is_list(pair, 2, lambda id_: type(id_) is int and 0 <= id_ <= 255) for pair in value
    ):
        return False
    ids = [id_ for pair in value for id_ in pair]
    return len(set(ids)) == len(ids)


_TRUTH = Rule(lambda value: type(value) is bool, "true or false")
_TEXT = Rule(lambda value: type(value) is str and value != "", "a path in quotes")

RULES: dict[str, Rule] = {
    "list": _TEXT,
    "root": _TEXT,
    "batch_size": _whole(1, 65_536),
    "input_size": Rule(
        lambda value: _is_list(value, 2, lambda side: type(side) is int and 1 <= side <= 16_384),
        "[height, width] in pixels, each from 1 to 16,384",
    ),
    "label_stride": _whole(1, 1_024),
    "num_classes": _whole(1, 256),
    "ignore_label": _whole(0, 255),
    "mean": Rule(
        lambda value: _is_list(value, 3, lambda part: _is_number(part) and 0 <= part <= 255),
        "[blue, green, red], each from 0 to 255",
    ),
    "box_jitter": _range(0, 1),
    "crop": _range(0.1, 1),
    "scale": _range(0.1, 10),
    "rotation": _range(-180, 180),
    "color": _range(0, 10),
    "mirror": _TRUTH,
    "mirror_swaps": Rule(_is_swaps, "pairs of ids such as [[9, 10], [12, 13]], each id once"),
    "train": _TRUTH,
    "shuffle": _TRUTH,
    "seed": _whole(0, 2**63 - 1),
    "prefetch": _whole(1, 1_024),
    "workers": _whole(0, 256),
    "rank": _whole(0, 65_535),
    "world_size": _whole(1, 65_536),
}
"""Every key of `param_str`; Options and Augmentation hold the defaults."""

_REQUIRED = ("list", "batch_size", "input_size", "num_classes")


def parse(text: str) -> Options:
    """Return the options that a `param_str` states.

    Raises InputError that names the layer by its list, the key, what was given and what is allowed.
    """
    try:
        given = json.loads(text or "{}")
    except ValueError as error:
        raise InputError(
            f"SegData layer: param_str is not JSON ({error}); write an object such as "
            '{"list": "data/horse/train.txt", "batch_size": 2, …}'
        ) from error
    if not isinstance(given, dict):
        raise InputError(f"SegData layer: param_str is {text}; it must be a JSON object {{…}}")
    where = f"SegData layer of {given.get('list', 'no list')}"
    for key, value in given.items():
        _check_key(where, key, value)
    for key in _REQUIRED:
        if key not in given:
            raise InputError(f"{where}: {key} is missing; it must be {RULES[key].words}")
    options = _build(given)
    _check_together(where, options)
    return options


def _check_key(where: str, key: str, value: Any) -> None:
    if key not in RULES:
        raise InputError(f"{where}: unknown key {key}; {nearest(key, RULES)}")
    if not RULES[key].allows(value):
        raise InputError(f"{where}: {key} is {json.dumps(value)}; it must be {RULES[key].words}")


def _build(given: dict[str, Any]) -> Options:
    frozen = {key: _frozen(value) for key, value in given.items()}
    names = {field.name for field in dataclasses.fields(Augmentation)}
    augmentation = Augmentation(**{key: frozen.pop(key) for key in names & frozen.keys()})
    frozen.setdefault("shuffle", frozen.get("train", False))
    return Options(augmentation=augmentation, **frozen)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _check_together(where: str, options: Options) -> None:
    """Refuse keys that are fine alone but contradict each other."""
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
    if options.rank is not None and options.rank >= options.world_size:
        raise InputError(
            f"{where}: rank is {options.rank}; it must be below world_size, {options.world_size}"
        )
