"""Synthetic quadrupeds with the Horse-Cow labels, for tests and the demo; nothing is downloaded.

Every part of an animal shares one color and one texture, and neck, legs and tail are the same
tapered stroke. A window of a few pixels can tell animal from ground, but not a leg from the tail
that hangs beside it, nor the neck from either, nor any of them from the twigs of the same color
that lie about: that takes the whole figure (what is attached where, and at which end the head is).

`make_synthetic` writes a set in PASCAL-Part layout, which `lglstm data horse-cow` reads like the
real one; `draw_animal` and `draw_example` return arrays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.io

from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path, write_text
from lglstm.common.labels import label_set
from lglstm.common.locks import locked

SMALLEST_SIZE = 33
ENLARGE = 4
"""Figures are drawn this much larger, then averaged down, for smooth edges."""

PART_CLASS = {"head": 1, "ear": 1, "neck": 2, "torso": 2, "leg": 3, "tail": 4}
"""The id of each kind of part; the neck belongs to the body, as in `lglstm.data_prep.horse_cow`."""

MAT_TEXT = b"MATLAB 5.0 MAT-file, drawn by lglstm data synthetic".ljust(116)
"""What a file says of itself; SciPy's text has the time, and equal seeds must give equal files."""

CLASS_INDEX = {"cow": 10, "horse": 13}
"""PASCAL VOC's numbers of the two classes."""


RISES = ((25, 70), (-20, 20), (-75, -30))
"""Degrees above the horizon at which a neck or a tail may leave the body: up, level, down."""


@dataclass(frozen=True)
class Stroke:
    """A tapered curve: points (n, 2) in x, y and a radius at each, in units of the image side."""

    part: str
    points: np.ndarray
    radii: np.ndarray


@dataclass(frozen=True)
class Animal:
    """A drawn example: image (S, S, 3) uint8 BGR, and PASCAL-Part's masks (S, S) uint8 by name.

    The masks do not overlap, and together they are the animal.
    """

    image: np.ndarray
    parts: dict[str, np.ndarray]


