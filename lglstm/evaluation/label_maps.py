"""Folders of predicted label maps, one palette PNG per image: ours, resumable, and other programs'.

OUTPUT/predictions.json            which model and weights made them
OUTPUT/predictions/<name>.png      the prediction
OUTPUT/layers/score1/<name>.png    what LG-LSTM layer 1 alone would say, with --all-layers
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.images import read_pair, write_label
from lglstm.common.labels import LabelSet
from lglstm.common.progress import Report, no_report
from lglstm.evaluation import nets
from lglstm.evaluation.image_list import ListedImage
from lglstm.evaluation.predictor import THREADS, Prediction, Predictor
from lglstm.evaluation.resume import (
    LAYERS,
    MARK,
    PREDICTIONS,
    MadeBy,
    claim,
    is_current,
    made_by,
    mark_of,
    photo_sha256,
    read_marked,
    refuse_harm,
)


def folder_of(folder: Path, output: str) -> Path:
    """Where the label maps of one output of the net are."""
    return folder / PREDICTIONS if output == nets.OUTPUT else folder / LAYERS / output


def png_of(folder: Path, image: ListedImage) -> Path:
    return folder / f"{image.name}.png"


def write_label_maps(
    predictor: Predictor,
    images: Sequence[ListedImage],
    labels: LabelSet,
    folder: Path,
    report: Report = no_report,
    offsets: Sequence[np.ndarray] | None = None,
) -> None:
    """Write the label map of every image below `folder`; those of the same photos stay.

    offsets: for each image, constants to add to the scores of the classes, (C,).
    What another model or other weights left there is removed first. Photo and truth are read
    together, so that a truth of another size or with other classes stops the run at its image.
    """
    maker = made_by(predictor, labels)
    inputs = [path for image in images for path in (image.photo, image.label)]
    places = [folder_of(folder, output) for output in predictor.outputs]
    refuse_harm(folder, inputs, [png_of(place, image) for place in places for image in images])
    claim(folder, maker, (PREDICTIONS, LAYERS))
    of_image = {i.name: own for i, own in zip(images, offsets, strict=True)} if offsets else {}
    maps = _LabelMaps(predictor, labels, folder, maker, of_image)
    with ThreadPoolExecutor(THREADS) as pool:
        finished = pool.map(maps.are_written, images)
        pending = [image for image, done in zip(images, finished, strict=True) if not done]
    done, total = len(images) - len(pending), len(images)
    report(done, total)
    for _, future in predictor.stream(pending, maps.read, maps.write):
        future.result()
        done += 1
        report(done, total)


class _LabelMaps:
    """The label maps of a list of images: one of each image for each output of the net.

    offsets: image name → constants to add to the scores of the classes; empty for none.
    """

    def __init__(
        self,
        predictor: Predictor,
        labels: LabelSet,
        folder: Path,
        maker: MadeBy,
        offsets: Mapping[str, np.ndarray],
    ):
        self.labels, self.maker, self.offsets = labels, maker, offsets
        self.folders = {output: folder_of(folder, output) for output in predictor.outputs}
        # What --all-layers adds does not spoil the whole net's own predictions.
        self.tests = dict.fromkeys(self.folders, predictor.engine.test_sha256) | {nets.OUTPUT: ""}
        self.digests: dict[str, str] = {}  # of the photos between `read` and `write`

    def are_written(self, image: ListedImage) -> bool:
        if not all(png_of(folder, image).is_file() for folder in self.folders.values()):
            return False
        marks = self._marks(image, photo_sha256(image.photo))
        return all(is_current(png_of(self.folders[k], image), mark) for k, mark in marks.items())

    def read(self, image: ListedImage) -> np.ndarray:
        photo, self.digests[image.name] = read_marked(
            image.photo, lambda: read_pair(image.photo, image.label, self.labels.num_classes)[0]
        )
        return photo

    def write(self, image: ListedImage, prediction: Prediction) -> None:
        marks = self._marks(image, self.digests.pop(image.name))
        if self.offsets:
            prediction = prediction.with_offsets(self.offsets[image.name])
        for output, ids in prediction.label_maps.items():
            path = png_of(self.folders[output], image)
            write_label(path, ids, self.labels.palette, {MARK: marks[output]})

    def _marks(self, image: ListedImage, digest: str) -> dict[str, str]:
        """Output → what its label map is marked with: what made it, and from which photo."""
        if not digest:
            return dict.fromkeys(self.folders, "")
        own = f" {self.offsets[image.name].tolist()}" if self.offsets else ""
        return {
            output: mark_of(self.maker, digest, f"{output} {test}{own}")
            for output, test in self.tests.items()
        }


def find_label_maps(folder: Path, images: Sequence[ListedImage]) -> list[Path]:
    """The label map of every image in a folder that any program may have written.

    Looked for are <name>.png, the file name of the true label map, and the photo's name with .png.
    Raises InputError unless every image has one of its own: a score over fewer images would
    mislead.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; give the folder that holds the label maps")
    found = [next(filter(Path.is_file, _candidates(folder, i)), None) for i in images]
    missing = [i for i, path in zip(images, found, strict=True) if path is None]
    if len(missing) == len(images):
        raise InputError(
            f"{folder}: no label map belongs to an image of the list, such as "
            f"{images[0].name}.png for {images[0].photo.name}; give the folder that holds them, "
            "named like the photos"
        )
    if missing:
        raise InputError(
            f"{folder}: label maps of {len(missing)} of the {len(images)} images are missing, "
            f"first {missing[0].name}.png; predict all images of the list"
        )
    paths = [path for path in found if path is not None]
    _refuse_shared(images, paths)
    return paths


def _refuse_shared(images: Sequence[ListedImage], paths: Sequence[Path]) -> None:
    """Raise InputError if two images have found the same label map: it can only be of one."""
    owners: dict[Path, ListedImage] = {}
    for image, path in zip(images, paths, strict=True):
        other = owners.setdefault(path, image)
        if other is not image:
            raise InputError(
                f"{path}: would be scored for both {other.photo} and {image.photo}; give each a "
                f"label map of its own, {other.name}.png and {image.name}.png"
            )


def _candidates(folder: Path, image: ListedImage) -> Iterable[Path]:
    yield png_of(folder, image)
    yield folder / image.label.name
    yield folder / f"{image.photo.stem}.png"
