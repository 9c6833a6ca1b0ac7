"""Nets run by Caffe."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from lglstm.common import convolution_engine
from lglstm.common.checkout import setup_advice
from lglstm.common.devices import select_gpu
from lglstm.common.errors import InputError
from lglstm.common.hashing import sha256_of, sha256_of_json, unchanged
from lglstm.common.pycaffe import CaffeNet, Message, load_caffe
from lglstm.convert.description import read_description
from lglstm.evaluation import nets, weights
from lglstm.evaluation.engines import Engine, Gpu, NetFiles, preparation_of


class CaffeEngine(Engine):
    """A deploy net with input `data` (B, 3, h, w) and output `score` (B, C, h, w).

    files: with weights in any format; see evaluation/weights.py for what is refused.
    test: the model's test prototxt, to get the earlier LG-LSTM layers' scores too: `outputs` are
        then `score1`, `score2`, … of the layers in order, and `score`.
    trust_net: run layers that read or write files or run code, too.
    """

    def __init__(
        self, files: NetFiles, gpu: Gpu, test: Path | None = None, trust_net: bool = False
    ) -> None:
        _check_convolution_engine()
        caffe = load_caffe()
        _check_onednn(gpu)
        deploy = files.deploy
        assert deploy is not None  # choose_backend
        assert not isinstance(gpu, str)
        self.files, self.gpu, self._gpu = files, gpu, gpu
        with unchanged(deploy) as self.deploy_sha256:
            net = nets.read_net(deploy)
        nets.check_deploy(net, deploy, trust_net)
        self._blobs = {nets.OUTPUT: nets.OUTPUT}
        if test is not None:
            with unchanged(test) as self.test_sha256:
                whole = nets.read_net(test)
            net, self._blobs = nets.with_all_scores(net, whole, test, trust_net)
        assert files.model is not None  # it has the deploy net
        nets.check_builds(net, files.model, test)
        select_gpu(gpu)
        self.net = _build(caffe, net)
        self.layers_sha256 = _modules_sha256(net)
        with unchanged(files.weights) as self.weights_sha256:
            fixed = nets.fixed_layers(net)
            self.loaded = weights.load(self.net, deploy, files.weights, fixed)
            described = read_description(files.weights)
        height, width = self.net.blobs[nets.INPUT].shape[2:]
        self.preparation = preparation_of(described, (int(height), int(width)))
        self.label_set = described.label_set if described else None
        self.num_classes = int(self.net.blobs[nets.OUTPUT].shape[1])
        self.outputs = tuple(self._blobs)

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        select_gpu(self._gpu)  # Caffe keeps its device per thread
        blob = self.net.blobs[nets.INPUT]
        if blob.shape[0] != len(batch):
            blob.reshape(*batch.shape)
            self.net.reshape()
        blob.data[...] = batch
        self.net.forward()
        return {name: self.net.blobs[blob].data.copy() for name, blob in self._blobs.items()}

    def versions(self) -> dict[str, str]:
        library = Path(load_caffe()._caffe.__file__)
        parts = [library, *_linked(library)]
        return {
            "caffe_sha256": sha256_of_json([sha256_of(part) for part in parts]),
            "convolution_engine": convolution_engine.asked(),
        }


def _check_convolution_engine() -> None:
    """Raise InputError for an engine that is not known, of which Caffe ends the process."""
    asked = convolution_engine.asked()
    if asked not in convolution_engine.ENGINES:
        raise InputError(
            f"{convolution_engine.VARIABLE}={asked}: there is no such engine; set it to one of "
            f"{', '.join(convolution_engine.ENGINES)}, or unset it"
        )


def _check_onednn(gpu: Gpu) -> None:
    """Raise InputError where convolutions are to be oneDNN's and Caffe, loaded by now, lacks it."""
    asked = convolution_engine.asked()
    is_default = asked == convolution_engine.DEFAULT
    if gpu is None and not is_default and convolution_engine.onednn_library() is None:
        raise InputError(
            f"{convolution_engine.VARIABLE}={asked}: this Caffe was built without oneDNN; unset "
            f"it, or {setup_advice()}"
        )


def _build(caffe: ModuleType, net: Message) -> CaffeNet:
    """Make the pycaffe net; it only reads files, so give it one, which no kill can leave behind."""
    handle = os.memfd_create("net.prototxt")
    try:
        with open(handle, "w", encoding="utf-8", closefd=False) as file:
            file.write(str(net))
        return caffe.Net(f"/proc/self/fd/{handle}", caffe.TEST)
    finally:
        os.close(handle)


def _modules_sha256(net: Message) -> str:
    """The hash of the Python files that the net's layers are from; they are imported by now."""
    names = sorted({layer.python_param.module for layer in net.layer if layer.type == "Python"})
    files = [getattr(sys.modules.get(name), "__file__", None) for name in names]
    return sha256_of_json([sha256_of(file) for file in files if file])


def _linked(library: Path) -> list[Path]:
    """The libcaffe that this process has loaded."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        loaded = {line.rstrip("\n").split(maxsplit=5)[-1] for line in maps if "libcaffe" in line}
    return sorted(path for path in map(Path, loaded) if path.is_file() and path != library)
