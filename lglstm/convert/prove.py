"""Proves a conversion: both sides run on the same inputs, and every number is compared.

One side is Caffe, or what Caffe computed elsewhere (`samples.Reference`), the other the file that
was just made. Compared are the net's outputs and what every LG-LSTM layer hands on. Formats of
weights are also read back and compared bit for bit. ONNX files are tried in a second reader,
OpenCV's, which decides nothing: it lacks operators, and whoever needs it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lglstm.caffe_files import Net
from lglstm.caffe_files.caffemodel import StoredLayer
from lglstm.common.errors import InputError
from lglstm.common.preprocessing import to_label_map
from lglstm.convert.caffe_process import Blobs, caffe_is_there, caffe_version
from lglstm.convert.description import LABELS
from lglstm.convert.options import ConvertOptions
from lglstm.convert.read import SourceModel, read_weights
from lglstm.convert.runtimes import run_onnx, run_onnx_by_opencv, run_torch, run_weights_by_caffe
from lglstm.convert.samples import Reference, Sample, make_samples
from lglstm.convert.write import is_installed

TOLERANCE = 1e-4
"""The largest allowed difference, relative to the largest number of the blob."""

MOST_CHANGED = 1e-3
"""The largest share of pixels that may get another label: where two classes are nearly equal."""

_REPORT = "report this as a bug in the converter"


@dataclass(frozen=True)
class Difference:
    """How far one blob of one sample is off. `largest` is the largest number of the reference."""

    sample: str
    blob: str
    largest: float
    absolute: float
    relative: float

    @property
    def passed(self) -> bool:
        return self.relative <= TOLERANCE  # False for NaN


@dataclass(frozen=True)
class ChangedLabels:
    """How many pixels of all samples are labeled otherwise than `lglstm predict` would."""

    changed: int
    pixels: int

    def check(self, options: ConvertOptions) -> None:
        if self.changed > MOST_CHANGED * self.pixels:
            raise InputError(
                f"{options.output}: the proof failed and nothing was written: {self.changed} of "
                f"{self.pixels} pixels get another label, allowed is 1 of {1 / MOST_CHANGED:g}; if "
                f"the net is sound, {_REPORT}"
            )


@dataclass(frozen=True)
class Proof:
    """What was compared with what; all differences are within the tolerance.

    exact_blobs: how many blobs the result holds bit for bit; None for formats that compute the same
    from other numbers. second_reader: of an ONNX file, what OpenCV makes of it, as a sentence.
    rounding: how far half precision moved what the source computes, without a limit; None for
    weights as they were.
    changed_labels: of a graph that returns label maps.
    """

    reference: str
    differences: list[Difference]
    exact_blobs: int | None
    second_reader: str | None = None
    rounding: list[Difference] | None = None
    changed_labels: ChangedLabels | None = None

    def as_json(self) -> dict[str, Any]:
        report: dict[str, Any] = {"tolerance": TOLERANCE, "reference": self.reference}
        if self.exact_blobs is not None:
            report["exact_blobs"] = self.exact_blobs
        if self.second_reader is not None:
            report["second_reader"] = self.second_reader
        if self.rounding is not None:
            report["rounding"] = [asdict(d) for d in self.rounding]
        if self.changed_labels is not None:
            report["changed_labels"] = asdict(self.changed_labels)
        return report | {
            "differences": [asdict(d) | {"passed": d.passed} for d in self.differences]
        }


def prove(
    model: SourceModel, path: Path, options: ConvertOptions, say: Callable[[str], None]
) -> Proof:
    """Compare the file that was made with its source. Raises InputError if they differ.

    path: where the file is now; messages call it options.output, where it will be.
    """
    stored: list[StoredLayer] = []
    exact_blobs = None
    if options.format != "onnx":
        say(f"reading back {options.output}")
        stored = read_weights(path, tuple(model.nets.values())).stored
        exact_blobs = _compare_bits(model, stored, options)
    by_caffe = options.format not in ("onnx", "pytorch")
    if by_caffe and not caffe_is_there():
        return Proof("none: no Caffe here", [], exact_blobs)
    expected = expected_outputs(model, options, say)
    say(f"running and comparing {options.output}")
    wanted = compared_blobs(model.deploy)
    if options.format == "onnx":
        outputs = run_onnx(path, expected.samples, [*wanted, LABELS] if options.labels else wanted)
    elif options.format == "pytorch":
        from lglstm.convert.torch import load

        outputs = run_torch(load(path), expected.samples, wanted)
    else:
        outputs = run_weights_by_caffe(path, stored, model.nets, expected.samples, wanted)
    labels = [blobs.pop(LABELS) for blobs in outputs] if options.labels else []
    differences = compare(expected.samples, expected.outputs, outputs)
    _check_passed(differences, options)
    changed = _changed_labels(labels, expected, model.deploy.outputs[0]) if labels else None
    if changed:
        changed.check(options)
    second_reader = None
    if options.format == "onnx" and not (options.preprocessing or options.labels):
        say(f"reading {options.output} by OpenCV")
        second_reader = _tried_in_opencv(path, expected, model.deploy.outputs)
    rounding = None
    if model.unrounded:
        before = expected_outputs(model.unrounded, options, say)
        rounding = compare(expected.samples, before.outputs, expected.outputs)
    return Proof(expected.by, differences, exact_blobs, second_reader, rounding, changed)


def _tried_in_opencv(path: Path, expected: Expected, outputs: Sequence[str]) -> str:
    """What OpenCV makes of an ONNX file: the largest difference, or why it gives none."""
    import cv2

    name = f"OpenCV {cv2.__version__}"
    try:
        made = run_onnx_by_opencv(path, expected.samples, outputs)
        for blobs, reference in zip(made, expected.outputs, strict=True):
            for blob, array in blobs.items():
                if reference[blob].ndim == 1:  # OpenCV's arrays have two axes at least
                    blobs[blob] = array.ravel()
        worst = max(d.relative for d in compare(expected.samples, expected.outputs, made))
    except InputError:
        return f"{name} computes other shapes: do not use the file there"
    except cv2.error as error:
        reason = " ".join(str(error.err or error).split())[:100]
        return f"{name} cannot read the file ({reason})"
    if not worst <= TOLERANCE:  # NaN, too
        return f"{name} computes something else, {worst:.1e} off: do not use the file there"
    return f"{name} reads the file, too: it is within {worst:.1e}"


class Expected(NamedTuple):
    """The side to compare with: samples, what they should give, and by whom."""

    samples: list[Sample]
    outputs: list[Blobs]
    by: str


def expected_outputs(
    model: SourceModel, options: ConvertOptions, say: Callable[[str], None]
) -> Expected:
    """Take the stored reference, or run the source where it comes from: in PyTorch or in Caffe."""
    if options.reference is not None:
        reference = Reference.load(options.reference, model.deploy)
        reference.check_made_from(model, options.reference)
        by = f"stored reference {options.reference}"
        return Expected(reference.samples, reference.outputs, by)
    by_torch = model.from_modules and options.format != "onnx" and is_installed("torch")
    if not by_torch and not caffe_is_there():
        raise InputError(
            "the Python package caffe is not installed here, so there is no Caffe to compare with; "
            "give --reference FILE, made where Caffe is installed by `lglstm convert … --to "
            "reference`, or ask for --no-verify"
        )
    samples = make_samples(model.deploy, options.photo, options.any_size, options.labels)
    wanted = compared_blobs(model.deploy)
    say(f"running the source, {sum(len(sample.names) for sample in samples)} images")
    if by_torch:
        from lglstm.convert.torch import Net as TorchNet

        net = TorchNet(model.deploy.description()).load_weights(model.weights).eval()
        return Expected(samples, run_torch(net, samples, wanted), "PyTorch on the source")
    weights_path = None if model.unrounded else model.weights_path
    outputs = run_weights_by_caffe(weights_path, model.stored, model.nets, samples, wanted)
    return Expected(samples, outputs, f"Caffe {caffe_version()}")


def compared_blobs(net: Net) -> list[str]:
    """The net's outputs, and the tops of every LG-LSTM layer."""
    cells = [blob for x in net.layers if x.type.startswith("LGLSTM") for blob in x.tops]
    return [*net.outputs, *(blob for blob in cells if blob not in net.outputs)]


