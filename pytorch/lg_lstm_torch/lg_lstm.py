"""The two LG-LSTM layers of "Semantic Object Parsing with Local-Global LSTM" (CVPR 2016).

Every position of a map has N spatial LSTMs and one along the depth of the network, d cells each:

    u, f, o = sigmoid(W_u H), sigmoid(W_f H), sigmoid(W_o H);   c = tanh(W_c H)
    m' = f m + u c;   h' = tanh(o m')                                             (Eq. 1)

(not h' = o tanh(m'); no bias unless `bias_term`). Both layers return

    local   (B, (N+1) d, H, W)  hidden cells that arrive at each position, d channels for each of
                                the N directions, then the depth LSTM's own
    memory  (B, (N+1) d, H, W)  memory cells m', where they were computed
    global  (B, d, G, G)        largest hidden cell of the depth LSTM in each cell of a G x G grid;
                                absent when `global_grid` is 0

which is what the next LGLSTM takes. Directions are named by where hidden cells come from, in raster
order; from outside the map comes zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# (row, column) of the neighbor that each spatial LSTM receives from.
DIRECTIONS = {
    8: [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)],
    4: [(-1, -1), (-1, 0), (-1, 1), (0, -1)],
    2: [(-1, 0), (0, -1)],
}


class _LGLSTMBase(nn.Module):
    # Of TorchScript, which then knows how many tops there are.
    __constants__ = ("global_grid", "has_global", "neighbors", "num_output")

    def __init__(self, num_output: int, neighbors: int, global_grid: int):
        super().__init__()
        if neighbors not in DIRECTIONS:
            raise ValueError(f"neighbors is {neighbors}; allowed are 2, 4 and 8")
        self.num_output, self.neighbors, self.global_grid = num_output, neighbors, global_grid
        self.has_global = global_grid > 0
        self.directions = DIRECTIONS[neighbors]

    def extra_repr(self) -> str:
        return f"{self.num_output}, neighbors={self.neighbors}, global_grid={self.global_grid}"

    # No annotation: TorchScript knows no tuples of any length, and finds two or three by itself.
    def _tops(self, hidden: Tensor, memory: Tensor):  # type: ignore
        """From what the LSTMs computed, (B, N+1, d, H, W), to local, memory[, global]."""
        depth = hidden[:, self.neighbors]
        arrivals = self._arrivals(hidden)
        arrivals.append(depth)
        local, memory = torch.cat(arrivals, dim=1), memory.flatten(1, 2)
        if self.has_global:
            return local, memory, grid_max(depth, self.global_grid)
        else:  # noqa: RET505, TorchScript drops this branch or that
            return local, memory

    def _arrivals(self, sent: Tensor) -> list[Tensor]:
        """What reaches each position, for each direction: the map moved by one, zeros moved in."""
        height, width = sent.shape[-2], sent.shape[-1]
        padded = F.pad(sent, (1, 1, 1, 1))
        arrivals: list[Tensor] = []
        for n, offset in enumerate(self.directions):
            row, column = 1 + offset[0], 1 + offset[1]
            arrivals.append(padded[:, n, :, row : row + height, column : column + width])
        return arrivals


class LGLSTMTransition(_LGLSTMBase):
    """Makes hidden and memory cells from features x (B, C, H, W): N+1 LSTMs, H = x, zero memory.

    With zero memory the forget gate multiplies nothing and is left out: `weight` (N+1, 3 d, C) has
    the rows u, o, c; with `bias_term`, `bias` (N+1, 3 d).
    """

    def __init__(
        self,
        in_channels: int,
        num_output: int = 64,
        neighbors: int = 8,
        global_grid: int = 3,
        bias_term: bool = False,
    ):
        super().__init__(num_output, neighbors, global_grid)
        lstms = neighbors + 1
        self.weight = nn.Parameter(torch.empty(lstms, 3 * num_output, in_channels))
        self.bias = nn.Parameter(torch.zeros(lstms, 3 * num_output)) if bias_term else None
        nn.init.uniform_(self.weight, -0.1, 0.1)

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> tuple[Tensor, ...]: ...

    def forward(self, x: Tensor):  # type: ignore
        """Features (B, C, H, W) to local, memory[, global]; ValueError for other channels."""
        if x.dim() != 4 or x.shape[1] != self.weight.shape[2]:
            raise ValueError(
                f"the features have the shape {list(x.shape)}, but this layer has weights for "
                f"(B, {self.weight.shape[2]}, H, W)"
            )
        weight = self.weight.flatten(0, 1)[:, :, None, None]
        gates = F.conv2d(x, weight, None if self.bias is None else self.bias.flatten())
        gates = gates.unflatten(1, (self.neighbors + 1, 3, self.num_output))
        u, o, c = gates.unbind(2)  # each (B, N+1, d, H, W)
        memory = u.sigmoid() * c.tanh()
        return self._tops((o.sigmoid() * memory).tanh(), memory)


class LGLSTM(_LGLSTMBase):
    """One LG-LSTM layer: every LSTM sees H = [global, arriving hidden cells] and its own memory.

    `spatial` (S, 4 d, K) and `depth` (4 d, K), K = (G² + N + 1) d: columns global (d, G, G), then
    directions, then depth; rows u, f, o, c. S = 1 when the spatial LSTMs share weights, else N.
    With `bias_term`, `spatial_bias` (S, 4 d) and `depth_bias` (4 d).

    The global cells are the same at every position, so their product is computed once per image;
    and LSTMs that share weights have the same gates, computed once.
    """

    def __init__(
        self,
        num_output: int = 64,
        neighbors: int = 8,
        global_grid: int = 3,
        share_spatial: bool = True,
        bias_term: bool = False,
    ):
        super().__init__(num_output, neighbors, global_grid)
        d, sets = num_output, 1 if share_spatial else neighbors
        inputs = (global_grid**2 + neighbors + 1) * d
        self.spatial = nn.Parameter(torch.empty(sets, 4 * d, inputs))
        self.depth = nn.Parameter(torch.empty(4 * d, inputs))
        for weight in (self.spatial, self.depth):
            nn.init.uniform_(weight, -0.1, 0.1)
        self.spatial_bias = nn.Parameter(torch.zeros(sets, 4 * d)) if bias_term else None
        self.depth_bias = nn.Parameter(torch.zeros(4 * d)) if bias_term else None

    if TYPE_CHECKING:

        def __call__(
            self, local: Tensor, memory: Tensor, grid: Tensor | None = None
        ) -> tuple[Tensor, ...]: ...

    def forward(self, local: Tensor, memory: Tensor, grid: Tensor | None = None):  # type: ignore
        """The tops of the layer before to those of this one; ValueError for other shapes.

        grid: `global`, left out where there is none.
        """
        self._check(local, memory, grid)
        gates = self._gates(local, grid)
        memory = memory.unflatten(1, (self.neighbors + 1, self.num_output))
        # Shared gates, one set for all N, broadcast against the N memories.
        sets = gates.shape[1] - 1
        spatial_h, spatial_m = lstm(gates[:, :sets], memory[:, : self.neighbors])
        depth_h, depth_m = lstm(gates[:, sets:], memory[:, self.neighbors :])
        return self._tops(torch.cat([spatial_h, depth_h], 1), torch.cat([spatial_m, depth_m], 1))

    def _check(self, local: Tensor, memory: Tensor, grid: Tensor | None) -> None:
        channels = (self.neighbors + 1) * self.num_output
        if local.dim() != 4 or local.shape[1] != channels or memory.shape != local.shape:
            raise ValueError(
                f"local and memory have the shapes {list(local.shape)} and {list(memory.shape)}, "
                f"but this layer takes two of (B, {channels}, H, W)"
            )
        size = self.global_grid
        if grid is None and self.has_global:
            raise ValueError("global is missing: this layer was made with a global_grid")
        if grid is not None:
            if not self.has_global:
                raise ValueError("global is given, but this layer was made with global_grid=0")
            expected = [local.shape[0], self.num_output, size, size]
            if list(grid.shape) != expected:
                raise ValueError(
                    f"global has the shape {list(grid.shape)}, but this layer takes {expected}"
                )

    def _gates(self, local: Tensor, grid: Tensor | None) -> Tensor:
        """W H for the S sets of spatial weights and the depth LSTM's: (B, S+1, 4, d, H, W)."""
        weight = torch.cat([self.spatial.flatten(0, 1), self.depth])
        cells = weight.shape[1] - local.shape[1]
        bias: Tensor | None = None
        if self.spatial_bias is not None and self.depth_bias is not None:
            bias = torch.cat([self.spatial_bias.flatten(), self.depth_bias])
        gates = F.conv2d(local, weight[:, cells:, None, None], bias)
        if grid is not None:
            gates = gates + (grid.flatten(1) @ weight[:, :cells].T)[:, :, None, None]
        return gates.unflatten(1, (self.spatial.shape[0] + 1, 4, self.num_output))


