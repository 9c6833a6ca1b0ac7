"""A whole model in Caffe, a training iteration or one image, for `lglstm bench net`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import caffe
import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from benchmarks.machine import caffe_version
from benchmarks.memory import PeakMemory
from benchmarks.net import INPUT_STD, PARTS, RATE, Arrays
from benchmarks.timing import seconds_of
from lglstm.caffe_files import read_caffemodel, read_net, weights_for
from lglstm.layers import seg_options

STACK = ("transition", "lg_lstm", "score", "raw_score", "silence")
LOSSES = ("loss", "label_target", "label_inputs")


def part_of(layer: str) -> str:
    """The part of the net that a layer belongs to, by the models' fixed names."""
    if layer.startswith(STACK):
        return "stack"
    return "losses" if layer.startswith(LOSSES) else "backbone"


def with_inputs(net_file: Path) -> caffe_pb2.NetParameter:
    """The training net in `net_file` with inputs `data` and `label` in place of its data layer."""
    net = text_format.Parse(net_file.read_text(), caffe_pb2.NetParameter())
    options = seg_options.of_net(net, net_file)
    (layer,) = seg_options.seg_data_layers(net)
    inputs = caffe_pb2.LayerParameter(name="inputs", type="Input", top=layer.top[:2])
    for shape in (options.data_shape, options.label_shape):
        inputs.input_param.shape.add().dim.extend(shape)
    layer.CopyFrom(inputs)
    return net


class CaffeNet:
    """folder: of the model, with train, deploy and solver prototxt."""

    def __init__(self) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.net: Any = None
        self.solver: Any = None

    def make_weights(self, folder: Path, destination: Path) -> None:
        """Write a caffemodel of random weights; convolutions as He et al. draw them.

        From the generated nets' own Gaussians of 0.001, which pretrained weights replace, the
        gradients of the first layers would be denormal numbers: slow and inexact everywhere.
        """
        caffe.set_random_seed(1)
        net = caffe.Net(str(self._train_file(folder)), caffe.TRAIN)
        random = np.random.default_rng(1)
        for name, (weight, *_) in net.params.items():
            if weight.data.ndim == 4 and part_of(name) == "backbone":
                fan_in = np.prod(weight.data.shape[1:])
                std = np.sqrt(2 / fan_in) / (INPUT_STD if weight.data.shape[1] == 3 else 1)
                weight.data[...] = random.normal(0, std, weight.data.shape)
        net.save(str(destination))

    def check(self, folder: Path, weights: Path, inputs: Arrays) -> Arrays:
        """Loss and gradients of all weights without dropout, and the deploy net's output."""
        net_file = str(self._train_file(folder, dropout=False))
        net = caffe.Net(net_file, caffe.TRAIN, weights=str(weights))
        _feed(net, inputs)
        net.forward()
        net.backward()
        loss = sum(net.blobs[name].data.item() for name in net.outputs if "loss" in name)
        gradients = Path(self.temporary.name) / "gradients.caffemodel"
        for blobs in net.params.values():
            for blob in blobs:
                blob.data[...] = blob.diff
        net.save(str(gradients))
        described = read_net(folder / "train.prototxt", "TRAIN")
        found = weights_for(described, read_caffemodel(gradients), str(gradients))
        deploy = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST, weights=str(weights))
        _feed(deploy, {"data": inputs["data"][:1]})
        score = deploy.forward()["score"].copy()
        return {"loss": np.array([loss]), "score": score} | found

    def build(self, folder: Path, weights: Path, task: str, inputs: Arrays) -> None:
        """task: "train", an iteration with update, or "image", one forward pass."""
        self.memory = PeakMemory()
        if task == "train":
            self.solver = caffe.get_solver(str(self._solver_file(folder)))
            self.net = self.solver.net
            self.net.copy_from(str(weights))
            _feed(self.net, inputs)
        else:
            file = str(folder / "deploy.prototxt")
            self.net = caffe.Net(file, caffe.TEST, weights=str(weights))
            _feed(self.net, {"data": inputs["data"][:1]})
        self.names = list(self.net._layer_names)

    def warm_up(self) -> None:
        self.run()
        self.memory.forget()

    def run(self) -> dict[str, float]:
        """Seconds of the passes and of the update; and of the parts of the net in each pass."""
        measured: dict[str, float] = {}
        order = list(enumerate(self.names))
        self._pass("forward", self.net._forward, order, measured)
        if self.solver is not None:
            clearing = seconds_of(self.net.clear_param_diffs)
            self._pass("backward", self.net._backward, order[::-1], measured)
            measured["update"] = clearing + seconds_of(self.solver.apply_update)
        return measured

    def takes_onnx(self) -> bool:
        return False

    def score(self) -> np.ndarray:
        return self.net.forward()["score"].copy()

    def peak_mib(self) -> float:
        return self.memory.mib()

    def version(self) -> str:
        return caffe_version()

    def _pass(
        self,
        way: str,
        work: Callable[[int, int], object],
        order: list[tuple[int, str]],
        measured: dict[str, float],
    ) -> None:
        parts = dict.fromkeys(PARTS, 0.0)
        for i, name in order:
            parts[part_of(name)] += seconds_of(partial(work, i, i))
        measured[way] = sum(parts.values())
        measured |= {f"{part}_{way}": seconds for part, seconds in parts.items()}

    def _train_file(self, folder: Path, dropout: bool = True) -> Path:
        file = Path(self.temporary.name) / "train.prototxt"
        net = with_inputs(folder / "train.prototxt")
        if not dropout:  # its layers work in place, so that the others fit together without them
            kept = [layer for layer in net.layer if layer.type != "Dropout"]
            del net.layer[:]
            net.layer.extend(kept)
        file.write_text(text_format.MessageToString(net))
        return file

    def _solver_file(self, folder: Path) -> Path:
        """The model's solver, on the CPU, without tests, snapshots and initial weights."""
        source = folder / "solver.prototxt"
        solver = text_format.Parse(source.read_text(), caffe_pb2.SolverParameter())
        fields = "test_net test_iter test_interval snapshot average_loss weights display"
        for field in fields.split():
            solver.ClearField(field)
        solver.train_net = str(self._train_file(folder))
        solver.snapshot_prefix = str(Path(self.temporary.name) / "never")
        solver.base_lr = RATE
        solver.solver_mode = caffe_pb2.SolverParameter.CPU
        file = Path(self.temporary.name) / "solver.prototxt"
        file.write_text(text_format.MessageToString(solver))
        return file


def _feed(net: caffe.Net, inputs: Arrays) -> None:
    for name, array in inputs.items():
        net.blobs[name].data[...] = array
