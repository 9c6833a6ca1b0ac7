"""The equations of the paper, written to be compared with; all implementations must match.

Float64, H built for every position as in Eq. (3), the gates one by one as in Eq. (1), one LSTM
after the other as in Eq. (4). Nothing here is shared with the implementations under test. Gradients
are complex steps: with f computed in complex numbers, Im f(x + ih) / h is df/dx to rounding,
without anybody deriving a formula.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

ARROWS = {
    8: ["↖", "↑", "↗", "←", "→", "↙", "↓", "↘"],
    4: ["↖", "↑", "↗", "←"],
    2: ["↑", "←"],
}
# An arrow stands for where the neighbor lies, seen from the position that receives.
ROW_COLUMN = {
    "↖": (-1, -1),
    "↑": (-1, 0),
    "↗": (-1, 1),
    "←": (0, -1),
    "→": (0, 1),
    "↙": (1, -1),
    "↓": (1, 0),
    "↘": (1, 1),
}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(H, m, W, bias):
    """Eq. (1) at one position: H (K,), m (d,), W (4d, K) -> h', m', each (d,)."""
    Wu, Wf, Wo, Wc = np.split(W, 4)
    bu, bf, bo, bc = np.split(bias, 4)
    u, f, o = sigmoid(Wu @ H + bu), sigmoid(Wf @ H + bf), sigmoid(Wo @ H + bo)
    c = np.tanh(Wc @ H + bc)
    m = f * m + u * c
    return np.tanh(o * m), m


def cells(length: int, grid: int) -> list[range]:
    """The rows of each grid cell: from floor(gL/G + 1/2) on."""
    starts = [int(np.floor(g * length / grid + 0.5)) for g in range(grid + 1)]
    return [range(a, b) for a, b in itertools.pairwise(starts)]


def global_hidden(depth_hidden, grid: int):
    """Largest hidden cell of each grid cell; (B, d, H, W) -> (B, d, G, G)."""
    B, d, height, width = depth_hidden.shape
    f = np.empty((B, d, grid, grid), depth_hidden.dtype)
    for b, k, gy, gx in np.ndindex(f.shape):
        values = [
            depth_hidden[b, k, y, x]
            for y in cells(height, grid)[gy]
            for x in cells(width, grid)[gx]
        ]
        f[b, k, gy, gx] = max(values, key=lambda value: value.real)
    return f


def all_lstms(inputs, memory, weights, biases, neighbors: int, grid: int):
    """Eq. (4) at all positions.

    inputs (B, K, H, W): H of Eq. (3); memory (B, N+1, d, H, W); N+1 weights and biases.
    Returns local, memory[, global] as the layers' tops.
    """
    B, lstms, d, height, width = memory.shape
    sent = np.zeros_like(memory + inputs[0, 0, 0, 0] + weights[0].ravel()[0])
    next_memory = np.zeros_like(sent)
    arrived = np.zeros_like(sent)
    for b in range(B):
        for y, x in np.ndindex(height, width):
            for n in range(lstms):
                sent[b, n, :, y, x], next_memory[b, n, :, y, x] = lstm(
                    inputs[b, :, y, x], memory[b, n, :, y, x], weights[n], biases[n]
                )
        for y, x in np.ndindex(height, width):
            arrived[b, -1, :, y, x] = sent[b, -1, :, y, x]
            for n, arrow in enumerate(ARROWS[neighbors]):
                from_y, from_x = y + ROW_COLUMN[arrow][0], x + ROW_COLUMN[arrow][1]
                if 0 <= from_y < height and 0 <= from_x < width:
                    arrived[b, n, :, y, x] = sent[b, n, :, from_y, from_x]
    tops = [a.reshape(B, lstms * d, height, width) for a in (arrived, next_memory)]
    return tops + ([global_hidden(arrived[:, -1], grid)] if grid else [])


def lg_lstm(bottoms, weights, *, neighbors: int, grid: int, d: int):
    """The LG-LSTM layer. bottoms: local, memory[, global]; weights: spatial, depth[, biases]."""
    local, memory, *rest = bottoms
    spatial, depth, *biases = weights
    spatial_bias, depth_bias = biases or (np.zeros(spatial.shape[:2]), np.zeros(depth.shape[:1]))
    B, _, height, width = local.shape
    tiled = [np.broadcast_to(f.reshape(B, -1, 1, 1), (B, f[0].size, height, width)) for f in rest]
    H = np.concatenate([*tiled, local], axis=1)
    share = len(spatial) == 1
    return all_lstms(
        H,
        memory.reshape(B, neighbors + 1, d, height, width),
        [spatial[0 if share else n] for n in range(neighbors)] + [depth],
        [spatial_bias[0 if share else n] for n in range(neighbors)] + [depth_bias],
        neighbors,
        grid,
    )


def transition(bottoms, weights, *, neighbors: int, grid: int, d: int):
    """The transition layer. bottoms: x; weights: weight (N+1, 3d, C)[, bias (N+1, 3d)].

    Its rows are u, o, c. With zero memory any forget gate gives the same; here it has zero weights.
    """
    (x,) = bottoms
    weight, *biases = weights
    bias = biases[0] if biases else np.zeros(weight.shape[:2])
    with_forget = np.insert(weight, d, np.zeros((d, 1, 1)), axis=1)
    bias_with_forget = np.insert(bias, d, np.zeros((d, 1)), axis=1)
    B, _, height, width = x.shape
    memory = np.zeros((B, neighbors + 1, d, height, width))
    return all_lstms(x, memory, with_forget, bias_with_forget, neighbors, grid)


def directional_derivative(
    function: Callable,
    arrays: list[np.ndarray],
    directions: list[np.ndarray],
    top_diffs: list[np.ndarray],
) -> float:
    """Derivative of sum(top_diffs * tops) when the arrays move along the directions."""
    step = 1e-30
    tops = function(
        [a + 1j * step * direction for a, direction in zip(arrays, directions, strict=True)]
    )
    return sum((diff * top.imag).sum() for diff, top in zip(top_diffs, tops, strict=True)) / step


def assert_gradients(
    function: Callable,
    arrays: list[np.ndarray],
    top_diffs: list[np.ndarray],
    gradients: list[np.ndarray],
    *,
    relative: float,
    samples: int = 20,
) -> None:
    """Compare gradients with complex steps: some elements of each array alone, then all at once.

    A gradient may be off by `relative` times the largest of its array.
    """
    rng = np.random.default_rng(1)
    zeros = [np.zeros(a.shape) for a in arrays]
    for i, (array, gradient) in enumerate(zip(arrays, gradients, strict=True)):
        assert gradient.shape == array.shape
        allowed = relative * np.abs(gradient).max()
        assert allowed > 0, f"gradient {i} is zero everywhere"
        for at in rng.choice(array.size, min(samples, array.size), replace=False):
            direction = zeros.copy()
            direction[i] = np.zeros(array.shape)
            direction[i].flat[at] = 1
            expected = directional_derivative(function, arrays, direction, top_diffs)
            assert abs(gradient.flat[at] - expected) <= allowed, (i, at)
        direction = zeros.copy()
        direction[i] = rng.normal(size=array.shape)
        expected = directional_derivative(function, arrays, direction, top_diffs)
        # The errors of n elements add up like a random walk.
        assert abs((gradient * direction[i]).sum() - expected) <= allowed * array.size**0.5, i
