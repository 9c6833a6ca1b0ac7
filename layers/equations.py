"""The equations of LG-LSTM in NumPy, forward and backward: start reading here.

| paper                                             | here                                      |
| ------------------------------------------------- | ----------------------------------------- |
| Eqs. (1), (2): the cell, LSTM(·)                  | `lstm`                                    |
| sec. 3.2.2: global hidden cells f                 | `grid_max`                                |
| sec. 3.2.2: local hidden cells h from N neighbors | `shift`, by the offsets of `DIRECTIONS`   |
| Eq. (3): input states H                           | `lg_lstm_forward`, which never builds H   |
| Eq. (4): hidden and memory cells of N + 1 LSTMs   | `_propagate`                              |
| sec. 3.1: transition layer                        | `transition_forward`                      |

Symbols follow the paper: B images, d hidden cells of one LSTM, N neighbors, a global grid of G × G
cells, maps of H × W positions. Everywhere:

    local   (B, (N+1)d, H, W)   hidden cells arriving from the N neighbors, then the depth LSTM's
    memory  (B, (N+1)d, H, W)   memory cells m, at the position where they were computed
    global  (B, d, G, G)        the largest hidden cells of the depth LSTM in each grid cell

`lglstm.layers.lg_lstm` has the Python layers for Caffe that compute with these functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lglstm.common.lg_lstm_shapes import DIRECTIONS, LSTM_GATES, TRANSITION_GATES, grid_bounds

Array = NDArray[np.floating]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow for any x."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def shift(maps: Array, offset: tuple[int, int]) -> Array:
    """Return out[..., y, x] = maps[..., y + dy, x + dx], zero where that lies outside."""
    dy, dx = offset
    height, width = maps.shape[-2:]
    out = np.zeros_like(maps)
    to_y, from_y = _overlap(dy, height)
    to_x, from_x = _overlap(dx, width)
    out[..., to_y, to_x] = maps[..., from_y, from_x]
    return out


def _overlap(step: int, length: int) -> tuple[slice, slice]:
    """The positions of an axis whose neighbor `step` away exists, and those neighbors."""
    first, last = max(0, -step), min(length, length - step)
    return slice(first, last), slice(first + step, last + step)


def flattened(array: np.ndarray, axis: int) -> np.ndarray:
    """The array with all axes from this one on made one; also without images."""
    return array.reshape(*array.shape[:axis], math.prod(array.shape[axis:]))


def grid_max(maps: Array, grid: int) -> tuple[Array, NDArray[np.intp]]:
    """Global hidden cells (B, d, G, G) of maps (B, d, H, W), and where each was found.

    The position counts in raster order; of equal values the first is taken.
    """
    height, width = maps.shape[-2:]
    values = np.empty((*maps.shape[:2], grid, grid), maps.dtype)
    positions = np.empty(values.shape, np.intp)
    rows, columns = grid_bounds(height, grid), grid_bounds(width, grid)
    for gy in range(grid):
        for gx in range(grid):
            cell = maps[:, :, rows[gy] : rows[gy + 1], columns[gx] : columns[gx + 1]]
            flat = flattened(cell, 2)
            best = flat.argmax(axis=2)
            values[:, :, gy, gx] = np.take_along_axis(flat, best[..., None], 2)[..., 0]
            y, x = np.divmod(best, cell.shape[3])
            positions[:, :, gy, gx] = (rows[gy] + y) * width + columns[gx] + x
    return values, positions


def grid_max_backward(diff: Array, positions: NDArray[np.intp], height: int, width: int) -> Array:
    """Gradient (B, d, H, W) of `grid_max`: each global cell's goes to where it was found."""
    out = np.zeros((*diff.shape[:2], height * width), diff.dtype)
    np.put_along_axis(out, flattened(positions, 2), flattened(diff, 2), 2)
    return out.reshape(*diff.shape[:2], height, width)


class Cells(NamedTuple):
    """Gates u, f, o, c and cells of one LSTM: what its backward pass needs, each (B, d, H, W).

    Without memory, as in the transition layer, there is no forget gate f either.
    """

    u: Array
    f: Array | None
    o: Array
    c: Array
    memory: Array | None
    next_memory: Array
    hidden: Array


def lstm(products: Array, memory: Array | None) -> Cells:
    """LSTM(·) of Eqs. (1) and (2), from the products W·H: (B, 4d, H, W).

    Without memory they are (B, 3d, H, W): those of u, o and c.
    """
    if memory is None:
        u, o, c = np.split(products, TRANSITION_GATES, axis=1)
        u, f, o, c = sigmoid(u), None, sigmoid(o), np.tanh(c)
        next_memory = u * c
    else:
        u, f, o, c = np.split(products, LSTM_GATES, axis=1)
        u, f, o, c = sigmoid(u), sigmoid(f), sigmoid(o), np.tanh(c)
        next_memory = f * memory + u * c
    return Cells(u, f, o, c, memory, next_memory, np.tanh(o * next_memory))


