"""Parsing collections of photos without truth: label maps, overlays, areas and score maps.

    OUTPUT/labels/<name>.png      palette PNG at the photo's size
    OUTPUT/overlays/<name>.jpg    photo, parts in color, legend
    OUTPUT/scores/<name>.npy      float32 (C, h, w) at the net's input size, when wanted
    OUTPUT/areas.csv              each part's share of each picture

A photo whose files are all there, made from its content by the same net, is not parsed again: that
makes an interrupted collection go on, here as on a Dask cluster whose worker died. The label map is
written last and holds the mark of all of them (`resume.mark_of`).
"""

from __future__ import annotations

import csv
import errno
import io
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lglstm.common.convolution_engine import VARIABLE
from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path, write_text
from lglstm.common.images import PHOTO_SUFFIXES, read_label, read_photo, refuse_address, write_label
from lglstm.common.labels import LabelSet
from lglstm.evaluation import nets
from lglstm.evaluation.engines import Gpu, NetFiles
from lglstm.evaluation.image_list import names_below
from lglstm.evaluation.overlay import overlay_with_legend
from lglstm.evaluation.predictor import THREADS, Prediction, Predictor
from lglstm.evaluation.resume import (
    LABELS,
    MARK,
    OVERLAYS,
    PARTS,
    SCORES,
    MadeBy,
    is_claimed,
    is_current,
    is_marked,
    made_by,
    mark_of,
    photo_sha256,
    read_marked,
    refuse_folder,
)

AREAS = "areas.csv"


@dataclass(frozen=True)
class Photo:
    """A photo and the name of its results."""

    name: str
    path: Path


@dataclass(frozen=True)
class ResultFiles:
    """The files to make of each photo: where, by what, and which of the optional ones.

    made_by: see `resume.made_by`.
    """

    folder: Path
    labels: LabelSet
    made_by: MadeBy
    overlays: bool = True
    scores: bool = False

    def label(self, photo: Photo) -> Path:
        return self.folder / LABELS / f"{photo.name}.png"

    def overlay(self, photo: Photo) -> Path:
        return self.folder / OVERLAYS / f"{photo.name}.jpg"

    def score(self, photo: Photo) -> Path:
        return self.folder / SCORES / f"{photo.name}.npy"

    def all_of(self, photo: Photo) -> list[Path]:
        """The files of a photo, the optional ones included, which are removed if not wanted."""
        return [self.label(photo), self.overlay(photo), self.score(photo)]

    def are_current(self, photo: Photo) -> bool:
        """Whether every file of a photo is there and made from its content by the same net."""
        files = [self.label(photo)]
        files += [self.overlay(photo)] if self.overlays else []
        files += [self.score(photo)] if self.scores else []
        if not all(file.is_file() for file in files):
            return False
        digest = photo_sha256(photo.path)
        return bool(digest) and is_current(self.label(photo), mark_of(self.made_by, digest))


@dataclass(frozen=True)
class ParsedPhoto:
    """One photo done: (H, W) and the pixels of each class; or `error`, why it was not read."""

    photo: Photo
    size: tuple[int, int] = (0, 0)
    pixels: tuple[int, ...] = ()
    error: str = ""

    @property
    def shares(self) -> list[float]:
        """The share of each class in the photo, 0 to 1."""
        return [count / (self.size[0] * self.size[1]) for count in self.pixels]


@dataclass(frozen=True)
class PredictorSettings:
    """What makes a Predictor, in another process too if the paths are absolute."""

    files: NetFiles
    backend: str
    gpu: Gpu
    batch_size: int
    trust_net: bool

    def open(self) -> Predictor:
        return Predictor(
            self.files,
            gpu=self.gpu,
            batch_size=self.batch_size,
            backend=self.backend,
            trust_net=self.trust_net,
        )


def find_photos(paths: Sequence[Path]) -> list[Photo]:
    """The photos that are named, and those in folders, at any depth, without results of ours.

    Photos that differ in their suffix alone keep it in their names. Raises InputError when there
    are none, and for a folder that cannot be entered.
    """
    for path in paths:
        refuse_address(path)
    files = [file for path in paths for file in _files(path)]
    if not files:
        raise InputError(
            f"{', '.join(map(str, paths))}: no photos there ({', '.join(sorted(PHOTO_SUFFIXES))}); "
            "name photos or a folder that holds some"
        )
    files = list(dict.fromkeys(file.resolve() for file in files))
    names = names_below([str(file) for file in files])
    whole = [name + file.suffix for name, file in zip(names, files, strict=True)]
    while twins := {name for name, count in Counter(names).items() if count > 1}:
        names = [long if name in twins else name for name, long in zip(names, whole, strict=True)]
    return [Photo(name, file) for name, file in zip(names, files, strict=True)]


