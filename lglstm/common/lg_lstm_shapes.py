"""The shapes of the LG-LSTM layers: their directions, learnable blobs and tops.

Symbols as in the paper: d hidden cells of one LSTM, N neighbors, a global grid of G × G cells,
C channels of the features. Caffe's C++ layers state the same in `lg_lstm_layer.hpp`.
"""

from __future__ import annotations

from dataclasses import dataclass

Shape = tuple[int, ...]

_ALL = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
DIRECTIONS = {8: _ALL, 4: _ALL[:4], 2: ((-1, 0), (0, -1))}
"""Where the hidden cells of each spatial LSTM come from, as (row, column) offsets in raster order,
by N."""

LSTM_GATES = 4  # u, f, o, c
TRANSITION_GATES = 3  # u, o, c: with zero memory the forget gate multiplies nothing


def grid_bounds(length: int, grid: int) -> list[int]:
    """Where the cells of a global grid begin on an axis, and its end: ⌊gL/G + ½⌋ for g = 0…G."""
    return [(2 * g * length + grid) // (2 * grid) for g in range(grid + 1)]


@dataclass(frozen=True)
class LGLSTMShapes:
    """The shapes that follow from a layer's settings.

    hidden: d. neighbors: N. grid: G, 0 without global hidden cells. share_spatial: one weight
    matrix for the N spatial LSTMs. bias: a bias blob follows each weight blob.
    """

    hidden: int
    neighbors: int
    grid: int
    share_spatial: bool = True
    bias: bool = False

    @property
    def lstms(self) -> int:
        """The N spatial LSTMs and the depth LSTM."""
        return self.neighbors + 1

    @property
    def local_inputs(self) -> int:
        """Channels of `local`, (N + 1)·d: the part of H that differs between positions."""
        return self.lstms * self.hidden

    @property
    def global_inputs(self) -> int:
        """Values of `global`, G²·d: the part of H that all positions share."""
        return self.grid**2 * self.hidden

    @property
    def inputs(self) -> int:
        """The length of H, Eq. (3)."""
        return self.global_inputs + self.local_inputs

    def transition_blobs(self, channels: int) -> dict[str, Shape]:
        """The blobs of the transition layer on features of C channels, in Caffe's order."""
        return self._with_biases({"weight": (self.lstms, TRANSITION_GATES * self.hidden, channels)})

    def layer_blobs(self) -> dict[str, Shape]:
        """The blobs of an LG-LSTM layer, in Caffe's order."""
        depth = (LSTM_GATES * self.hidden, self.inputs)
        sets = 1 if self.share_spatial else self.neighbors
        return self._with_biases({"spatial": (sets, *depth), "depth": depth})

    def tops(self, batch: int, height: int, width: int) -> list[Shape]:
        """The shapes of `local`, `memory` and, with a grid, `global`."""
        local = (batch, self.local_inputs, height, width)
        cells = [(batch, self.hidden, self.grid, self.grid)] if self.grid else []
        return [local, local, *cells]

    def _with_biases(self, weights: dict[str, Shape]) -> dict[str, Shape]:
        blobs: dict[str, Shape] = {}
        for name, shape in weights.items():
            blobs[name] = shape
            if self.bias:
                blobs["bias" if name == "weight" else f"{name}_bias"] = shape[:-1]
        return blobs