def lstm_backward(
    cells: Cells, hidden_diff: Array, memory_diff: Array
) -> tuple[Array, Array | None]:
    """Gradients of the products and of the memory, from those of the hidden and memory cells."""
    u, f, o, c, memory, next_memory, hidden = cells
    z_diff = hidden_diff * (1 - hidden**2)  # z = o m'
    memory_diff = memory_diff + z_diff * o
    u_diff = memory_diff * c * u * (1 - u)
    o_diff = z_diff * next_memory * o * (1 - o)
    c_diff = memory_diff * u * (1 - c**2)
    if f is None or memory is None:
        return np.concatenate([u_diff, o_diff, c_diff], axis=1), None
    f_diff = memory_diff * memory * f * (1 - f)
    return np.concatenate([u_diff, f_diff, o_diff, c_diff], axis=1), memory_diff * f


def matmul_maps(weight: Array, maps: Array) -> Array:
    """A matrix (rows, C) times the channels of maps (B, C, H, W): (B, rows, H, W)."""
    return (weight @ flattened(maps, 2)).reshape(len(maps), len(weight), *maps.shape[2:])


def outer_maps(diff: Array, maps: Array) -> Array:
    """Gradient (rows, C) of the matrix in `matmul_maps`."""
    return np.einsum("brj,bcj->rc", flattened(diff, 2), flattened(maps, 2), optimize=True)


