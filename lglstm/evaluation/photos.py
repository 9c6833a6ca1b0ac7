"""Parsing collections of photos without truth: label maps, overlays, areas and score maps.

    OUT/labels/<name>.png      palette PNG at the photo's size
    OUT/overlays/<name>.jpg    photo, parts in color, legend
    OUT/scores/<name>.npy      float32 (C, h, w) at the net's input size, when wanted
    OUT/areas.csv              each part's share of each picture

A photo whose files are all there is not parsed again: that makes an interrupted collection go on,
here as on a Dask cluster whose worker died.
"""

from __future__ import annotations

import csv
import io
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lglstm.common import preprocessing
from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path, write_text
from lglstm.common.images import read_label, read_photo, write_label
from lglstm.common.labels import LabelSet
from lglstm.evaluation import nets
from lglstm.evaluation.inference import Parser
from lglstm.evaluation.overlay import overlay
from lglstm.evaluation.predictions import is_current
from lglstm.evaluation.samples import names_below

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif"}
AREAS = "areas.csv"


@dataclass(frozen=True)
class Photo:
    """A photo and the name of its results."""

    name: str
    path: Path


@dataclass(frozen=True)
class Wanted:
    """What to make of each photo, and where."""

    out: Path
    labels: LabelSet
    overlays: bool = True
    scores: bool = False

    def label(self, photo: Photo) -> Path:
        return self.out / "labels" / f"{photo.name}.png"

    def overlay(self, photo: Photo) -> Path:
        return self.out / "overlays" / f"{photo.name}.jpg"

    def score(self, photo: Photo) -> Path:
        return self.out / "scores" / f"{photo.name}.npy"

    def is_done(self, photo: Photo) -> bool:
        """Whether every wanted file of a photo is there and made since the photo was."""
        files = [self.label(photo)]
        files += [self.overlay(photo)] if self.overlays else []
        files += [self.score(photo)] if self.scores else []
        return all(is_current(file, photo.path) for file in files)


@dataclass(frozen=True)
class Parsed:
    """One photo done: pixels of each class; or `error`, why it could not be read."""

    photo: Photo
    size: tuple[int, int] = (0, 0)
    pixels: tuple[int, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Recipe:
    """What another process needs to make the same Parser; paths are absolute."""

    deploy: Path
    weights: Path
    gpu: int | None
    batch_size: int


def find_photos(paths: Sequence[Path]) -> list[Photo]:
    """The photos that are named, and those in folders, at any depth.

    Raises InputError when there are none, or two results would have the same name.
    """
    files = [file for path in paths for file in _files(path)]
    if not files:
        raise InputError(
            f"{', '.join(map(str, paths))}: no photos there ({', '.join(sorted(SUFFIXES))}); "
            "name photos or a folder that holds some"
        )
    files = list(dict.fromkeys(file.resolve() for file in files))
    names = names_below([str(file) for file in files])
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        twins = [str(file) for file, own in zip(files, names, strict=True) if own == name]
        raise InputError(
            f"{' and '.join(twins[:2])} would both become {name}.png; parse them one by one, with "
            "different --out"
        )
    return [Photo(name, file) for name, file in zip(names, files, strict=True)]


def parse_photos(parser: Parser, photos: Sequence[Photo], wanted: Wanted) -> Iterator[Parsed]:
    """Parse photos in bounded memory, in order; those that are done already come first."""
    pending = []
    for photo in photos:
        if wanted.is_done(photo):
            yield _measured(photo, read_label(wanted.label(photo)), wanted.labels)
        else:
            pending.append(photo)

    def finish(photo: Photo, picture: np.ndarray, scores: dict[str, np.ndarray]) -> Parsed:
        return _write(photo, picture, scores[nets.OUTPUT], wanted)

    for photo, future in parser.map(pending, _read, finish):
        try:
            yield future.result()
        except _UnreadableError as error:
            yield Parsed(photo, error=str(error))


def parse_chunk(recipe: Recipe, wanted: Wanted, photos: Sequence[Photo]) -> list[Parsed]:
    """Parse some photos in this process, which loads the net on its first call and keeps it."""
    with _one_at_a_time:
        return list(parse_photos(_parser(recipe), photos, wanted))


def areas_csv(results: Iterable[Parsed], labels: LabelSet) -> str:
    """One line per photo: its name, size, and the share of each class, from 0 to 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["photo", "width", "height", *labels.names])
    for result in results:
        if result.error:
            continue
        height, width = result.size
        shares = (f"{count / (height * width):.6f}" for count in result.pixels)
        writer.writerow([result.photo.name, width, height, *shares])
    return text.getvalue()


def write_areas(out: Path, results: Iterable[Parsed], labels: LabelSet) -> None:
    write_text(out / AREAS, areas_csv(results, labels))


_one_at_a_time = threading.Lock()  # a Dask worker has several threads, a net runs in one


@lru_cache(maxsize=1)
def _parser(recipe: Recipe) -> Parser:
    return Parser(recipe.deploy, recipe.weights, gpu=recipe.gpu, batch_size=recipe.batch_size)


class _UnreadableError(InputError):
    """One photo is bad; the others can still be parsed, unlike when nothing can be written."""


def _read(photo: Photo) -> np.ndarray:
    try:
        return read_photo(photo.path)
    except InputError as error:
        raise _UnreadableError(str(error)) from error


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    return sorted(file for file in found if file.is_file() and not file.name.startswith("."))


def _write(photo: Photo, picture: np.ndarray, scores: np.ndarray, wanted: Wanted) -> Parsed:
    ids = preprocessing.to_label_map(scores, picture.shape[:2])
    if wanted.scores:
        with atomic_path(wanted.score(photo)) as temporary:
            np.save(temporary, scores, allow_pickle=False)
    if wanted.overlays:
        with atomic_path(wanted.overlay(photo)) as temporary:
            overlay(picture, ids, wanted.labels).save(temporary, quality=88)
    write_label(wanted.label(photo), ids, wanted.labels.palette)
    return _measured(photo, ids, wanted.labels)


def _measured(photo: Photo, ids: np.ndarray, labels: LabelSet) -> Parsed:
    counts = np.bincount(ids.ravel(), minlength=labels.num_classes)
    return Parsed(photo, ids.shape, tuple(int(count) for count in counts))
