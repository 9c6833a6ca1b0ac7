"""The proof of a conversion: both sides run on the same inputs, and every number is compared.

One side is Caffe, or what Caffe once gave (`Reference`); the other is the file that was just made.
Compared are the net's outputs and what every LG-LSTM layer hands on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lglstm.caffe_files import Net
from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path
from lglstm.common.images import read_photo
from lglstm.common.preprocessing import resize_photo, to_blob
from lglstm.convert.caffe_process import Blobs

TOLERANCE = 1e-4
"""The largest allowed difference, relative to the largest number of the blob."""

Runner = Callable[[Sequence["Sample"], Sequence[str]], list[Blobs]]
"""Runs one side on some samples and returns the wanted blobs of each, as far as it has them."""


@dataclass(frozen=True)
class Sample:
    """One run of the net: its input blobs, and for photos the (B, H, W, 3) uint8 BGR.

    names: what each image of the batch is; a single name stands for the whole batch.
    """

    names: tuple[str, ...]
    blobs: Blobs
    photos: np.ndarray | None = None


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


def samples(net: Net, photo: Path | None, any_size: bool, seed: int = 0) -> list[Sample]:
    """What to compare on: noise and a real photo in one batch, and noise of another size.

    Two different images in a batch show whether they are kept apart. Nets that take no photo get
    noise alone.
    """
    if len(net.inputs) != 1 or next(iter(net.inputs.values()))[1:2] != (3,):
        found = [_noise(net, "noise", seed), _noise(net, "more noise", seed + 1)]
        return found + ([_noise(net, "larger noise", seed + 2, (32, 64))] if any_size else [])
    rng = np.random.default_rng(seed)
    ((_, _, height, width),) = net.inputs.values()
    images = {"noise": rng.integers(0, 256, (height, width, 3), np.uint8)}
    if (picture := _photo(photo)) is not None:
        images["photo"] = _stretched(picture, (height, width))
    else:
        images["more noise"] = rng.integers(0, 256, (height, width, 3), np.uint8)
    found = [_photos(net, images)]
    if any_size:
        larger = rng.integers(0, 256, (height + 32, width + 64, 3), np.uint8)
        found.append(_photos(net, {"larger noise": larger}))
    return found


def _noise(net: Net, name: str, seed: int, more: tuple[int, int] = (0, 0)) -> Sample:
    rng = np.random.default_rng(seed)
    blobs = {}
    for blob, shape in net.inputs.items():
        if len(shape) == 4:
            shape = (*shape[:2], shape[2] + more[0], shape[3] + more[1])
        blobs[blob] = rng.standard_normal(shape).astype(np.float32)
    return Sample((name,), blobs)


def _photos(net: Net, images: dict[str, np.ndarray]) -> Sample:
    photos = np.stack(list(images.values()))
    data = np.stack([to_blob(photo, photo.shape[:2]) for photo in photos])
    return Sample(tuple(images), {next(iter(net.inputs)): data}, photos)


def _photo(path: Path | None) -> np.ndarray | None:
    """The user's photo; without one the portrait that scikit-image brings, if it is installed."""
    if path is not None:
        return read_photo(path)
    try:
        from skimage.data import astronaut
    except ImportError:
        return None
    return astronaut()[..., ::-1]