@dataclass(frozen=True)
class LGLSTMOptions:
    """What shapes an LG-LSTM or transition layer; the names are those of `lg_lstm_param`.

    num_output: d. neighbors: N. global_grid: G, 0 is without global hidden cells.
    share_spatial: one weight matrix for the N spatial LSTMs. bias_term: biases in the gates.
    """

    num_output: int = 64
    neighbors: int = 8
    global_grid: int = 3
    share_spatial: bool = True
    bias_term: bool = False

    @property
    def lstms(self) -> int:
        """N spatial LSTMs and the depth LSTM."""
        return self.neighbors + 1

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Where each LSTM's hidden cells come from; the depth LSTM's stay."""
        return [*DIRECTIONS[self.neighbors], (0, 0)]


class Forward(NamedTuple):
    """Tops of a layer and what its backward pass needs."""

    local: Array
    memory: Array
    global_: Array | None
    cells: list[Cells]
    positions: NDArray[np.intp] | None


def _propagate(options: LGLSTMOptions, products: list[Array], memory: Array | None) -> Forward:
    """Eq. (4): from the products of each LSTM to the tops, hidden cells at their destination."""
    memories: list[Array | None] = [None] * options.lstms
    if memory is not None:
        memories = [*np.split(memory, options.lstms, axis=1)]
    cells = [lstm(product, m) for product, m in zip(products, memories, strict=True)]
    local = np.concatenate(
        [shift(c.hidden, offset) for c, offset in zip(cells, options.offsets, strict=True)], axis=1
    )
    next_memory = np.concatenate([c.next_memory for c in cells], axis=1)
    if not options.global_grid:
        return Forward(local, next_memory, None, cells, None)
    global_, positions = grid_max(cells[-1].hidden, options.global_grid)
    return Forward(local, next_memory, global_, cells, positions)


def _propagate_backward(
    options: LGLSTMOptions,
    forward: Forward,
    local_diff: Array,
    memory_diff: Array,
    global_diff: Array | None,
) -> tuple[list[Array], Array | None]:
    """Gradients of the products of each LSTM and of the memory, from those of the tops."""
    hidden_diffs = [
        shift(diff, (-dy, -dx))
        for diff, (dy, dx) in zip(
            np.split(local_diff, options.lstms, axis=1), options.offsets, strict=True
        )
    ]
    if forward.positions is not None and global_diff is not None:
        hidden_diffs[-1] = hidden_diffs[-1] + grid_max_backward(
            global_diff, forward.positions, *local_diff.shape[2:]
        )
    diffs = [
        lstm_backward(cells, hidden_diff, diff)
        for cells, hidden_diff, diff in zip(
            forward.cells, hidden_diffs, np.split(memory_diff, options.lstms, axis=1), strict=True
        )
    ]
    product_diffs = [product_diff for product_diff, _ in diffs]
    memory_diffs = [diff for _, diff in diffs if diff is not None]
    return product_diffs, np.concatenate(memory_diffs, axis=1) if memory_diffs else None


def _bias_maps(bias: Array | None) -> Array | float:
    return 0.0 if bias is None else bias[:, None, None]


class TransitionGradients(NamedTuple):
    """Gradients of what `transition_forward` takes, in the same shapes."""

    x: Array
    weight: Array
    bias: Array


class LGLSTMGradients(NamedTuple):
    """Gradients of what `lg_lstm_forward` takes, in the same shapes."""

    local: Array
    memory: Array | None
    global_: Array | None
    spatial: Array
    depth: Array
    spatial_bias: Array
    depth_bias: Array


def transition_forward(
    options: LGLSTMOptions, x: Array, weight: Array, bias: Array | None = None
) -> Forward:
    """Transition layer (sec. 3.1): x (B, C, H, W), weight (N+1, 3d, C), bias (N+1, 3d)."""
    biases: list[Array | None] = [None] * options.lstms if bias is None else [*bias]
    products = [matmul_maps(w, x) + _bias_maps(b) for w, b in zip(weight, biases, strict=True)]
    return _propagate(options, products, memory=None)


def transition_backward(
    options: LGLSTMOptions,
    forward: Forward,
    x: Array,
    weight: Array,
    local_diff: Array,
    memory_diff: Array,
    global_diff: Array | None = None,
) -> TransitionGradients:
    """Gradients of `transition_forward`, from those of its tops."""
    diffs, _ = _propagate_backward(options, forward, local_diff, memory_diff, global_diff)
    return TransitionGradients(
        x=_total([matmul_maps(w.T, diff) for w, diff in zip(weight, diffs, strict=True)]),
        weight=np.stack([outer_maps(diff, x) for diff in diffs]),
        bias=np.stack([diff.sum(axis=(0, 2, 3)) for diff in diffs]),
    )


def lg_lstm_forward(
    options: LGLSTMOptions,
    local: Array,
    memory: Array,
    global_: Array | None,
    spatial: Array,
    depth: Array,
    spatial_bias: Array | None = None,
    depth_bias: Array | None = None,
) -> Forward:
    """One LG-LSTM layer (Eqs. 3 and 4): spatial (S, 4d, K) with S = 1 or N, depth (4d, K).

    The columns of the weights are those of H = [f, h_1 … h_N, h_e]. f is the same at every
    position, so W·f is one vector for each image, and H is never built.
    """
    weights = [*spatial, depth]
    biases: list[Array | None] = [None] * len(weights)
    if spatial_bias is not None:
        biases = [*spatial_bias, depth_bias]
    products = []
    for weight, bias in zip(weights, biases, strict=True):
        product = matmul_maps(weight[:, _global_columns(options) :], local) + _bias_maps(bias)
        if global_ is not None:
            f = flattened(global_, 1)
            product += (f @ weight[:, : f.shape[1]].T)[:, :, None, None]
        products.append(product)
    return _propagate(options, _of_lstm(options, products), memory)


def lg_lstm_backward(
    options: LGLSTMOptions,
    forward: Forward,
    local: Array,
    global_: Array | None,
    spatial: Array,
    depth: Array,
    local_diff: Array,
    memory_diff: Array,
    global_diff: Array | None = None,
) -> LGLSTMGradients:
    """Gradients of `lg_lstm_forward`, from those of its tops."""
    lstm_diffs, memory_cells_diff = _propagate_backward(
        options, forward, local_diff, memory_diff, global_diff
    )
    weights = [*spatial, depth]
    product_diffs = [np.zeros_like(lstm_diffs[0]) for _ in weights]
    for total, diff in zip(_of_lstm(options, product_diffs), lstm_diffs, strict=True):
        total += diff
    sums = [diff.sum(axis=(2, 3)) for diff in product_diffs]  # (B, 4d)
    columns = _global_columns(options)
    weight_diffs = [outer_maps(diff, local) for diff in product_diffs]
    f_diff = None
    if global_ is not None:
        f = flattened(global_, 1)
        f_diff = _total([s @ w[:, :columns] for s, w in zip(sums, weights, strict=True)])
        weight_diffs = [
            np.concatenate([s.T @ f, diff], axis=1)
            for s, diff in zip(sums, weight_diffs, strict=True)
        ]
    return LGLSTMGradients(
        local=_total(
            [
                matmul_maps(w[:, columns:].T, diff)
                for w, diff in zip(weights, product_diffs, strict=True)
            ]
        ),
        memory=memory_cells_diff,
        global_=None if global_ is None or f_diff is None else f_diff.reshape(global_.shape),
        spatial=np.stack(weight_diffs[:-1]),
        depth=weight_diffs[-1],
        spatial_bias=np.stack([s.sum(axis=0) for s in sums[:-1]]),
        depth_bias=sums[-1].sum(axis=0),
    )


def _global_columns(options: LGLSTMOptions) -> int:
    return options.global_grid**2 * options.num_output


def _of_lstm(options: LGLSTMOptions, products: list[Array]) -> list[Array]:
    """One entry for each LSTM: with shared weights all spatial ones have the same product."""
    *spatial, depth = products
    return (spatial * options.neighbors if len(spatial) == 1 else spatial) + [depth]


def _total(arrays: list[Array]) -> Array:
    return reduce(np.add, arrays)
