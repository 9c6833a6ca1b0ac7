"""Nets run by ONNX Runtime: a file that `lglstm convert --to onnx` made, or a model's own net."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnxruntime

from lglstm.caffe_files import wire
from lglstm.common import preprocessing
from lglstm.common.errors import InputError, reason_of
from lglstm.common.files import inside
from lglstm.common.hashing import sha256_of, sha256_of_json, unchanged
from lglstm.common.images import MAX_PIXELS
from lglstm.convert.description import Description, read_description
from lglstm.convert.read import read_model
from lglstm.evaluation.engines import Engine, Gpu, NetFiles, preparation_of

_CUDA = "CUDAExecutionProvider"


def choose_gpu(asked: int | None) -> Gpu:
    """The GPU that is asked for, else the first one if this ONNX Runtime has CUDA, else None."""
    has_cuda = _CUDA in onnxruntime.get_available_providers()
    if asked is not None and not has_cuda:
        raise InputError(
            f"--gpu {asked}: this ONNX Runtime was built without CUDA; use the CPU with --cpu, or "
            "install onnxruntime-gpu in its place"
        )
    return asked if asked is not None else 0 if has_cuda else None


class OnnxEngine(Engine):
    """A graph with one photo in, `data` (B, 3, h, w) float32 or `photo` (B, h, w, 3) uint8 RGB,
    and one score map out, (B, C, h, w) float32.
    """

    def __init__(self, files: NetFiles, gpu: Gpu) -> None:
        self.files, self.gpu = files, gpu
        with _unchanged(files.weights) as self.weights_sha256:
            if files.weights.suffix.lower() == ".onnx":
                self._session = _session(files.weights, str(files.weights), gpu)
                described = self._description()
            else:
                self._session = _session(files.weights, self._converted(files), gpu)
                described = read_description(files.weights)
        self._input, self._output = _ends(self._session, files.weights)
        self._takes_photo = self._input.type == "tensor(uint8)"
        size = self._size(described)
        self._check_bound(size)
        self.preparation = preparation_of(described, size)
        self.label_set = described.label_set if described else None
        blank = self.prepare(np.zeros((*size, 3), np.uint8))
        scores = self.run(blank[None])["score"]
        if scores.ndim != 4 or len(scores) != 1 or not scores.size:
            _refuse(files.weights, "run", f"it makes scores of shape {scores.shape} of a photo")
        self.num_classes = scores.shape[1]

    def _converted(self, files: NetFiles) -> bytes:
        """The graph of a model's net with these weights."""
        from lglstm.convert.onnx_graph import SUPPORTED, to_onnx

        assert files.deploy is not None  # net_files
        self.deploy_sha256 = sha256_of(files.deploy)
        model = read_model(files.deploy, files.weights, SUPPORTED)
        return to_onnx(model.deploy, model.weights).SerializeToString()

    def _description(self) -> Description | None:
        metadata = self._session.get_modelmeta().custom_metadata_map
        return Description.from_metadata(metadata, str(self.files.weights))

    def _size(self, described: Description | None) -> preprocessing.Size:
        """Of the graph, if it is bound to one, else as described."""
        given = self._input.shape[1:3] if self._takes_photo else self._input.shape[2:4]
        if all(isinstance(length, int) for length in given):
            return given[0], given[1]
        if described is not None:
            return described.input_size
        raise InputError(
            f"{self.files.weights}: takes photos of any size and does not say on which the net was "
            "trained; make it again with `lglstm convert`"
        )

    def _check_bound(self, size: preprocessing.Size) -> None:
        """Raise InputError for photos that there cannot be."""
        count = self._input.shape[0]
        bound = (*size, count) if isinstance(count, int) else size
        if min(bound) < 1 or size[0] * size[1] > MAX_PIXELS:
            numbers = " × ".join(map(str, self._input.shape))
            _refuse(self.files.weights, "run", f"it takes photos as {numbers} numbers")

    def prepare(self, photo: np.ndarray) -> np.ndarray:
        if not self._takes_photo:
            return super().prepare(photo)
        return preprocessing.stretched(photo, self.input_size)[..., ::-1]

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        most = self._input.shape[0]
        if not isinstance(most, int):
            return {"score": self._scores(batch)}
        parts = [batch[k : k + most] for k in range(0, len(batch), most)]
        return {"score": np.concatenate([self._padded(part, most) for part in parts])}

    def _padded(self, part: np.ndarray, count: int) -> np.ndarray:
        """The scores of a part of a batch by a graph that is bound to so many photos."""
        more = np.repeat(part[-1:], count - len(part), axis=0)
        return self._scores(np.concatenate([part, more]))[: len(part)]

    def _scores(self, batch: np.ndarray) -> np.ndarray:
        given = {self._input.name: np.ascontiguousarray(batch)}
        try:
            return self._session.run([self._output.name], given)[0]
        except Exception as error:  # of many kinds, as while loading
            _refuse(self.files.weights, "run", reason_of(error))

    def versions(self) -> dict[str, str]:
        provider = self._session.get_providers()[0]
        return {"onnxruntime": onnxruntime.__version__, "device": provider}


