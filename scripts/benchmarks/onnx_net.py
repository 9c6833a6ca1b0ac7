"""A deploy net as an ONNX file in ONNX Runtime and OpenVINO, for `lglstm bench infer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import PeakMemory
from benchmarks.net import Arrays
from benchmarks.timing import seconds_of


class _OnnxNet:
    """Has the methods of CaffeNet that one image needs; what `build` gets is an ONNX file."""

    def takes_onnx(self) -> bool:
        return True

    def build(self, graph: Path, weights: Path, task: str, inputs: Arrays) -> None:
        self.memory = PeakMemory()
        self.image = inputs["data"]
        self.load(graph)

    def load(self, graph: Path) -> None:
        raise NotImplementedError

    def compute(self) -> np.ndarray:
        raise NotImplementedError

    def warm_up(self) -> None:
        self.run()
        self.memory.forget()

    def run(self) -> dict[str, float]:
        return {"forward": seconds_of(self.compute)}

    def score(self) -> np.ndarray:
        return np.array(self.compute())

    def peak_mib(self) -> float:
        return self.memory.mib()


class OnnxRuntimeNet(_OnnxNet):
    def __init__(self, threads: int) -> None:
        import onnxruntime

        self.library = onnxruntime
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads

    def load(self, graph: Path) -> None:
        self.session = self.library.InferenceSession(
            graph, self.options, providers=["CPUExecutionProvider"]
        )

    def compute(self) -> np.ndarray:
        [score] = self.session.run(None, {self.session.get_inputs()[0].name: self.image})
        return score

    def version(self) -> str:
        return f"ONNX Runtime {self.library.__version__}"


class OpenVINONet(_OnnxNet):
    """precision: of the factors, "f32" or "bf16"."""

    def __init__(self, precision: str, threads: int) -> None:
        import openvino

        self.library = openvino
        self.options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }

    def load(self, graph: Path) -> None:
        core = self.library.Core()
        model = core.read_model(graph)
        model.reshape(list(self.image.shape))  # the batch is free in the file
        self.request = core.compile_model(model, "CPU", self.options).create_infer_request()

    def compute(self) -> np.ndarray:
        return self.request.infer([self.image])[0]

    def version(self) -> str:
        return f"OpenVINO {self.library.__version__.split('-')[0]}"
