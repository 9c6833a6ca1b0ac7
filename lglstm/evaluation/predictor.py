"""A deploy net with its weights: photos of any size in, label maps of the same size out.

    predictor = Predictor("models/horse/deploy.prototxt", "runs/horse_iter_8820.caffemodel")
    label_map = predictor.predict([read_photo("horse.jpg")])[0].label_map      # (H, W) uint8

Every photo is stretched to the net's input and its scores are scaled back to the photo's own size
before the best class of each pixel is taken, so nothing is ever cropped and label maps compare with
the ground truth as it is.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np

from lglstm.common import preprocessing
from lglstm.common.devices import select_gpu
from lglstm.common.errors import InputError
from lglstm.common.hashing import sha256_of, sha256_of_json, unchanged
from lglstm.common.pycaffe import CaffeNet, Message, load_caffe
from lglstm.evaluation import nets, weights

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = 4
"""Threads that decode photos ahead of the net and finish label maps behind it."""


@dataclass(frozen=True)
class Prediction:
    """What a net makes of one photo; `score` is its prediction, see `Predictor.outputs`.

    photo: (H, W, 3) uint8 BGR.
    scores: output → (C, h, w) float32 class scores at the net's input size.
    label_maps: output → (H, W) uint8, the best class of each pixel, at the photo's size.
    """

    photo: np.ndarray
    scores: Mapping[str, np.ndarray]
    label_maps: Mapping[str, np.ndarray]

    @property
    def label_map(self) -> np.ndarray:
        """(H, W) uint8: the prediction of the whole net."""
        return self.label_maps[nets.OUTPUT]

    @classmethod
    def from_scores(cls, photo: np.ndarray, scores: Mapping[str, np.ndarray]) -> Prediction:
        size = photo.shape[0], photo.shape[1]
        maps = {name: preprocessing.to_label_map(one, size) for name, one in scores.items()}
        return cls(photo, scores, maps)


class Predictor:
    """Loads a net once and parses photos in batches.

    deploy: prototxt with input `data` (B, 3, h, w) and output `score` (B, C, h, w).
    weights_path: of any format that `lglstm convert` reads; see evaluation/weights.py for what is
        refused.
    gpu: the number of a GPU, None for the CPU.
    batch_size: photos in one forward pass; 1 needs the least memory.
    test: the model's test prototxt, to get the earlier LG-LSTM layers' scores too.
    trust_net: run layers that read or write files or run code, too.
    Raises InputError for unusable files.

    input_size: (h, w) of the net. num_classes: C.
    deploy_sha256, test_sha256, weights_sha256: of the files as they were read; layers_sha256: of
        the Python modules of its layers.
    outputs: with `test`, `score1`, `score2`, … of the LG-LSTM layers in order; the last is `score`.
    """

    def __init__(
        self,
        deploy: str | Path,
        weights_path: str | Path,
        *,
        gpu: int | None = None,
        batch_size: int = 1,
        test: str | Path | None = None,
        trust_net: bool = False,
    ) -> None:
        caffe = load_caffe()
        self.deploy, self.weights_path = Path(deploy), Path(weights_path)
        self.batch_size = batch_size
        with unchanged(deploy) as self.deploy_sha256:
            net = nets.read_net(deploy)
        nets.check_deploy(net, deploy, trust_net)
        self._blobs = {nets.OUTPUT: nets.OUTPUT}
        self.test_sha256 = ""
        if test is not None:
            with unchanged(test) as self.test_sha256:
                whole = nets.read_net(test)
            net, self._blobs = nets.with_all_scores(net, whole, test, trust_net)
        self.gpu = gpu
        select_gpu(gpu)
        self._net = _build(caffe, net)
        self.layers_sha256 = _modules_sha256(net)
        with unchanged(weights_path) as self.weights_sha256:
            fixed = nets.fixed_layers(net)
            self.loaded = weights.load(self._net, self.deploy, self.weights_path, fixed)
        height, width = self._net.blobs[nets.INPUT].shape[2:]
        self.input_size = int(height), int(width)
        self.num_classes = int(self._net.blobs[nets.OUTPUT].shape[1])
        self.outputs = tuple(self._blobs)

    def scores(self, photos: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Run the net once on all `photos`, (H, W, 3) uint8 BGR of any sizes.

        Returns output → (B, C, h, w) float32 class scores at the net's input size.
        """
        data = np.stack([preprocessing.to_blob(photo, self.input_size) for photo in photos])
        select_gpu(self.gpu)  # Caffe keeps its device per thread
        blob = self._net.blobs[nets.INPUT]
        if blob.shape[0] != len(photos):
            blob.reshape(*data.shape)
            self._net.reshape()
        blob.data[...] = data
        self._net.forward()
        scores = {name: self._net.blobs[blob].data.copy() for name, blob in self._blobs.items()}
        if not np.isfinite(scores[nets.OUTPUT]).all():
            raise InputError(
                f"{self.weights_path}: the scores of {self.deploy} are NaN or infinite with these "
                "weights, so the training diverged; use an earlier snapshot"
            )
        return scores

    def predict(self, photos: Sequence[np.ndarray]) -> list[Prediction]:
        """Parse all `photos`, (H, W, 3) uint8 BGR of any sizes, in one pass of the net."""
        scores = self.scores(photos)
        return [
            Prediction.from_scores(photo, {name: values[k] for name, values in scores.items()})
            for k, photo in enumerate(photos)
        ]

    def stream(
        self,
        items: Iterable[Item],
        read: Callable[[Item], np.ndarray],
        finish: Callable[[Item, Prediction], Result],
    ) -> Iterator[tuple[Item, Future[Result]]]:
        """Parse many photos in order and in bounded memory, while threads decode and write.

        read(item) gives the photo, (H, W, 3) uint8 BGR; finish(item, prediction) does what is to
        be done with its prediction. Both run in threads. Yields each item with a finished future;
        its `result()` returns what `finish` did, or raises what either of them raised.
        """
        ahead = 2 * self.batch_size
        with ThreadPoolExecutor(THREADS) as pool:
            finishing: deque[tuple[Item, Future]] = deque()
            for batch in _batches(_read_ahead(pool, items, read, ahead), self.batch_size):
                finishing.extend(self._submit(pool, batch, finish))
                while len(finishing) > ahead:
                    yield _finished(finishing.popleft())
            while finishing:
                yield _finished(finishing.popleft())

    def _submit(
        self,
        pool: ThreadPoolExecutor,
        batch: list[tuple[Item, Future[np.ndarray]]],
        finish: Callable[[Item, Prediction], Result],
    ) -> Iterator[tuple[Item, Future]]:
        """Run the net on the photos that could be read; pass the failed readings on as they are."""
        readable = [reading for _, reading in batch if reading.exception() is None]
        scores = self.scores([reading.result() for reading in readable]) if readable else {}

        def complete(item: Item, photo: np.ndarray, own: dict[str, np.ndarray]) -> Result:
            return finish(item, Prediction.from_scores(photo, own))

        k = 0
        for item, reading in batch:
            if reading.exception() is not None:
                yield item, reading
                continue
            own = {name: values[k] for name, values in scores.items()}
            yield item, pool.submit(complete, item, reading.result(), own)
            k += 1


