"""A deploy net with its weights: photos of any size in, label maps of the same size out.

    parser = Parser("models/horse/deploy.prototxt", "runs/horse_iter_8820.caffemodel")
    label_map = parser.parse([read_photo("horse.jpg")])[0]          # (H, W) uint8

Every photo is stretched to the net's input and its scores are scaled back to the photo's own size
before the best class of each pixel is taken, so nothing is ever cropped and label maps compare with
the ground truth as it is.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from lglstm.common import preprocessing
from lglstm.common.errors import InputError
from lglstm.evaluation import nets, weights

Job = TypeVar("Job")
Result = TypeVar("Result")

THREADS = 4
"""Threads that decode photos ahead of the net and finish label maps behind it."""


class Parser:
    """Loads a net once and parses photos in batches.

    deploy: prototxt with input `data` (B, 3, h, w) and output `score` (B, C, h, w).
    weights_path: caffemodel; see evaluation/weights.py for what is refused.
    gpu: the number of a GPU, None for the CPU.
    batch_size: photos in one forward pass; 1 needs the least memory.
    test: the model's test prototxt, to get the earlier LG-LSTM layers' scores too.
    Raises InputError for unusable files.
    """

    def __init__(
        self,
        deploy: str | Path,
        weights_path: str | Path,
        *,
        gpu: int | None = None,
        batch_size: int = 1,
        test: str | Path | None = None,
    ) -> None:
        caffe = quiet_caffe()
        self.deploy, self.weights_path = Path(deploy), Path(weights_path)
        self.batch_size = batch_size
        net = nets.read_net(deploy)
        nets.check_deploy(net, deploy)
        self._blobs = {nets.OUTPUT: nets.OUTPUT}
        if test is not None:
            net, self._blobs = nets.with_all_scores(net, nets.read_net(test), test)
        self.gpu = gpu
        select_device(gpu)
        self._net = _build(caffe, net)
        self.loaded = weights.load(self._net, weights_path, nets.fixed_layers(net))
        self.input_size: tuple[int, int] = tuple(self._net.blobs[nets.INPUT].shape[2:])
        self.num_classes = int(self._net.blobs[nets.OUTPUT].shape[1])
        self.outputs = tuple(self._blobs)

    def scores(self, photos: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Run the net once on all `photos`, (H, W, 3) uint8 BGR of any sizes.

        Returns output name → (B, C, h, w) float32 class scores at the net's input size: `score` is
        the prediction; with `test`, `score1` … are those of the earlier LG-LSTM layers.
        """
        data = np.stack([preprocessing.to_blob(photo, self.input_size) for photo in photos])
        select_device(self.gpu)  # Caffe keeps its device per thread
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

    def parse(self, photos: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the label map of each photo, (H, W) uint8 at the photo's own size."""
        scores = self.scores(photos)[nets.OUTPUT]
        return [
            preprocessing.to_label_map(one, photo.shape[:2])
            for one, photo in zip(scores, photos, strict=True)
        ]

    def map(
        self,
        jobs: Iterable[Job],
        read: Callable[[Job], np.ndarray],
        finish: Callable[[Job, np.ndarray, dict[str, np.ndarray]], Result],
    ) -> Iterator[tuple[Job, Future[Result]]]:
        """Parse many photos in order and in bounded memory, while threads decode and write.

        read(job) gives the photo; finish(job, photo, scores) gets its (C, h, w) scores by output
        name. Both run in threads. Yields each job with a finished future; its `result()` raises
        what `read` or `finish` raised.
        """
        ahead = 2 * self.batch_size
        with ThreadPoolExecutor(THREADS) as pool:
            finishing: deque[tuple[Job, Future]] = deque()
            for batch in _batches(_read_ahead(pool, jobs, read, ahead), self.batch_size):
                finishing.extend(self._submit(pool, batch, finish))
                while len(finishing) > ahead:
                    yield _finished(finishing.popleft())
            while finishing:
                yield _finished(finishing.popleft())

    def _submit(
        self, pool: ThreadPoolExecutor, batch: list[tuple[Job, Future]], finish: Callable
    ) -> Iterator[tuple[Job, Future]]:
        """Run the net on the photos that could be read; pass the failed readings on as they are."""
        readable = [reading for _, reading in batch if reading.exception() is None]
        scores = self.scores([reading.result() for reading in readable]) if readable else {}
        k = 0
        for job, reading in batch:
            if reading.exception() is not None:
                yield job, reading
                continue
            one = {name: values[k] for name, values in scores.items()}
            yield job, pool.submit(finish, job, reading.result(), one)
            k += 1


def quiet_caffe() -> object:
    """Import pycaffe without its page of log lines per net; errors still show."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    import caffe

    return caffe


def select_device(gpu: int | None) -> None:
    """Let Caffe compute on a GPU, or on the CPU with None."""
    import caffe

    if gpu is None:
        caffe.set_mode_cpu()
    else:
        caffe.set_device(gpu)
        caffe.set_mode_gpu()


def _build(caffe: object, net: object) -> object:
    """Make the pycaffe net; it only reads files, so give it one."""
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(str(net))
        file.flush()
        return caffe.Net(file.name, caffe.TEST)


def _read_ahead(
    pool: ThreadPoolExecutor, jobs: Iterable[Job], read: Callable, ahead: int
) -> Iterator[tuple[Job, Future]]:
    """Yield each job with its reading, `ahead` of them in progress at a time."""
    jobs = iter(jobs)
    reading = deque((job, pool.submit(read, job)) for job in islice(jobs, ahead))
    while reading:
        yield _finished(reading.popleft())
        reading.extend((job, pool.submit(read, job)) for job in islice(jobs, 1))


def _finished(entry: tuple[Job, Future]) -> tuple[Job, Future]:
    entry[1].exception()  # waits
    return entry


def _batches(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch
