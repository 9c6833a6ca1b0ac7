"""Compute with PyTorch what Caffe computes in scripts/gpu_check.py; print the result as JSON.

    python3 gpu_torch.py loss demo --device cuda:0    the loss of the kit's first batch
    python3 gpu_torch.py train horse --device cuda:0  milliseconds of a training iteration,
    python3 gpu_torch.py stack horse --device cuda:0  … of its LG-LSTM layers, forward and backward,
    python3 gpu_torch.py image horse --device cuda:0  … of one image through the deploy net

Run in a kit's folder. Single precision without TF32, as in Caffe; cuDNN may choose its fastest
algorithms.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from lglstm.convert.torch import Net


def loss(place: Path, device: torch.device) -> float:
    """The total loss of the first training batch, from the initial weights."""
    net = read(place / "train.json", device)
    with np.load(place / "first.npz") as file:
        arrays = dict(file)
    net.load_weights(arrays)
    inputs = [torch.from_numpy(arrays[f"input {name}"]).to(device) for name in net.inputs]
    with torch.no_grad():
        return net(*inputs).item()


def training(place: Path, device: torch.device) -> Callable[[], None]:
    """Forward, backward and a step of the solver; photos and labels are on the device already."""
    net = read(place / "train.json", device)
    photos, labels = (
        torch.zeros(shape, device=device) for shape in net.description["inputs"].values()
    )
    photos.normal_(0, 50)
    solver = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)

    def iteration() -> None:
        solver.zero_grad()
        net(photos, labels).backward()
        solver.step()

    return iteration


def stack(place: Path, device: torch.device) -> Callable[[], None]:
    """Forward and backward of the LG-LSTM layers alone, down to the features."""
    net = read(place / "stack.json", device)
    [shape] = net.description["inputs"].values()
    features = torch.full(shape, 0.5, device=device, requires_grad=True)

    def iteration() -> None:
        net.zero_grad()
        features.grad = None
        local, _memory, grid = net(features).values()
        (local.sum() + grid.sum()).backward()

    return iteration


def image(place: Path, device: torch.device) -> Callable[[], None]:
    """One photo through the deploy net."""
    net = read(place / "deploy.json", device).eval()
    [shape] = net.description["inputs"].values()
    photo = torch.zeros(shape, device=device).normal_(0, 50)

    def iteration() -> None:
        with torch.no_grad():
            net(photo)

    return iteration


def read(path: Path, device: torch.device) -> Net:
    return Net(json.loads(path.read_text())).to(device).train()


def milliseconds(iteration: Callable[[], None], device: torch.device, iterations: int) -> float:
    """The mean of `iterations`, after as many to warm up."""
    for measured in (False, True):
        begin = time.perf_counter()
        for _ in range(iterations):
            iteration()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if measured:
            return (time.perf_counter() - begin) / iterations * 1e3
    raise AssertionError


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["loss", "train", "stack", "image"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--device", type=torch.device, default="cpu", help="default: cpu")
    parser.add_argument("--iterations", type=int, default=20, help="default: 20")
    arguments = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(1)
    if arguments.what == "loss":
        result = {"loss": loss(arguments.model, arguments.device)}
    else:
        prepare = {"train": training, "stack": stack, "image": image}[arguments.what]
        iteration = prepare(arguments.model, arguments.device)
        result = {"ms": milliseconds(iteration, arguments.device, arguments.iterations)}
    print(json.dumps(result | {"torch": torch.__version__}))


if __name__ == "__main__":
    main()
