"""ONNX models with float16 or int8 numbers, and what that costs: measured, not promised.

float16 halves the file; CPUs compute most of it in float32 all the same. int8 is static: the ranges
of all maps are those that they have on the photos of the calibration. Both by ONNX Runtime's own
tools; what prepares photos and makes label maps stays as it is.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from lglstm.common.errors import InputError
from lglstm.common.images import read_photo
from lglstm.common.preprocessing import Size, stretched, to_blob, to_label_map
from lglstm.common.scratch import scratch_folder
from lglstm.convert.description import LABELS, PHOTO
from lglstm.convert.options import Truth

if TYPE_CHECKING:
    import onnxruntime

LEAST_EQUAL = {"float16": 0.99, "int8": 0.9}
"""The share of pixels that must keep their label; with less, the numbers do not fit the net."""

_QUANTIZED = ("Conv", "Relu", "MaxPool", "AveragePool", "ConvTranspose")
"""What computes in int8. Gates and memories of LG-LSTM stay in float32, as do their sums."""


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with weights and inner numbers in half precision; inputs and outputs stay."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    kept = [node.name for node in model.graph.node if "/" in node.name]
    return convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)


def to_int8(model: onnx.ModelProto, size: Size, photos: Sequence[Path]) -> onnx.ModelProto:
    """The model with int8 convolutions, calibrated on photos of any sizes.

    size: (height, width) to stretch them to, if the model does not do so itself. Raises InputError
    for photos that cannot be read.
    """
    from onnxruntime import quantization

    class Photos(quantization.CalibrationDataReader):
        def __init__(self, feeds: Iterator[dict[str, np.ndarray]]):
            self.feeds = feeds

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    feeds = (inputs_of(model, size, read_photo(path)) for path in photos)
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it recommends what ONNX Runtime does by itself
    try:
        with scratch_folder() as folder:
            given, made = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
            given.write_bytes(model.SerializeToString())  # a model in memory would be changed
            quantization.quantize_static(
                given,
                made,
                Photos(feeds),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTIZED),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
            return onnx.load(made)
    finally:
        logging.root.setLevel(level)


def inputs_of(model: onnx.ModelProto, size: Size, photo: np.ndarray) -> dict[str, np.ndarray]:
    """What a model of `onnx_graph.to_onnx` takes of a photo, (H, W, 3) uint8 BGR, as a batch."""
    (taken,) = model.graph.input
    batch = taken.type.tensor_type.shape.dim[0].dim_value or 1
    if taken.name != PHOTO:
        array = to_blob(photo, size)
    elif model.graph.output[0].name == LABELS:
        array = photo[..., ::-1]
    else:
        array = stretched(photo, size)[..., ::-1]
    return {taken.name: np.repeat(array[None], batch, axis=0)}


@dataclass(frozen=True)
class Loss:
    """What another precision costs on photos: a share of labels, IoU; and what it gains.

    photos: how many. equal: the share of their pixels that keep their label, 0 to 1. Before and
    after: mean_iou, None without a list; bytes of the file; milliseconds of one pass of the model,
    median over the photos, taken in turn on this machine.
    """

    precision: str
    photos: int
    pixels: int
    equal: float
    mean_iou: tuple[float, float] | None
    bytes: tuple[int, int]
    milliseconds: tuple[float, float]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_loss(
    precision: str,
    models: tuple[onnx.ModelProto, onnx.ModelProto],
    net: tuple[Size, int],
    photos: Sequence[Path | np.ndarray],
    truth: Truth | None,
    say: Callable[[str], None],
) -> Loss:
    """Run the model before and after on the same photos, in turn, and compare their label maps.

    net: input size, number of classes. photos: paths, or (H, W, 3) uint8 BGR. truth: of the same.
    """
    size, classes = net
    sessions = [_session(model) for model in models]
    pixels = equal = 0
    seconds: list[list[float]] = [[], []]
    scores: list[Any] = [0, 0]
    for index, one in enumerate(photos):
        say(f"comparing {precision} with float32, photo {index + 1} of {len(photos)}")
        photo = read_photo(one) if isinstance(one, Path) else one
        maps = []
        for which, (model, session) in enumerate(zip(models, sessions, strict=True)):
            inputs = inputs_of(model, size, photo)
            if not index:
                session.run(None, inputs)  # the first pass also allocates
            began = time.perf_counter()
            output = session.run(None, inputs)[0][0]
            seconds[which].append(time.perf_counter() - began)
            maps.append(output if output.ndim == 2 else to_label_map(output, photo.shape[:2]))
            if truth is not None:
                scores[which] = scores[which] + truth.confusion(index, maps[-1], classes)
        pixels += maps[0].size
        equal += int((maps[0] == maps[1]).sum())
    return Loss(
        precision=precision,
        photos=len(photos),
        pixels=pixels,
        equal=equal / pixels,
        mean_iou=None if truth is None else (truth.mean_iou(scores[0]), truth.mean_iou(scores[1])),
        bytes=(models[0].ByteSize(), models[1].ByteSize()),
        milliseconds=tuple(1000 * statistics.median(times) for times in seconds),  # type: ignore
    )


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def check_loss(loss: Loss, output: Path) -> None:
    """Raise InputError if too many pixels got another label."""
    least = LEAST_EQUAL[loss.precision]
    if not loss.equal >= least:
        raise InputError(
            f"{output}: the proof failed and nothing was written: only {loss.equal:.1%} of the "
            f"pixels keep their label in {loss.precision}, at least {least:.0%} should; "
            + (
                "calibrate on photos like those that it is for, or stay with float16"
                if loss.precision == "int8"
                else "stay with float32"
            )
        )