def make_synthetic(
    destination: str | os.PathLike[str],
    count_train: int,
    count_test: int,
    size: int = 97,
    seed: int = 0,
    animal_class: str = "horse",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write `count_train` + `count_test` examples of size × size pixels in PASCAL-Part layout.

    JPEGImages/<id>.png, Annotations_Part/<id>.mat and ImageSets/{train,test}.txt. The same seed
    and size give the same pictures. Raises InputError for counts or sizes that make no set.
    """
    if count_train < 1 or count_test < 1:
        raise InputError(
            f"{count_train} training and {count_test} test images: ask for at least one of each"
        )
    label_set(animal_class)
    root = Path(destination)
    total = count_train + count_test
    names = [f"synthetic_{k:05d}" for k in range(total)]
    with locked(root, advice="choose another folder"):
        for k, name in enumerate(names):
            _write(root, name, draw_animal(size, seed, k), animal_class)
            on_progress(k + 1, total)
        for split, listed in (("train", names[:count_train]), ("test", names[count_train:])):
            lines = "".join(f"{name}\n" for name in listed)
            write_text(root / "ImageSets" / f"{split}.txt", lines)


def _write(root: Path, name: str, animal: Animal, animal_class: str) -> None:
    """Write photo and annotation of one example."""
    with atomic_path(root / "JPEGImages" / f"{name}.png", sync=False) as temporary:
        temporary.write_bytes(cv2.imencode(".png", animal.image)[1].tobytes())
    with atomic_path(root / "Annotations_Part" / f"{name}.mat", sync=False) as temporary:
        anno = _annotation(name, animal, animal_class)
        scipy.io.savemat(temporary, {"anno": anno}, do_compression=True)
        with temporary.open("r+b") as file:
            file.write(MAT_TEXT)


def draw_example(size: int = 97, seed: int = 0, index: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return image (size, size, 3) uint8 BGR and label (size, size) uint8 of one example."""
    animal = draw_animal(size, seed, index)
    label = np.zeros((size, size), np.uint8)
    for name, mask in animal.parts.items():
        label[mask > 0] = PART_CLASS[_kind(name)]
    return animal.image, label


def draw_animal(size: int = 97, seed: int = 0, index: int = 0) -> Animal:
    """Draw example `index` of the endless set `seed`; each is independent of the others."""
    if size < SMALLEST_SIZE:
        raise InputError(f"size {size}: a quadruped needs at least {SMALLEST_SIZE} pixels")
    rng = np.random.default_rng([seed, index])
    strokes = _place(rng, list(_figure(rng)))
    coverage = [_paint(stroke, size) for stroke in strokes]
    owner = np.full((size, size), -1)
    for k, cover in enumerate(coverage):
        owner[cover > 0.5] = k
    parts: dict[str, np.ndarray] = {}
    for k, stroke in enumerate(strokes):
        mask = parts.setdefault(stroke.part, np.zeros((size, size), np.uint8))
        mask |= (owner == k).astype(np.uint8)
    figure = np.max(coverage, axis=0)
    twigs = _twigs(rng, figure, size)
    return Animal(_color(rng, np.maximum(figure, twigs), size), parts)


# ---------------------------------------------------------------- the figure


def _figure(rng: np.random.Generator) -> Iterator[Stroke]:
    """Yield the strokes of an animal facing right, back to front; y points down."""
    length, depth = rng.uniform(0.30, 0.40), rng.uniform(0.075, 0.10)
    limb = rng.uniform(0.24, 0.31)  # legs, neck and tail are about as long as each other
    width = rng.uniform(0.024, 0.030)
    hip, shoulder = np.array([-length / 2, 0.0]), np.array([length / 2, 0.0])

    yield from _tail(rng, hip + np.array([-0.75 * depth, 0.0]), depth, limb, width)
    for side, nearness in (("l", 0.5), ("r", 1.0)):
        for end, anchor, inward in (("b", hip, 1), ("f", shoulder, -1)):
            x = anchor[0] + inward * depth * (0.9 - 1.1 * nearness) + rng.uniform(-0.01, 0.01)
            swing, knee = rng.uniform(-24, 24), rng.uniform(-22, 22)
            leg = _limb(rng, "leg", (x, 0.3 * depth), 90 + swing, knee, limb + depth * 0.5, width)
            half = len(leg.points) // 2
            for name, part in (("uleg", slice(None, half + 1)), ("lleg", slice(half, None))):
                yield Stroke(f"{side}{end}{name}", leg.points[part], leg.radii[part])

    belly = np.linspace(0, 1, 24)[:, None]
    sag = np.hstack([np.zeros_like(belly), 0.25 * depth * np.sin(np.pi * belly)])
    radii = depth * (1 + 0.12 * np.cos(2 * np.pi * belly[:, 0]) + rng.uniform(-0.05, 0.05))
    yield Stroke("torso", hip + belly * (shoulder - hip) + sag, radii)

    yield from _neck_and_head(rng, shoulder + np.array([0.6 * depth, 0.0]), depth, limb, width)


def _tail(
    rng: np.random.Generator, anchor: np.ndarray, depth: float, limb: float, width: float
) -> Iterator[Stroke]:
    """Yield a tail that is raised, level or hanging like a leg, some with a tuft at the end."""
    rise = rng.uniform(*RISES[rng.choice(3, p=[0.3, 0.25, 0.45])])
    start = anchor + np.array([0, -0.45 * depth])
    length = limb * rng.uniform(0.85, 1.1)
    tail = _limb(rng, "tail", start, 180 + rise, rng.uniform(-25, 25), length, width)
    yield tail
    if rng.random() < 0.4:
        tuft = np.array([0.7, 1.0, 0.8]) * width * rng.uniform(1.3, 1.6)
        yield Stroke("tail", tail.points[-3:], tuft)


def _neck_and_head(
    rng: np.random.Generator, anchor: np.ndarray, depth: float, limb: float, width: float
) -> Iterator[Stroke]:
    """Yield the neck, that is raised, level or lowered to graze, and the head at its end."""
    rise = rng.uniform(*RISES[rng.choice(3, p=[0.5, 0.2, 0.3])])
    start = anchor + np.array([0, -0.45 * depth])
    length = limb * rng.uniform(0.8, 1.0)
    neck = _limb(rng, "neck", start, -rise, rng.uniform(-20, 20), length, width)
    yield Stroke("neck", neck.points, neck.radii.mean() * np.ones(len(neck.radii)) + 0.003)
    yield from _head(rng, neck, width)


def _head(rng: np.random.Generator, neck: Stroke, width: float) -> Iterator[Stroke]:
    """Yield the blob at the neck's end, longer toward the muzzle, and two small ears."""
    tip = neck.points[-1]
    along = neck.points[-1] - neck.points[-4]
    heading = np.degrees(np.arctan2(along[1], along[0]))
    pointing = np.radians(0.5 * heading + rng.uniform(15, 55))
    forward = np.array([np.cos(pointing), np.sin(pointing)])
    reach = np.linspace(-0.25, 1, 12)[:, None]
    size = width * rng.uniform(1.75, 2.1)
    upward = np.array([forward[1], -forward[0]])
    for name, lean in (("lear", -0.9), ("rear", -0.2)):
        direction = upward + lean * forward
        root = tip + 0.5 * size * upward - 0.2 * size * forward
        points = root + np.linspace(0, 1.25, 8)[:, None] * size * direction / np.linalg.norm(
            direction
        )
        yield Stroke(name, points, np.linspace(0.42, 0.12, 8) * size)
    yield Stroke("head", tip + reach * 1.7 * size * forward, size * np.linspace(1.05, 0.62, 12))


def _limb(
    rng: np.random.Generator,
    part: str,
    start: np.ndarray | tuple[float, float],
    angle: float,
    bend: float,
    length: float,
    width: float,
) -> Stroke:
    """Return a tapered stroke that leaves `start` at `angle` degrees and turns by `bend`."""
    turn = np.radians(angle + np.linspace(0, bend, 17))
    steps = np.stack([np.cos(turn), np.sin(turn)], 1) * length / 16
    points = np.asarray(start) + np.vstack([np.zeros(2), np.cumsum(steps[:-1], 0)])
    return Stroke(part, points, width * np.linspace(1.15, 0.8, 17) * rng.uniform(0.95, 1.05))


def _place(rng: np.random.Generator, strokes: list[Stroke]) -> list[Stroke]:
    """Mirror, tilt, scale and shift the figure so that it lies within the unit square."""
    flip = rng.choice([-1.0, 1.0])
    tilt = np.radians(rng.uniform(-12, 12))
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    moved = [(s.points * (flip, 1.0)) @ turn for s in strokes]
    low = np.min([(p - s.radii[:, None]).min(0) for p, s in zip(moved, strokes, strict=True)], 0)
    high = np.max([(p + s.radii[:, None]).max(0) for p, s in zip(moved, strokes, strict=True)], 0)
    scale = rng.uniform(0.84, 0.95) / (high - low).max()
    scale = min(scale, 1.35)
    room = 1 - scale * (high - low)
    corner = room * rng.uniform(0.15, 0.85, 2)
    return [
        Stroke(s.part, (p - low) * scale + corner, s.radii * scale)
        for p, s in zip(moved, strokes, strict=True)
    ]


# ---------------------------------------------------------------- the picture


def _paint(stroke: Stroke, size: int) -> np.ndarray:
    """Return how much of each pixel the stroke covers, (size, size) float32 in 0 … 1."""
    big = np.zeros((size * ENLARGE, size * ENLARGE), np.uint8)
    steps = np.linspace(0, len(stroke.points) - 1, 3 * len(stroke.points))
    grid = np.arange(len(stroke.points))
    x, y = (np.interp(steps, grid, stroke.points[:, axis]) for axis in (0, 1))
    radii = np.interp(steps, grid, stroke.radii)
    for values in zip(x, y, radii, strict=True):
        u, v, r = (round(float(value) * size * ENLARGE * 16) for value in values)
        cv2.circle(big, (u, v), r, 255, cv2.FILLED, cv2.LINE_8, shift=4)
    return cv2.resize(big, (size, size), interpolation=cv2.INTER_AREA) / np.float32(255)


def _twigs(rng: np.random.Generator, figure: np.ndarray, size: int) -> np.ndarray:
    """Return the coverage of strokes like limbs, lying where they do not touch the animal."""
    near = cv2.dilate(figure, np.ones((2 * (size // 32) + 1,) * 2, np.uint8))
    twigs = np.zeros_like(figure)
    for _ in range(rng.integers(3, 7)):
        start, angle = rng.uniform(0, 1, 2), rng.uniform(40, 140)
        length, width = rng.uniform(0.12, 0.26), rng.uniform(0.022, 0.028)
        twig = _paint(_limb(rng, "twig", start, angle, rng.uniform(-40, 40), length, width), size)
        if not (near * twig).any():
            twigs = np.maximum(twigs, twig)
    return twigs


def _color(rng: np.random.Generator, cover: np.ndarray, size: int) -> np.ndarray:
    """Blend coat and ground by `cover`; both are one color under the same kind of grain."""
    coat, ground = _colors(rng)
    layers = [color + _grain(rng, size) for color in (ground, coat)]
    cover = cover[:, :, None]
    mixed = layers[0] * (1 - cover) + layers[1] * cover
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _colors(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return two random colors, BGR, different enough to be seen apart and no more."""
    while True:
        coat, ground = rng.uniform(60, 200, (2, 1)) + rng.normal(0, 20, (2, 3))
        if 50 < np.linalg.norm(coat - ground) < 110 and abs(coat.mean() - ground.mean()) > 18:
            return coat, ground


def _grain(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a (size, size, 3) texture of several scales around zero."""
    total = np.zeros((size, size, 3), np.float32)
    for cell, amplitude in ((1, 5.0), (3, 6.0), (8, 6.0)):
        small = rng.standard_normal((size // cell + 2, size // cell + 2, 1)).astype(np.float32)
        tint = 1 + 0.3 * rng.standard_normal(3).astype(np.float32)
        total += (
            amplitude
            * tint
            * cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
        )
    return total


# ---------------------------------------------------------------- PASCAL-Part's struct


def _kind(part: str) -> str:
    """Return the key of PART_CLASS for one of PASCAL-Part's names."""
    if part.endswith("leg"):
        return "leg"
    return "ear" if part in ("lear", "rear") else part


def _annotation(name: str, animal: Animal, animal_class: str) -> dict[str, Any]:
    """Return the `anno` struct of one image, as PASCAL-Part has it."""
    parts = np.zeros((1, len(animal.parts)), [("part_name", "O"), ("mask", "O")])
    for k, (part, mask) in enumerate(animal.parts.items()):
        parts[0, k] = (part, mask)
    objects = np.zeros((1, 1), [("class", "O"), ("class_ind", "O"), ("mask", "O"), ("parts", "O")])
    whole = np.maximum.reduce(list(animal.parts.values()))
    objects[0, 0] = (animal_class, float(CLASS_INDEX[animal_class]), whole, parts)
    return {"imname": name, "objects": objects}