def _stretched(photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    resized = resize_photo(np.ascontiguousarray(photo, np.float32), size)
    return np.rint(resized).clip(0, 255).astype(np.uint8)


def compared_blobs(net: Net) -> list[str]:
    """The net's outputs, and the tops of every LG-LSTM layer."""
    cells = [blob for x in net.layers if x.type.startswith("LGLSTM") for blob in x.tops]
    return [*net.outputs, *(blob for blob in cells if blob not in net.outputs)]


def compare(
    given: Sequence[Sample], expected: Sequence[Blobs], made: Sequence[Blobs]
) -> list[Difference]:
    """One Difference for each image and each blob that `made` has."""
    differences = []
    for sample, reference, result in zip(given, expected, made, strict=True):
        for blob, array in result.items():
            if array.shape != reference[blob].shape:
                raise InputError(
                    f"{blob} came out with the shape {list(array.shape)}, in Caffe it is "
                    f"{list(reference[blob].shape)}; report this as an error of the converter"
                )
            pairs = [(reference[blob], array)]
            if len(sample.names) > 1:
                pairs = zip(reference[blob], array, strict=True)
            for name, (one, other) in zip(sample.names, pairs, strict=True):
                differences.append(_difference(name, blob, one, other))
    return differences


def _difference(sample: str, blob: str, expected: np.ndarray, made: np.ndarray) -> Difference:
    largest = float(np.abs(expected).max(initial=0))
    with np.errstate(invalid="ignore"):
        absolute = float(np.abs(made - expected).max(initial=0))
    relative = absolute / largest if largest > 0 else absolute
    return Difference(sample, blob, largest, absolute, relative)


# --- Sides ----------------------------------------------------------------------------------------


def torch_runner(path: Path) -> Runner:
    """Runs a file that was converted to PyTorch."""

    def run(given: Sequence[Sample], wanted: Sequence[str]) -> list[Blobs]:
        import torch

        from lglstm.convert.torch import load

        net = load(path)
        results = []
        with torch.inference_mode():
            for sample in given:
                inputs = [torch.from_numpy(sample.blobs[name]) for name in net.inputs]
                blobs = net.blobs(inputs, wanted)
                results.append({name: value.numpy() for name, value in blobs.items()})
        return results

    return run


def onnx_runner(path: Path) -> Runner:
    """Runs an ONNX file by ONNX Runtime on the CPU; inner blobs are asked for by their names."""

    def run(given: Sequence[Sample], wanted: Sequence[str]) -> list[Blobs]:
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
            for sample in given
        ]

    return run


def _onnx_inputs(session, sample: Sample) -> Blobs:
    if [x.name for x in session.get_inputs()] == ["photo"]:
        return {"photo": np.ascontiguousarray(sample.photos[..., ::-1])}
    return sample.blobs


# --- The stored reference -------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """Inputs, and what Caffe made of them: a proof for machines without Caffe.

    weights_sha256: of the weights file that it was made from; net: its deploy net's SHA-256.
    """

    samples: list[Sample]
    outputs: list[Blobs]
    weights_sha256: str
    net_sha256: str

    def save(self, path: Path) -> None:
        arrays = {}
        for index, (sample, outputs) in enumerate(zip(self.samples, self.outputs, strict=True)):
            arrays |= {f"in:{index}:{name}": a for name, a in sample.blobs.items()}
            arrays |= {f"out:{index}:{name}": a for name, a in outputs.items()}
            if sample.photos is not None:
                arrays[f"photos:{index}:"] = sample.photos
        about = {
            "names": [sample.names for sample in self.samples],
            "weights_sha256": self.weights_sha256,
            "net_sha256": self.net_sha256,
        }
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, about=np.array(json.dumps(about)), **arrays)

    @classmethod
    def load(cls, path: Path) -> Reference:
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                names = about["names"]
                parts: dict[str, list[Blobs]] = {
                    kind: [{} for _ in names] for kind in ("in", "out", "photos")
                }
                for key in file.files:
                    if key != "about":
                        kind, index, name = key.split(":", 2)
                        parts[kind][int(index)][name] = file[key]
            found = [
                Sample(tuple(images), blobs, photos.get(""))
                for images, blobs, photos in zip(names, parts["in"], parts["photos"], strict=True)
            ]
            return cls(found, parts["out"], about["weights_sha256"], about["net_sha256"])
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
        except Exception:
            raise InputError(
                f"{path}: is no stored reference; make one with `lglstm convert … --to reference` "
                "where Caffe is installed"
            ) from None


def as_json(differences: Sequence[Difference]) -> list[dict]:
    return [asdict(difference) | {"passed": difference.passed} for difference in differences]
