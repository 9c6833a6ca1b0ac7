"""The Python interface: a model with its weights, photos in, label maps out.

import cv2
import lglstm

parser = lglstm.Parser("horse")  # or with weights: "runs/horse_iter_8820.caffemodel"
result = parser.parse("horse.jpg")
print(result.areas)                              # {"background": 0.61, "head": 0.08, …}
cv2.imwrite("overlay.png", result.overlay)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.images import read_photo
from lglstm.common.labels import LabelSet, class_shares
from lglstm.evaluation.engines import choose_backend, choose_gpu, net_files
from lglstm.evaluation.label_choice import labels_of
from lglstm.evaluation.overlay import overlay
from lglstm.evaluation.predictor import Prediction, Predictor

Photo = str | os.PathLike[str] | np.ndarray
"""The path of a picture file, or its pixels: (H, W, 3) uint8 in BGR order, as OpenCV reads them."""


@dataclass(frozen=True)
class Parsing:
    """The parts that a net sees in one photo.

    photo: (H, W, 3) uint8, BGR.
    label_map: (H, W) uint8, the class of each pixel at the photo's own size: `labels.names[id]`.
    labels: names and colors of the classes, background first.
    """

    photo: np.ndarray
    label_map: np.ndarray
    labels: LabelSet

    @cached_property
    def areas(self) -> dict[str, float]:
        """The share of each class in the photo, 0 to 1, in the order of the ids; they add to 1."""
        shares = class_shares(self.label_map, self.labels.num_classes)
        return dict(zip(self.labels.names, shares.tolist(), strict=True))

    @cached_property
    def overlay(self) -> np.ndarray:
        """(H, W, 3) uint8, BGR: the photo with its parts in their colors; background as it is."""
        return overlay(self.photo, self.label_map, self.labels)


class Parser:
    """A net with its weights, loaded once; not to be used by several threads at the same time.

    model: a name in models/ (`horse`), or the path of a folder or of a deploy prototxt, as for
        `lglstm predict`, or a file with its net: `horse.onnx`, or what `--to pytorch` makes.
    weights: the file that was trained with it, in any format that `lglstm convert` reads, or the
        name of a model that has some in its folder; by default those of this model.
    labels: name or JSON file of the label set; by default the model's own.
    gpu: number of a GPU, or None for the CPU; by default the first GPU that can be used.
    backend: "caffe", "onnx" or "torch", what runs the net; by default the first that is installed.
    batch_size: photos in one pass of the net, in `parse_all`.
    trust_net: also run layers of the net that may read or write files or run code.

    Raises InputError when nothing is installed that runs nets, and for files that do not fit, in
    one sentence.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        weights: str | os.PathLike[str] | None = None,
        *,
        labels: str | None = None,
        gpu: int | str | None = "auto",
        backend: str | None = None,
        batch_size: int = 1,
        trust_net: bool = False,
    ) -> None:
        if isinstance(gpu, str) and gpu != "auto":
            raise InputError(f"gpu={gpu!r}: give a number, None for the CPU, or 'auto'")
        whole = isinstance(batch_size, int | np.integer) and not isinstance(batch_size, bool)
        if not whole or batch_size < 1:
            raise InputError(f"batch_size={batch_size!r}: give a whole number from 1")
        files = net_files(model, weights)
        chosen = choose_backend(backend, files)
        asked = gpu if isinstance(gpu, int) else None
        self._predictor = Predictor(
            files,
            gpu=choose_gpu(chosen, asked, cpu=gpu is None),
            batch_size=batch_size,
            backend=chosen,
            trust_net=trust_net,
        )
        self.labels = labels_of(self._predictor, labels, files.model)

    def parse(self, photo: Photo) -> Parsing:
        """Parse one photo; raises InputError for a file or an array that is not a photo."""
        (prediction,) = self._predictor.predict([_pixels(photo)])
        return self._parsing(prediction)

    def parse_all(self, photos: Iterable[Photo]) -> Iterator[Parsing]:
        """Parse many photos, in their order and in bounded memory, `batch_size` at a time.

        Files are read ahead by threads while the net works.
        """

        def finish(photo: Photo, prediction: Prediction) -> Parsing:
            return self._parsing(prediction)

        for _, parsing in self._predictor.stream(photos, _pixels, finish):
            yield parsing.result()

    def _parsing(self, prediction: Prediction) -> Parsing:
        return Parsing(prediction.photo, prediction.label_map, self.labels)


def _pixels(photo: Photo) -> np.ndarray:
    if isinstance(photo, str | os.PathLike):
        return read_photo(photo)
    if not isinstance(photo, np.ndarray):
        hint = "; cv2.imread returns None for a file that it cannot read" if photo is None else ""
        raise InputError(
            f"a photo is of the type {type(photo).__name__}{hint}; give (H, W, 3) uint8 in BGR "
            "order, or a path"
        )
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or not photo.size:
        raise InputError(
            f"a photo is {photo.dtype} of shape {photo.shape}; give (H, W, 3) uint8 in BGR order, "
            "as cv2.imread returns it, or a path"
        )
    return photo
