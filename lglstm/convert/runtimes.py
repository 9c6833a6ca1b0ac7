"""Runs a net on samples: by Caffe, PyTorch, ONNX Runtime or OpenCV.

Each function returns the wanted blobs of each sample, as far as the net has them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lglstm.caffe_files import Net
from lglstm.caffe_files.caffemodel import StoredLayer
from lglstm.common.scratch import scratch_folder
from lglstm.convert.caffe_process import Blobs, run_caffe
from lglstm.convert.description import PHOTO
from lglstm.convert.read import format_of
from lglstm.convert.samples import Sample
from lglstm.convert.write import write_for_caffe

if TYPE_CHECKING:
    import onnxruntime

    from lglstm.convert.torch import Net as TorchNet


def run_weights_by_caffe(
    weights: Path | None,
    stored: Sequence[StoredLayer],
    nets: Mapping[str, Net],
    samples: Sequence[Sample],
    wanted: Sequence[str],
) -> list[Blobs]:
    """Run the deploy net with the weights of any file; `stored` are the layers that it holds.

    weights: None for weights that are not those of a file.
    """
    with _readable_by_caffe(weights, stored, nets) as path:
        net = nets["deploy"]
        return run_caffe(net.path, path, [x.blobs for x in samples], wanted, net.stages)


@contextlib.contextmanager
def _readable_by_caffe(
    weights: Path | None, stored: Sequence[StoredLayer], nets: Mapping[str, Net]
) -> Iterator[Path]:
    """The file itself if Caffe reads such files, else a temporary caffemodel of its layers."""
    if weights and format_of(weights) in ("caffemodel", "hdf5"):
        yield weights
        return
    with scratch_folder() as folder:
        path = folder / "weights.caffemodel"
        write_for_caffe(path, stored, nets)
        yield path


def run_torch(net: TorchNet, samples: Sequence[Sample], wanted: Sequence[str]) -> list[Blobs]:
    """Run a net of PyTorch modules, in evaluation mode."""
    import torch

    results = []
    with torch.inference_mode():
        for sample in samples:
            blobs = net.blobs([torch.from_numpy(sample.blobs[name]) for name in net.inputs], wanted)
            results.append({name: value.numpy() for name, value in blobs.items()})
    return results


def run_onnx(path: Path, samples: Sequence[Sample], wanted: Sequence[str]) -> list[Blobs]:
    """Run an ONNX file by ONNX Runtime on the CPU; inner blobs are asked for by their names."""
    import onnx
    import onnxruntime

    model = onnx.load(path)
    tensors = {name for node in model.graph.node for name in node.output}
    names = [blob for blob in wanted if blob in tensors]
    outputs = {output.name for output in model.graph.output}
    for blob in names:
        if blob not in outputs:
            model.graph.output.append(onnx.ValueInfoProto(name=blob))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return [
        dict(zip(names, session.run(names, _onnx_inputs(session, sample)), strict=True))
        for sample in samples
    ]


def run_onnx_by_opencv(path: Path, samples: Sequence[Sample], wanted: Sequence[str]) -> list[Blobs]:
    """Run an ONNX file by OpenCV; only outputs of the graph can be asked for.

    Raises cv2.error for a file that OpenCV's importer does not understand.
    """
    import cv2

    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)  # what it says is in the exception
    try:
        net = cv2.dnn.readNetFromONNX(str(path))
        results = []
        for sample in samples:
            for name, array in sample.blobs.items():
                net.setInput(array, name)
            results.append(dict(zip(wanted, net.forward(list(wanted)), strict=True)))
        return results
    finally:
        logging.setLogLevel(level)


def _onnx_inputs(session: onnxruntime.InferenceSession, sample: Sample) -> Blobs:
    if [x.name for x in session.get_inputs()] != [PHOTO]:
        return sample.blobs
    assert sample.photos is not None  # a graph with preprocessing takes photos
    return {PHOTO: np.ascontiguousarray(sample.photos[..., ::-1])}
