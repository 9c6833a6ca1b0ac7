"""What runs a net: Caffe, ONNX Runtime or PyTorch, each in a module of its own, behind one class.

    files = net_files("horse")                           # or of "horse.onnx"
    backend = choose_backend(None, files)
    engine = open_engine(files, backend, choose_gpu(backend, None, cpu=False))
    scores = engine.run(np.stack([engine.prepare(photo)]))["score"]

Engines differ by single precision's rounding alone, and only the module of the chosen one is
imported. A GPU is its number, or "mps" for that of a Mac; None is the CPU.
"""

from __future__ import annotations

import importlib.util
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lglstm.common import preprocessing
from lglstm.common.devices import choose_gpu as choose_caffe_gpu
from lglstm.common.errors import InputError, UsageError
from lglstm.common.labels import LabelSet
from lglstm.common.models import ModelFiles, find_model, find_weights
from lglstm.common.pycaffe import MISSING
from lglstm.convert.description import Description
from lglstm.evaluation.weights import Loaded

PathLike = str | os.PathLike[str]
Gpu = int | str | None

BACKENDS = ("caffe", "onnx", "torch")

WITH_NET = (".onnx", ".safetensors", ".pth", ".pt")
"""Suffixes of files that may hold a net with its weights."""


@dataclass(frozen=True)
class NetFiles:
    """What is to be run: `weights` in the net of a model, or, without a model, with their own."""

    model: ModelFiles | None
    weights: Path

    @property
    def name(self) -> str:
        return self.model.name if self.model else self.weights.stem

    @property
    def deploy(self) -> Path | None:
        return self.model.file if self.model else None

    def resolved(self) -> NetFiles:
        """The same by absolute paths, for another process."""
        model = self.model and replace(self.model, file=self.model.file.resolve())
        return NetFiles(model, self.weights.resolve())


class Engine(ABC):
    """A net with its weights on one device.

    files, gpu: what it was made of, and where it runs.
    input_size: (h, w) of the net. num_classes: C. outputs: names of its score maps; the last one,
        `score`, is its prediction.
    preparation: how photos go in. label_set: of the net, if its file says so.
    deploy_sha256, weights_sha256, test_sha256, layers_sha256: of the files as they were read; ""
        for those that are not used.
    loaded: which layers got weights; None if all did.
    """

    files: NetFiles
    gpu: Gpu = None
    num_classes: int
    outputs: tuple[str, ...] = ("score",)
    preparation: preprocessing.Preparation
    label_set: LabelSet | None = None
    deploy_sha256 = ""
    weights_sha256 = ""
    test_sha256 = ""
    layers_sha256 = ""
    loaded: Loaded | None = None

    @property
    def input_size(self) -> preprocessing.Size:
        return self.preparation.size

    def prepare(self, photo: np.ndarray) -> np.ndarray:
        """One entry of `run`'s batch, of a photo, (H, W, 3) uint8 BGR."""
        return self.preparation.blob(photo)

    @abstractmethod
    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Output → (B, C, h, w) float32 scores of a batch of prepared photos."""

    @abstractmethod
    def versions(self) -> Mapping[str, str]:
        """What has a say in the scores, besides files and this package."""


def net_files(model: PathLike, weights: PathLike | None = None) -> NetFiles:
    """A model by name or path with weights, as find_weights finds them, or a file with its net.

    Raises InputError where there are none.
    """
    model = os.fspath(model)
    if not model.endswith(WITH_NET):
        found = find_model(model)
        return NetFiles(found, find_weights(weights, found))
    if weights is not None:
        raise UsageError(f"{model} holds its weights itself; leave out --weights")
    return NetFiles(None, Path(model))


def choose_backend(asked: str | None, files: NetFiles) -> str:
    """The engine that is asked for, or the first that is installed and can run these files.

    Caffe comes first, then what the weights were made for. Raises InputError.
    """
    suffix = files.weights.suffix.lower()
    torch_first = ["caffe", "torch", "onnx"]
    able = torch_first if suffix in WITH_NET else list(BACKENDS)
    if suffix == ".onnx":
        able = ["onnx"]
    elif files.model is None:
        able = ["torch"]
    if asked is not None and asked not in able:
        raise InputError(
            f"{files.weights}: only {able[0]} can run it; leave out --backend {asked}, or name "
            "MODEL and other weights of it"
        )
    if asked is not None or len(able) == 1:
        backend = asked or able[0]
        _require(backend, files)
        return backend
    found = [backend for backend in able if not _missing(backend, files)]
    if not found:
        raise InputError(
            f"{MISSING}; without Caffe, install ONNX Runtime (pip install onnx onnxruntime) or "
            "PyTorch (pip install torch)"
        )
    return found[0]


def choose_gpu(backend: str, asked: int | None, cpu: bool) -> Gpu:
    """The GPU to use: as asked, else the first one if the engine and the machine have it."""
    if cpu and asked is not None:
        raise UsageError("--cpu and --gpu exclude each other; give one of them")
    if backend == "caffe":
        return choose_caffe_gpu(asked, cpu)
    if backend == "torch":
        from lglstm.evaluation.engines import torch_engine

        return None if cpu else torch_engine.choose_gpu(asked)
    from lglstm.evaluation.engines import onnx_engine

    return None if cpu else onnx_engine.choose_gpu(asked)


def open_engine(
    files: NetFiles,
    backend: str,
    gpu: Gpu = None,
    *,
    test: Path | None = None,
    trust_net: bool = False,
) -> Engine:
    """Load the net. test, trust_net: of Caffe alone, see `caffe_engine.CaffeEngine`.

    Raises InputError for files that cannot be used.
    """
    if backend == "caffe":
        from lglstm.evaluation.engines.caffe_engine import CaffeEngine

        return CaffeEngine(files, gpu, test, trust_net)
    if backend == "torch":
        from lglstm.evaluation.engines.torch_engine import TorchEngine

        return TorchEngine(files, gpu)
    from lglstm.evaluation.engines.onnx_engine import OnnxEngine

    return OnnxEngine(files, gpu)


def _require(backend: str, files: NetFiles) -> None:
    """Raise InputError with what an engine lacks here to run these files."""
    missing = _missing(backend, files)
    if missing == ["caffe"]:
        raise InputError(MISSING)
    if missing:
        raise InputError(
            f"--backend {backend}: needs {' and '.join(missing)}, not installed for this Python; "
            f"install with pip install {' '.join(missing)}"
        )


def _missing(backend: str, files: NetFiles) -> list[str]:
    """The Python packages that an engine needs for these files and that are not installed."""
    needed = {"caffe": ["caffe"], "onnx": ["onnxruntime"], "torch": ["torch"]}[backend]
    if backend == "onnx" and files.model and files.weights.suffix.lower() != ".onnx":
        needed = ["onnx", *needed]  # the graph is made first
    return [package for package in needed if importlib.util.find_spec(package) is None]


def preparation_of(
    described: Description | None, size: preprocessing.Size
) -> preprocessing.Preparation:
    """How photos go into a net: as its file says, else as this project's nets take them."""
    if described is None:
        return preprocessing.Preparation(size, preprocessing.MEAN_BGR)
    return preprocessing.Preparation(
        size, described.mean_bgr, described.scale, described.channel_order
    )


def words(gpu: Gpu) -> str:
    """The device in words: CPU, GPU 0, MPS."""
    if gpu is None:
        return "CPU"
    return gpu.upper() if isinstance(gpu, str) else f"GPU {gpu}"
