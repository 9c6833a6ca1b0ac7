"""The stack in PyTorch, what a user would write instead, for `lglstm bench stack`.

Three forms of the same equations, each with the gates of the directions, whose weights are shared,
computed once:

    literal    as the paper writes it: H of Eq. (3) is built, with the global hidden cells repeated
               at every position, and multiplied by the gate weights and the classifier's
    factored   the product with the global hidden cells once for each image (lglstm.convert.torch)
    compiled   the factored form through torch.compile
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.counts import StackSize
from benchmarks.memory import PeakMemory
from lglstm.convert.torch.lg_lstm import LGLSTM, LGLSTMTransition

FORMS = ("literal", "factored", "compiled")


def tiled(local: Tensor, grid: Tensor) -> Tensor:
    """H of Eq. (3): local (B, (N+1) d, H, W) and global (B, d, G, G) -> (B, K, H, W)."""
    repeated = grid.flatten(1)[:, :, None, None].expand(-1, -1, *local.shape[2:])
    return torch.cat([repeated, local], dim=1)


class LiteralLGLSTM(LGLSTM):
    """LGLSTM on the tiled H, which is given in place of `local`."""

    def _check(self, local: Tensor, memory: Tensor, grid: Tensor | None) -> None:
        """Nothing: `local` holds the global hidden cells as well, at every position."""

    def _gates(self, inputs: Tensor, *grid: Tensor) -> Tensor:
        weight = torch.cat([self.spatial.flatten(0, 1), self.depth])
        gates = F.conv2d(inputs, weight[:, :, None, None])
        return gates.unflatten(1, (len(self.spatial) + 1, 4, self.num_output))


class Classifier(nn.Module):
    """A 1×1 convolution of H: weights for its local and its global part, and a bias.

    Called with local and global cells, or with the tiled H alone.
    """

    def __init__(self, size: StackSize) -> None:
        super().__init__()
        self.local = nn.Parameter(torch.empty(size.classes, size.local))
        self.global_ = nn.Parameter(torch.empty(size.classes, size.global_))
        self.bias = nn.Parameter(torch.empty(size.classes))

    def forward(self, inputs: Tensor, grid: Tensor | None = None) -> Tensor:
        if grid is None:
            weight = torch.cat([self.global_, self.local], dim=1)
            return F.conv2d(inputs, weight[:, :, None, None], self.bias)
        scores = F.conv2d(inputs, self.local[:, :, None, None], self.bias)
        return scores + (grid.flatten(1) @ self.global_.T)[:, :, None, None]


class Stack(nn.Module):
    """Transition, LG-LSTM layers that share their weights, a classifier after each.

    x (B, C, H, W) -> the scores of each layer, (B, classes, H, W).
    """

    def __init__(self, size: StackSize, literal: bool) -> None:
        super().__init__()
        self.layers, self.literal = size.layers, literal
        cells = (size.hidden, size.neighbors, size.grid)
        self.transition = LGLSTMTransition(size.channels, *cells)
        self.lg_lstm: LGLSTM = (LiteralLGLSTM if literal else LGLSTM)(*cells)
        self.classifiers = nn.ModuleList(Classifier(size) for _ in range(size.layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        local, memory, grid = self.transition(x)
        scores = []
        if not self.literal:
            for classifier in self.classifiers:
                local, memory, grid = self.lg_lstm(local, memory, grid)
                scores.append(classifier(local, grid))
            return scores
        inputs = tiled(local, grid)
        for classifier in self.classifiers:
            local, memory, grid = self.lg_lstm(inputs, memory)
            inputs = tiled(local, grid)
            scores.append(classifier(inputs))
        return scores

    def weights(self) -> dict[str, Tensor]:
        """The parameters by the names that all implementations use."""
        named: dict[str, Tensor] = {"transition": self.transition.weight}
        named |= {"spatial": self.lg_lstm.spatial, "depth": self.lg_lstm.depth}
        for i, classifier in enumerate(self.classifiers, start=1):
            for part, weight in classifier.named_parameters():
                named[f"score{i}_{part.rstrip('_')}"] = weight
        return named


class TorchStack:
    """Has the methods of CaffeStack. form: one of FORMS."""

    def __init__(self, form: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.form = form

    def build(self, size: StackSize) -> None:
        for name in ("stack", "compute", "x", "diffs", "scores"):
            vars(self).pop(name, None)  # the net before is freed first
        self.memory = PeakMemory()
        self.stack = Stack(size, self.form == "literal")
        self.compute: Callable[[Tensor], list[Tensor]] = self.stack
        if self.form == "compiled":
            torch._dynamo.reset()  # for these shapes, not for those of a net before
            self.compute = torch.compile(self.stack, dynamic=False)
        uniform = torch.distributions.Uniform(-0.1, 0.1)
        shape = (size.batch, size.channels, size.height, size.width)
        self.x = uniform.sample(shape).requires_grad_()
        with torch.no_grad():
            for weight in self.stack.parameters():
                weight.copy_(uniform.sample(weight.shape))
        shape = (size.batch, size.classes, size.height, size.width)
        self.diffs = [uniform.sample(shape) for _ in range(size.layers)]

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        with torch.no_grad():
            self.x.copy_(torch.from_numpy(arrays["x"]))
            for name, weight in self.stack.weights().items():
                weight.copy_(torch.from_numpy(arrays[name]).reshape(weight.shape))
            for i, diff in enumerate(self.diffs, start=1):
                diff.copy_(torch.from_numpy(arrays[f"score{i}_diff"]))

    def run(self) -> dict[str, float]:
        self.scores: list[Tensor] = []
        self.x.grad = None
        self.stack.zero_grad(set_to_none=True)
        started = time.perf_counter()
        self.scores = self.compute(self.x)
        between = time.perf_counter()
        torch.autograd.backward(self.scores, self.diffs)
        ended = time.perf_counter()
        return {"forward": between - started, "backward": ended - between}

    def results(self) -> dict[str, np.ndarray]:
        found = {f"score{i}": s.detach().numpy() for i, s in enumerate(self.scores, start=1)}
        for name, tensor in ({"x": self.x} | self.stack.weights()).items():
            assert tensor.grad is not None  # after run
            found[f"{name}_diff"] = tensor.grad.numpy()
        return found

    def warm_up(self) -> None:
        self.run()
        self.memory.forget()

    def peak_mib(self) -> float:
        return self.memory.mib()

    def version(self) -> str:
        return torch.__version__
