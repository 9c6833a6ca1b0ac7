"""A deploy net with its weights: photos of any size in, label maps of the same size out.

    predictor = Predictor(net_files("horse", "runs/horse_iter_8820.caffemodel"))
    label_map = predictor.predict([read_photo("horse.jpg")])[0].label_map      # (H, W) uint8

Every photo is stretched to the net's input and its scores are scaled back to the photo's own size
before the best class of each pixel is taken, so nothing is ever cropped and label maps compare with
the ground truth as it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from lglstm.common import preprocessing
from lglstm.common.errors import InputError
from lglstm.evaluation import nets
from lglstm.evaluation.engines import Gpu, NetFiles, open_engine

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = 4
"""Threads that decode photos ahead of the net and finish label maps behind it."""


@dataclass(frozen=True)
class Prediction:
    """What a net makes of one photo; `score` is its prediction, see `Predictor.outputs`.

    photo: (H, W, 3) uint8 BGR.
    scores: output → (C, h, w) float32 class scores at the net's input size.
    """

    photo: np.ndarray
    scores: Mapping[str, np.ndarray]

    @cached_property
    def label_maps(self) -> dict[str, np.ndarray]:
        """Output → (H, W) uint8, the best class of each pixel, at the photo's size."""
        size = self.photo.shape[0], self.photo.shape[1]
        return {name: preprocessing.to_label_map(one, size) for name, one in self.scores.items()}

    @property
    def label_map(self) -> np.ndarray:
        """(H, W) uint8: the prediction of the whole net."""
        return self.label_maps[nets.OUTPUT]

    def with_offsets(self, offsets: np.ndarray) -> Prediction:
        """The prediction with a constant added to the scores of each class, (C,)."""
        scores = {name: one + offsets[:, None, None] for name, one in self.scores.items()}
        return Prediction(self.photo, scores)


class Predictor:
    """Loads a net once and parses photos in batches.

    files: a deploy net with its weights.
    gpu: see `engines.choose_gpu`; None for the CPU.
    batch_size: photos in one forward pass; 1 needs the least memory.
    backend: what runs the net, see `engines.choose_backend`.
    test: the model's test prototxt, to get the earlier LG-LSTM layers' scores too (Caffe only).
    trust_net: run layers that read or write files or run code, too.
    Raises InputError for unusable files.

    engine: what runs the net; it says what the net is and what it was read from.
    """

    def __init__(
        self,
        files: NetFiles,
        *,
        gpu: Gpu = None,
        batch_size: int = 1,
        backend: str = "caffe",
        test: Path | None = None,
        trust_net: bool = False,
    ) -> None:
        self.batch_size = batch_size
        self.engine = open_engine(files, backend, gpu, test=test, trust_net=trust_net)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of all score maps; the last one is `score`, the whole net's."""
        return self.engine.outputs

    def scores(self, photos: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Run the net once on all `photos`, (H, W, 3) uint8 BGR of any sizes.

        Returns output → (B, C, h, w) float32 class scores at the net's input size.
        """
        scores = self.engine.run(np.stack([self.engine.prepare(photo) for photo in photos]))
        if not np.isfinite(scores[nets.OUTPUT]).all():
            files = self.engine.files
            raise InputError(
                f"{files.weights}: the scores of {files.deploy or files.name} are NaN or infinite "
                "with these weights, so the training diverged; use an earlier snapshot"
            )
        return scores

    def predict(self, photos: Sequence[np.ndarray]) -> list[Prediction]:
        """Parse all `photos`, (H, W, 3) uint8 BGR of any sizes, in one pass of the net."""
        scores = self.scores(photos)
        return [
            Prediction(photo, {name: values[k] for name, values in scores.items()})
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

        k = 0
        for item, reading in batch:
            if reading.exception() is not None:
                yield item, reading
                continue
            own = {name: values[k] for name, values in scores.items()}
            yield item, pool.submit(finish, item, Prediction(reading.result(), own))
            k += 1


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