def compare(
    samples: Sequence[Sample], expected: Sequence[Blobs], made: Sequence[Blobs]
) -> list[Difference]:
    """One Difference for each image and each blob that `made` has."""
    differences = []
    for sample, reference, result in zip(samples, expected, made, strict=True):
        for blob, array in result.items():
            if array.shape != reference[blob].shape:
                raise InputError(
                    f"{blob} came out with the shape {list(array.shape)}, in Caffe it is "
                    f"{list(reference[blob].shape)}; {_REPORT}"
                )
            if array.ndim and len(array) == len(sample.names):
                rows = zip(sample.names, reference[blob], array, strict=True)
            else:  # not one entry an image, as behind a Concat of images
                rows = zip([", ".join(sample.names)], [reference[blob]], [array], strict=True)
            differences += [_difference(name, blob, one, other) for name, one, other in rows]
    return differences


def _difference(sample: str, blob: str, expected: np.ndarray, made: np.ndarray) -> Difference:
    largest = float(np.abs(expected).max(initial=0))
    with np.errstate(invalid="ignore"):
        absolute = float(np.abs(made - expected).max(initial=0))
    relative = absolute / largest if largest > 0 else absolute
    return Difference(sample, blob, largest, absolute, relative)


def _changed_labels(labels: Sequence[np.ndarray], expected: Expected, score: str) -> ChangedLabels:
    """Against label maps of the expected scores, as `lglstm predict` makes them."""
    changed = pixels = 0
    for maps, outputs in zip(labels, expected.outputs, strict=True):
        for made, scores in zip(maps, outputs[score], strict=True):
            changed += int((made != to_label_map(scores, made.shape)).sum())
            pixels += made.size
    return ChangedLabels(changed, pixels)


def _check_passed(differences: Sequence[Difference], options: ConvertOptions) -> None:
    failed = [difference for difference in differences if not difference.passed]
    if failed:
        worst = max(failed, key=lambda d: d.relative if d.relative == d.relative else np.inf)
        raise InputError(
            f"{options.output}: the proof failed and nothing was written: {worst.blob} differs by "
            f"{worst.relative:.1e} of its largest number on {worst.sample}, allowed is "
            f"{TOLERANCE:g}; if the net is sound, {_REPORT}"
        )


def _compare_bits(
    model: SourceModel, stored: Sequence[StoredLayer], options: ConvertOptions
) -> int:
    """How many blobs were read back, all of them bit for bit as they were."""
    made = {layer.name: layer.blobs for layer in stored}
    computed = {layer.name for net in model.nets.values() for layer in net.layers}
    count = 0
    for layer in model.stored:
        if options.format == "pytorch" and layer.name not in computed:
            continue  # what no module computes, such as the data layer's place in the data
        before = [blob.tobytes() for blob in layer.blobs]
        after = [blob.tobytes() for blob in made.get(layer.name, [])]
        if before != after:
            raise InputError(
                f'{options.output}: layer "{layer.name}" was not kept bit for bit, nothing was '
                f"written; {_REPORT}"
            )
        count += len(before)
    return count