def _session(path: Path, graph: str | bytes, gpu: Gpu) -> Any:
    providers: list[Any] = ["CPUExecutionProvider"]
    if gpu is not None:
        providers.insert(0, (_CUDA, {"device_id": gpu}))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # what matters comes as an error
    try:
        return onnxruntime.InferenceSession(graph, options, providers=providers)
    except Exception as error:  # it raises many kinds on a damaged file
        _refuse(path, "load", reason_of(error))


def _refuse(path: Path, what: str, reason: str) -> NoReturn:
    raise InputError(
        f"{path}: ONNX Runtime cannot {what} it ({reason}); convert the model again"
    ) from None


@contextmanager
def _unchanged(weights: Path) -> Iterator[str]:
    """As `hashing.unchanged`, of an ONNX file together with the files that hold its tensors."""
    with unchanged(weights) as digest, ExitStack() as stack:
        beside = _tensor_files(weights) if weights.suffix.lower() == ".onnx" else {}
        others = {name: stack.enter_context(unchanged(path)) for name, path in beside.items()}
        yield sha256_of_json([digest, others]) if others else digest


def _tensor_files(path: Path) -> dict[str, Path]:
    """The files beside an ONNX file that hold tensors of it, by the names that it has for them."""
    try:
        with wire.mapped(path) as view:
            names = set(_locations(view))
    except wire.Damaged as error:
        _refuse(path, "load", str(error))
    try:
        return {name: inside(path.parent, name) for name in sorted(names)}
    except (OSError, ValueError):
        raise InputError(
            f"{path}: keeps weights in a file outside its folder; save it with its weights in one "
            "file or beside it"
        ) from None


_PARTS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Which fields of onnx.proto lead to tensors: the package onnx is not needed to run a file."""


def _locations(model: memoryview) -> Iterator[str]:
    """The names of the files that hold tensors of a model (`TensorProto.external_data`)."""
    pending = [("model", model)]
    while pending:
        kind, view = pending.pop()
        if kind == "entry":
            entry = dict(wire.records(view))
            if entry.keys() >= {1, 2} and wire.text(entry[1]) == "location":
                yield wire.text(entry[2])
            continue
        fields = _PARTS[kind]
        for number, value in wire.records(view):
            if number in fields:
                pending.append((fields[number], wire.content(value)))


def _ends(session: Any, path: Path) -> tuple[Any, Any]:
    """Input and output of a parsing graph. Raises InputError for another one."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    given = inputs[0]
    kinds = {"tensor(float)": 1, "tensor(uint8)": 3}  # and the axis of the colors
    axis = kinds.get(given.type)
    takes_photo = len(inputs) == 1 and axis and len(given.shape) == 4 and given.shape[axis] == 3
    scores = [x for x in outputs if x.type == "tensor(float)" and len(x.shape) == 4]
    if not takes_photo or len(scores) != 1:
        raise InputError(
            f"{path}: does not make one map of scores of one photo (its inputs are "
            f"{[x.name for x in inputs]}, its outputs {[x.name for x in outputs]}); give a file "
            "that `lglstm convert MODEL WEIGHTS --to onnx` made, without --returns"
        )
    return given, scores[0]