def _build(caffe: ModuleType, net: Message) -> CaffeNet:
    """Make the pycaffe net; it only reads files, so give it one, which no kill can leave behind."""
    handle = os.memfd_create("net.prototxt")
    try:
        with open(handle, "w", encoding="utf-8", closefd=False) as file:
            file.write(str(net))
        return caffe.Net(f"/proc/self/fd/{handle}", caffe.TEST)
    finally:
        os.close(handle)


def _modules_sha256(net: Message) -> str:
    """The hash of the Python files that the net's layers are from; they are imported by now."""
    names = sorted({layer.python_param.module for layer in net.layer if layer.type == "Python"})
    files = [getattr(sys.modules.get(name), "__file__", None) for name in names]
    return sha256_of_json([sha256_of(file) for file in files if file])


def _read_ahead(
    pool: ThreadPoolExecutor,
    items: Iterable[Item],
    read: Callable[[Item], np.ndarray],
    ahead: int,
) -> Iterator[tuple[Item, Future[np.ndarray]]]:
    """Yield each item with its reading, `ahead` of them in progress at a time."""
    items = iter(items)
    reading = deque((item, pool.submit(read, item)) for item in islice(items, ahead))
    while reading:
        yield _finished(reading.popleft())
        reading.extend((item, pool.submit(read, item)) for item in islice(items, 1))


def _finished(entry: tuple[Item, Future]) -> tuple[Item, Future]:
    entry[1].exception()  # waits
    return entry


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch
