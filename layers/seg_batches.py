"""Which examples make up which batch, and the batch itself as arrays: a pure function of options.

batches = Batches(options, read_list(options.list))
batches.fill(1000, data, label)            # batch 1000, without the 1,000 before it

All processes of a training deal out one endless stream of examples: epoch after epoch, each a
permutation of the list, made from (seed, epoch) alone. Example number e of the stream belongs to
rank e mod world_size. Its random changes are made from (seed, e) alone. So every batch can be made
on its own, by any process and in any order, and a training that is continued at batch i gets
exactly what it would have got.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.images import read_pair
from lglstm.common.preprocessing import to_blob, to_label_blob
from lglstm.layers.seg_augment import Pair, augment
from lglstm.layers.seg_list import Example
from lglstm.layers.seg_options import SegDataOptions

_ORDER, _CHANGES = 0, 1
"""Keys that keep the two kinds of random numbers of one seed apart."""


class Batches:
    """The batches of one rank; `options.rank` and `.world_size` count as 0 of 1 when absent."""

    def __init__(self, options: SegDataOptions, examples: Sequence[Example]) -> None:
        self.options = options
        self.examples = examples
        self.rank = options.rank or 0
        self.world_size = options.world_size or 1
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def fill(self, number: int, data: np.ndarray, label: np.ndarray) -> None:
        """Write batch `number` (from 0) into data (B, 3, H, W) and label (B, 1, h, w), float32."""
        options = self.options
        for i, e in enumerate(self.stream(number)):
            photo, ids = self.example(e)
            data[i] = to_blob(photo, options.input_size, options.mean)
            label[i] = to_label_blob(ids, options.input_size, options.label_stride)

    def stream(self, number: int) -> Iterator[int]:
        """The stream numbers of the examples in batch `number`."""
        first = number * self.options.batch_size
        for i in range(self.options.batch_size):
            yield (first + i) * self.world_size + self.rank

    def example(self, e: int) -> Pair:
        """Example `e` of the stream, read and changed at random, at no fixed size yet.

        Raises InputError that names the list, the line, the file, the fault and the remedy.
        """
        options = self.options
        photo_path, label_path, line = self.examples[self.index(e)]
        try:
            photo, label = read_pair(
                photo_path, label_path, options.num_classes, options.ignore_label
            )
        except InputError as error:
            raise InputError(f"{options.list}, line {line}: {error}") from error
        rng = np.random.default_rng((options.seed, _CHANGES, e))
        return augment(photo, label, options.augmentation, rng, options.ignore_label, options.mean)

    def index(self, e: int) -> int:
        """The place in the list of example `e` of the stream."""
        epoch, place = divmod(e, len(self.examples))
        return int(self._permutation(epoch)[place]) if self.options.shuffle else place

    def _permute(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self.options.seed, _ORDER, epoch))
        return rng.permutation(len(self.examples))
