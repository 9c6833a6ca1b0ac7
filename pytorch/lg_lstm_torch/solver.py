"""Caffe's solvers in PyTorch: the same updates and the same course of the learning rate.

    optimizer = make_optimizer(solver, net.weights(), multipliers)
    for iteration in range(solver.max_iter):
        ...
        set_rate(optimizer, solver, iteration)
        optimizer.step()

`solver` has the fields of Caffe's SolverParameter as attributes: a message that was read from a
solver.prototxt, or a `types.SimpleNamespace` of those that are used.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class _CaffeOptimizer(torch.optim.Optimizer):
    """Groups have `lr` and `weight_decay`, and a subclass's own numbers."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update all weights that have a gradient; see `torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    gradient = weight.grad.add(weight, alpha=group["weight_decay"])
                    self._update(weight, gradient, group, self.state[weight])
        return loss

    def _update(
        self, weight: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Any]
    ) -> None:
        raise NotImplementedError


class SGD(_CaffeOptimizer):
    """V = momentum V + lr g, W = W - V, where g is the gradient plus weight_decay W.

    V holds steps, PyTorch's momentum sums of gradients: once `lr` changes, steps that were taken
    with the old one go on in Caffe, and are taken anew in PyTorch.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, momentum: float = 0.0, weight_decay: float = 0.0
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def _update(
        self, weight: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Any]
    ) -> None:
        if not state:
            state["step"] = torch.zeros_like(weight)
        state["step"].mul_(group["momentum"]).add_(gradient, alpha=group["lr"])
        weight.sub_(state["step"])


class Adam(_CaffeOptimizer):
    """Adam whose `eps` is added before the second moment is corrected, in PyTorch after it.

    Weight decay is part of the gradient, as in `torch.optim.Adam`, not as in `AdamW`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    def _update(
        self, weight: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Any]
    ) -> None:
        if not state:
            state |= {"count": 0, "m": torch.zeros_like(weight), "v": torch.zeros_like(weight)}
        state["count"] += 1
        first, second = group["betas"]
        m = state["m"].mul_(first).add_(gradient, alpha=1 - first)
        v = state["v"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        correction = math.sqrt(1 - second ** state["count"]) / (1 - first ** state["count"])
        weight.addcdiv_(m, v.sqrt().add_(group["eps"]), value=-group["lr"] * correction)


def make_optimizer(
    solver: Any, weights: Mapping[str, Tensor], multipliers: Mapping[str, tuple[float, float]]
) -> SGD | Adam:
    """The solver's optimizer; multipliers: each weight's lr_mult and decay_mult.

    A weight whose lr_mult is 0 is frozen, with `requires_grad`. Raises ValueError for what is not
    implemented here.
    """
    for field, value in (("iter_size", 1), ("clip_gradients", -1), ("regularization_type", "L2")):
        if getattr(solver, field, value) != value:
            raise ValueError(f"{field} is {getattr(solver, field)}; only {value} is implemented")
    alike = defaultdict(list)
    for key, weight in weights.items():
        weight.requires_grad_(multipliers[key][0] != 0)
        alike[multipliers[key]].append(weight)
    groups = [
        {"params": params, "lr_mult": lr_mult, "weight_decay": decay_mult * solver.weight_decay}
        for (lr_mult, decay_mult), params in alike.items()
    ]
    if solver.type == "SGD":
        return SGD(groups, solver.base_lr, solver.momentum)
    if solver.type == "Adam":
        return Adam(groups, solver.base_lr, (solver.momentum, solver.momentum2), solver.delta)
    raise ValueError(f"type is {solver.type}; only SGD and Adam are implemented")


def set_rate(optimizer: torch.optim.Optimizer, solver: Any, iteration: int) -> float:
    """Give every weight its learning rate in an iteration; return that of `lr_mult: 1`."""
    rate = learning_rate(solver, iteration)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_mult"]
    return rate


def learning_rate(solver: Any, iteration: int) -> float:
    """The learning rate of an iteration, counted from 0; ValueError for a bad lr_policy."""
    policy, base = solver.lr_policy, solver.base_lr
    if policy == "step" and solver.stepsize < 1:
        raise ValueError(f"stepsize is {solver.stepsize}; the lr_policy step needs one from 1 on")
    if policy == "fixed":
        return base
    if policy == "step":
        return base * solver.gamma ** (iteration // solver.stepsize)
    if policy == "multistep":
        return base * solver.gamma ** sum(iteration >= value for value in solver.stepvalue)
    if policy == "exp":
        return base * solver.gamma**iteration
    if policy == "inv":
        return base * (1 + solver.gamma * iteration) ** -solver.power
    if policy == "poly":
        return base * (1 - iteration / solver.max_iter) ** solver.power
    if policy == "sigmoid":
        x = solver.gamma * (iteration - solver.stepsize)
        return base * 0.5 * (1 + math.tanh(0.5 * x))  # 1 / (1 + exp(-x)), without overflow
    raise ValueError(f"lr_policy is {policy!r}, which is none of Caffe's")