def lstm(gates: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. (1): gates (B, n or 1, 4, d, H, W), memory (B, n, d, H, W) -> h', m'."""
    u, f, o, c = gates.unbind(2)
    memory = f.sigmoid() * memory + u.sigmoid() * c.tanh()
    return (o.sigmoid() * memory).tanh(), memory


def grid_max(hidden: Tensor, grid: int) -> Tensor:
    """Maximum in each cell of a grid: (B, d, H, W) -> (B, d, G, G).

    Of equal values, the gradient goes to the first in raster order.
    """
    height, width = hidden.shape[-2], hidden.shape[-1]
    if min(height, width) < grid:
        raise ValueError(f"a map of {height} x {width} is smaller than its {grid} x {grid} grid")
    rows, columns = grid_bounds(height, grid), grid_bounds(width, grid)
    cells: list[Tensor] = []
    for i in range(grid):
        for j in range(grid):
            cell = hidden[:, :, rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
            cells.append(cell.flatten(2).max(dim=2)[0])
    return torch.stack(cells, dim=2).unflatten(2, (grid, grid))


def grid_bounds(length: int, grid: int) -> list[int]:
    """Where the cells begin on an axis, and its end: ⌊gL/G + ½⌋, so that cells mirror with maps."""
    return [(2 * g * length + grid) // (2 * grid) for g in range(grid + 1)]
