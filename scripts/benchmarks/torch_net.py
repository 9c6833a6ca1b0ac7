"""A whole model in PyTorch, as `lglstm convert --to pytorch` makes it, for `lglstm bench net`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.memory import PeakMemory
from benchmarks.net import RATE, Arrays
from benchmarks.timing import seconds_of
from lglstm.convert.torch import load_caffemodel

MOMENTUM, DECAY = 0.9, 0.0005


class TorchNet:
    """Has the methods of CaffeNet.

    form: "eager", "channels_last", "compiled", or "bf16" for PyTorch's automatic choice of what to
    compute in bfloat16, channels last.
    """

    def __init__(self, form: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.form = form

    def check(self, folder: Path, weights: Path, inputs: Arrays) -> Arrays:
        net = load_caffemodel(folder / "train.prototxt", weights, train=True).eval()
        with self._precision():
            loss = net(*_tensors(inputs))
        loss.backward()
        gradients = {
            key: weight.grad.numpy()
            for key, weight in net.weights().items()
            if weight.grad is not None
        }
        deploy = load_caffemodel(folder / "deploy.prototxt", weights)
        with torch.inference_mode(), self._precision():
            score = deploy(torch.from_numpy(inputs["data"][:1])).float().numpy()
        return {"loss": loss.detach().float().numpy(), "score": score} | gradients

    def build(self, folder: Path, weights: Path, task: str, inputs: Arrays) -> None:
        self.memory = PeakMemory()
        self.task = task
        kind = "train" if task == "train" else "deploy"
        self.net = load_caffemodel(folder / f"{kind}.prototxt", weights, train=task == "train")
        learned = [p for p in self.net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(
            learned, RATE, momentum=MOMENTUM, weight_decay=DECAY, fused=True
        )
        self.inputs = _tensors(inputs if task == "train" else {"data": inputs["data"][:1]})
        self.compute: Callable[..., Tensor] = self.net
        if self.form in ("channels_last", "bf16"):
            self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.inputs[0] = self.inputs[0].contiguous(memory_format=torch.channels_last)
        if self.form == "compiled":
            self.compute = torch.compile(self.net, dynamic=False)

    def warm_up(self) -> None:
        self.run()
        self.memory.forget()

    def run(self) -> dict[str, float]:
        if self.task == "image":
            with torch.inference_mode():
                return {"forward": seconds_of(self._forward)}
        made: list[Tensor] = []
        clearing = seconds_of(self.optimizer.zero_grad)
        forward = seconds_of(lambda: made.append(self._forward()))
        backward = seconds_of(made[0].backward)
        update = clearing + seconds_of(self.optimizer.step)
        return {"forward": forward, "backward": backward, "update": update}

    def takes_onnx(self) -> bool:
        return False

    def score(self) -> np.ndarray:
        with torch.inference_mode():
            return self._forward().float().numpy()

    def peak_mib(self) -> float:
        return self.memory.mib()

    def _forward(self) -> Tensor:
        with self._precision():
            return self.compute(*self.inputs)

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.form == "bf16")

    def version(self) -> str:
        return torch.__version__


def _tensors(inputs: Arrays) -> list[Tensor]:
    return [torch.from_numpy(array) for array in inputs.values()]
