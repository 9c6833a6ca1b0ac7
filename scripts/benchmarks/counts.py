"""Operations and bytes of the transition, the LG-LSTM layers and the classifiers.

The counts of layers/caffe/include/caffe/layers/lg_lstm_layer.hpp, spelled out. An operation is a
multiplication or an addition; products of the small global vectors, one for each image, are
counted too. Backward is with the gradients of the weights and of all bottoms.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

FLOAT = 4
"""Bytes of a value."""


@dataclass(frozen=True)
class StackSize:
    """Shapes of a stack: features (batch, channels, height, width) in, classes after each layer.

    The defaults are the paper's layers; spatial weights are shared by the directions, and all
    weights by the layers.
    """

    batch: int = 2
    height: int = 41
    width: int = 41
    channels: int = 1024
    hidden: int = 64
    neighbors: int = 8
    grid: int = 3
    classes: int = 5
    layers: int = 5

    def as_dict(self) -> dict[str, int]:
        return asdict(self)

    @property
    def positions(self) -> int:
        """Positions of the whole batch."""
        return self.batch * self.height * self.width

    @property
    def lstms(self) -> int:
        return self.neighbors + 1

    @property
    def local(self) -> int:
        """Values of the local hidden cells, and of the memory cells, at a position."""
        return self.lstms * self.hidden

    @property
    def global_(self) -> int:
        """Values of the global hidden cells of an image."""
        return self.grid**2 * self.hidden


@dataclass(frozen=True)
class Cost:
    """A count for the forward and for the backward pass."""

    forward: int
    backward: int

    @property
    def total(self) -> int:
        return self.forward + self.backward

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, factor: int) -> Cost:
        return Cost(self.forward * factor, self.backward * factor)


SETS = 2
"""Sets of gates of an LG-LSTM layer: the spatial LSTMs share one, the depth LSTM has its own."""


def transition_flop(size: StackSize) -> Cost:
    """Products of the transition: three gates of N+1 LSTMs from `channels` values."""
    return _products(size.positions * 3 * size.local * size.channels)


def layer_flop(size: StackSize, tiled: bool = False) -> Cost:
    """Products of one LG-LSTM layer: four gates of two sets of weights.

    tiled: as the paper writes it, with the global hidden cells repeated at every position.
    """
    return _products(_of_inputs(size, SETS * 4 * size.hidden, tiled))


def classifier_flop(size: StackSize, tiled: bool = False) -> Cost:
    """Products of one classifier, a 1×1 convolution of the layer's input states."""
    return _products(_of_inputs(size, size.classes, tiled))


def lstm_flop(size: StackSize) -> Cost:
    """Products of the transition and all LG-LSTM layers, without the classifiers."""
    return transition_flop(size) + layer_flop(size) * size.layers


def stack_flop(size: StackSize, tiled: bool = False) -> Cost:
    """Products of transition, LG-LSTM layers and classifiers."""
    layer = layer_flop(size, tiled) + classifier_flop(size, tiled)
    return transition_flop(size) + layer * size.layers


def cells_bytes(size: StackSize) -> Cost:
    """Bytes that the rest of the LSTM layers moves at least: each value once in or out.

    LG-LSTM layer forward: products in, gates out; memory in, memory and hidden cells out. Backward:
    gates in, gradients of the products out, and in again for their sums; both memories, hidden
    cells and the gradients of both tops in, gradient of memory out. The transition has three gates
    of N+1 sets, and no memory comes in.
    """
    d, local = size.hidden, size.local
    transition = Cost(2 * 3 * local + 2 * local, 3 * 3 * local + 4 * local)
    layer = Cost(8 * d * SETS + 3 * local, 12 * d * SETS + 6 * local)
    return (transition + layer * size.layers) * (size.positions * FLOAT)


def needed_bytes(size: StackSize) -> int:
    """Memory that training the LSTM layers needs: tops, their gradients, one set of gates each."""
    tops = 2 * (2 * size.local * size.positions + size.batch * size.global_)
    gates = 3 * size.local + size.layers * SETS * 4 * size.hidden
    return FLOAT * ((size.layers + 1) * tops + gates * size.positions)


def surrounding_bytes(size: StackSize) -> int:
    """Memory of the other blobs of Caffe's net around the LSTM layers, all with gradients.

    Features, weights, scores (their local and global parts apart), and the second gradient of a
    top that the next layer and a classifier both read.
    """
    scores = size.layers * (2 * size.classes * size.positions + size.batch * size.classes)
    weights = 3 * size.local * size.channels + SETS * 4 * size.hidden * (size.local + size.global_)
    weights += size.layers * size.classes * (size.local + size.global_ + 1)
    features = size.channels * size.positions
    both = size.local * size.positions + size.batch * size.global_
    splits = (size.layers - 1) * 2 * both  # gradient for each of the two readers
    return FLOAT * (2 * (scores + weights + features) + splits)


def _products(multiply_adds: int) -> Cost:
    """Backward multiplies twice as much: for the gradients of the weights and of the input."""
    return Cost(2 * multiply_adds, 4 * multiply_adds)


def _of_inputs(size: StackSize, rows: int, tiled: bool) -> int:
    """Multiply-adds of `rows` weights with local and global hidden cells."""
    times_global = size.positions if tiled else size.batch
    return rows * (size.positions * size.local + times_global * size.global_)