def parse_photos(
    predictor: Predictor, photos: Sequence[Photo], files: ResultFiles
) -> Iterator[ParsedPhoto]:
    """Parse photos in bounded memory, in order; those that are done already come first."""

    def parsed_before(photo: Photo) -> ParsedPhoto | None:
        if not files.are_current(photo):
            return None
        return _measured(photo, read_label(files.label(photo)), files.labels)

    pending = []
    with ThreadPoolExecutor(THREADS) as pool:
        for photo, result in zip(photos, pool.map(parsed_before, photos), strict=True):
            if result is not None:
                yield result
            else:
                pending.append(photo)
    digests: dict[str, str] = {}

    def read(photo: Photo) -> np.ndarray:
        try:
            pixels, digests[photo.name] = read_marked(photo.path, lambda: read_photo(photo.path))
        except InputError as error:
            raise _BadPhotoError(str(error)) from error
        return pixels

    def finish(photo: Photo, prediction: Prediction) -> ParsedPhoto:
        return _write(photo, prediction, files, mark_of(files.made_by, digests.pop(photo.name)))

    for photo, future in predictor.stream(pending, read, finish):
        try:
            yield future.result()
        except _BadPhotoError as error:
            yield ParsedPhoto(photo, error=str(error))


def parse_chunk(
    settings: PredictorSettings, files: ResultFiles, photos: Sequence[Photo]
) -> list[ParsedPhoto]:
    """Parse some photos in this process, which loads the net on its first call and keeps it."""
    with _one_at_a_time:
        predictor = _predictor(settings)
        _check_same(made_by(predictor, files.labels), files.made_by)
        return list(parse_photos(predictor, photos, files))


def areas_csv(results: Iterable[ParsedPhoto], labels: LabelSet) -> str:
    """One line per photo: its name, size, and the share of each class, from 0 to 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["photo", "width", "height", *labels.names])
    for result in results:
        if result.error:
            continue
        height, width = result.size
        shares = (f"{share:.6f}" for share in result.shares)
        writer.writerow([result.photo.name, width, height, *shares])
    return text.getvalue()


def write_areas(folder: Path, results: Iterable[ParsedPhoto], labels: LabelSet) -> None:
    """Write areas.csv; bytes of names that are not UTF-8 appear as `\\xe9`, so that it stays so."""
    write_text(folder / AREAS, areas_csv(results, labels), errors="backslashreplace")


_one_at_a_time = threading.Lock()  # a Dask worker has several threads, a net runs in one


@lru_cache(maxsize=1)
def _predictor(settings: PredictorSettings) -> Predictor:
    return settings.open()


_SAME = ("deploy_sha256", "weights_sha256", "code_sha256", "labels_sha256", "convolution_engine")


def _check_same(here: MadeBy, wanted: MadeBy) -> None:
    """A worker whose files or code differ would mix its results with others in silence."""
    for key in _SAME:
        if here.get(key) != wanted.get(key):
            what = key.removesuffix("_sha256").replace("_", " ")
            raise InputError(
                f"this Dask worker has another {what} than the machine that gave it the photos; "
                "install the same version of lglstm on all, let them see the same files, and set "
                f"the same {VARIABLE}"
            )


class _BadPhotoError(InputError):
    """One photo is bad; the others can still be parsed, unlike when nothing can be written."""


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = []
    for root, folders, names in os.walk(path, onerror=refuse_folder):
        if is_claimed(Path(root)):
            folders[:] = [name for name in folders if name not in PARTS]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(filter(_is_photo, found))


def _is_photo(file: Path) -> bool:
    """By its name, unless it is a label map of ours; a folder or a pipe is none."""
    if file.suffix.lower() not in PHOTO_SUFFIXES:
        return False
    try:
        return file.is_file() and not (file.suffix == ".png" and is_marked(file))
    except PermissionError as error:  # of its folder, which may be listed but not entered
        refuse_folder(PermissionError(error.errno, error.strerror, str(file.parent)))


def _write(photo: Photo, prediction: Prediction, files: ResultFiles, mark: str) -> ParsedPhoto:
    """Write a photo's files; the label map, whose mark stands for all, goes first and comes last.

    So nothing that another content of the photo left there is ever taken for its own.
    """
    ids = prediction.label_map
    try:
        files.label(photo).unlink(missing_ok=True)
        if files.scores:
            with atomic_path(files.score(photo)) as temporary:
                np.save(temporary, prediction.scores[nets.OUTPUT], allow_pickle=False)
        else:
            files.score(photo).unlink(missing_ok=True)
        if files.overlays:
            with atomic_path(files.overlay(photo)) as temporary:
                drawing = overlay_with_legend(prediction.photo, ids, files.labels)
                drawing.save(temporary, quality=88)
        else:
            files.overlay(photo).unlink(missing_ok=True)
        write_label(files.label(photo), ids, files.labels.palette, {MARK: mark})
    except (OSError, InputError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.ENAMETOOLONG:
            raise _BadPhotoError(
                f"{photo.path}: its name is too long for a file beside others; give the photo a "
                "shorter one"
            ) from error
        if isinstance(error, OSError):
            raise InputError(
                f"{files.label(photo)}: cannot be replaced ({error.strerror}); check the "
                "permissions of its folder"
            ) from error
        raise
    return _measured(photo, ids, files.labels)


def _measured(photo: Photo, ids: np.ndarray, labels: LabelSet) -> ParsedPhoto:
    counts = np.bincount(ids.ravel(), minlength=labels.num_classes)
    height, width = ids.shape
    return ParsedPhoto(photo, (height, width), tuple(int(count) for count in counts))
