"""Nets run by PyTorch: on the CPU, on NVIDIA's GPUs, or on that of a Mac."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lglstm.common.errors import InputError
from lglstm.common.hashing import sha256_of, unchanged
from lglstm.convert.description import read_description
from lglstm.convert.read import read_model
from lglstm.convert.torch import Net, load
from lglstm.evaluation.engines import Engine, Gpu, NetFiles, preparation_of

MPS = "mps"


def choose_gpu(asked: int | None) -> Gpu:
    """The GPU that is asked for, else the first of NVIDIA, else that of a Mac, else None."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked is not None:
        if asked >= count:
            raise InputError(
                f"--gpu {asked}: PyTorch finds {count} NVIDIA GPU(s) here, numbered from 0; give a "
                "lower number, or --cpu"
            )
        return asked
    if count:
        return 0
    return MPS if torch.backends.mps.is_available() else None


class TorchEngine(Engine):
    """A model's deploy net with its weights, or a file that `lglstm convert --to pytorch` made."""

    def __init__(self, files: NetFiles, gpu: Gpu) -> None:
        self.files, self.gpu = files, gpu
        self._device = torch.device("cpu" if gpu is None else MPS if gpu == MPS else f"cuda:{gpu}")
        with unchanged(files.weights) as self.weights_sha256:
            net = self._read(files)
            described = read_description(files.weights)
        self._net = net.eval().to(self._device)
        self._output, size = _parsing(net, files)
        self.preparation = preparation_of(described, size)
        self.label_set = described.label_set if described else None
        self.num_classes = self.run(np.zeros((1, 3, *size), np.float32))["score"].shape[1]

    def _read(self, files: NetFiles) -> Net:
        if files.deploy is not None:
            model = read_model(files.deploy, files.weights)
            self.deploy_sha256 = sha256_of(files.deploy)
            return Net(model.deploy.description()).load_weights(model.weights)
        try:
            return load(files.weights)
        except InputError:
            raise
        except ValueError as error:  # a sentence that names the file
            raise InputError(f"{error}; or name the MODEL of these weights") from None

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            blobs = self._net.blobs([torch.from_numpy(batch).to(self._device)], [self._output])
            return {"score": blobs[self._output].float().cpu().numpy()}

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__, "device": self._device.type}


def _parsing(net: Any, files: NetFiles) -> tuple[str, tuple[int, int]]:
    """The output and (h, w) of a net that takes one photo; InputError for another net."""
    shapes = list(net.description["inputs"].values())
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] != 3 or len(net.outputs) != 1:
        raise InputError(
            f"{files.weights}: its net does not make one map of scores of one photo; give a file "
            "that was converted from a deploy net"
        )
    return net.outputs[0], (shapes[0][2], shapes[0][3])
