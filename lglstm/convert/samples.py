"""What both sides of a proof run on, and the outputs of one side, stored for another machine."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lglstm.caffe_files import Net, read_net
from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path
from lglstm.common.images import read_photo
from lglstm.common.preprocessing import stretched, to_blob
from lglstm.convert.caffe_process import Blobs
from lglstm.convert.containers import check_npz
from lglstm.convert.read import SourceModel


@dataclass(frozen=True)
class Sample:
    """One run of the net: its input blobs, and for photos the (B, H, W, 3) uint8 BGR.

    names: what each image of the batch is; a single name is that of the whole batch.
    """

    names: tuple[str, ...]
    blobs: Blobs
    photos: np.ndarray | None = None


def make_samples(
    net: Net, photo: Path | None, any_size: bool, labels: bool = False, seed: int = 0
) -> list[Sample]:
    """What to compare on: noise and a real photo in one batch, and noise of another size.

    Two different images in a batch show whether they are kept apart. Nets that take no photo get
    noise alone, and nets that are bound to their batch get such batches.

    labels: also the photo at its own size, and noise of sizes that shrink, grow, and do both.
    """
    if len(net.inputs) != 1 or next(iter(net.inputs.values()))[1:2] != (3,):
        found = [_noise(net, "noise", seed), _noise(net, "more noise", seed + 1)]
        return found + ([_noise(net, "larger noise", seed + 2, (32, 64))] if any_size else [])
    rng = np.random.default_rng(seed)
    ((_, _, height, width),) = net.inputs.values()
    images = {"noise": rng.integers(0, 256, (height, width, 3), np.uint8)}
    if (picture := sample_photo(photo)) is not None:
        images["photo"] = stretched(picture, (height, width))
    else:
        images["more noise"] = rng.integers(0, 256, (height, width, 3), np.uint8)
    batch = 2 if batch_is_free(net) else next(iter(net.inputs.values()))[0]
    for i in range(2, batch):
        images[f"noise {i}"] = rng.integers(0, 256, (height, width, 3), np.uint8)
    groups = [list(images.items())[i : i + batch] for i in range(0, len(images), batch)]
    found = [_photos(net, dict(group)) for group in groups]
    if any_size:
        larger = rng.integers(0, 256, (height + 32, width + 64, 3), np.uint8)
        found.append(_photos(net, {"larger noise": larger}))
    if labels:
        sizes = {
            "shrunk": (2 * height + 3, 3 * width + 1),
            "enlarged": (height // 2 + 1, width // 3 + 1),
            "stretched": (height + 5, width // 2 + 1),
        }
        others = {
            f"noise, {how}": rng.integers(0, 256, (*size, 3), np.uint8)
            for how, size in sizes.items()
        }
        if picture is not None:
            others["whole photo"] = picture
        copies = 1 if batch_is_free(net) else batch
        found += [
            _photos(
                net, {f"{name} {i}" if i else name: image for i in range(copies)}, own_size=True
            )
            for name, image in others.items()
        ]
    return found


def batch_is_free(net: Net) -> bool:
    """Whether every blob holds the images of a batch one after another, however many they are."""
    try:
        other = read_net(net.path, batch_factor=3, stages=net.stages)
    except InputError:
        return False
    return net.weights == other.weights and all(
        changed == (3 * shape[0], *shape[1:])
        and not (layer.type == "Slice" and layer.options["axis"] in (0, -len(shape)))
        for layer, more in zip(net.layers, other.layers, strict=True)
        for shape, changed in zip(layer.top_shapes, more.top_shapes, strict=True)
        if shape
    )


def _noise(net: Net, name: str, seed: int, more: tuple[int, int] = (0, 0)) -> Sample:
    rng = np.random.default_rng(seed)
    blobs = {}
    for blob, shape in net.inputs.items():
        if len(shape) == 4:
            shape = (*shape[:2], shape[2] + more[0], shape[3] + more[1])
        blobs[blob] = rng.standard_normal(shape).astype(np.float32)
    return Sample((name,), blobs)


def _photos(net: Net, images: dict[str, np.ndarray], own_size: bool = False) -> Sample:
    """A batch of images of one size; own_size: it is theirs, and the net takes its own."""
    photos = np.stack(list(images.values()))
    ((_, _, *size),) = net.inputs.values()
    target = (size[0], size[1]) if own_size else photos.shape[1:3]
    data = np.stack([to_blob(photo, target) for photo in photos])
    return Sample(tuple(images), {next(iter(net.inputs)): data}, photos)


def sample_photo(path: Path | None) -> np.ndarray | None:
    """The user's photo; without one the portrait that scikit-image brings, if it is installed."""
    if path is not None:
        return read_photo(path)
    try:
        from skimage.data import astronaut
    except ImportError:
        return None
    return astronaut()[..., ::-1]


def _most_values(net: Net) -> int:
    """More numbers than the samples of a net and all of its blobs for them can have."""
    shapes = [*net.inputs.values(), *(shape for x in net.layers for shape in x.top_shapes)]
    larger = max(
        math.prod(n + more for n, more in zip(shape[2:4], (32, 64), strict=True))
        / math.prod(shape[2:4])
        for shape in (*net.inputs.values(), (1, 1, 1, 1))
        if len(shape) == 4
    )
    return int((2 + larger) * sum(map(math.prod, shapes)))


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
        arrays: Blobs = {}
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
        arrays["about"] = np.array(json.dumps(about))
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path, net: Net) -> Reference:
        """Read what `save` wrote for a net. Raises InputError for any other file."""
        try:
            check_npz(path, _most_values(net))
            with np.load(path, allow_pickle=False) as file:
                about: dict[str, Any] = json.loads(str(file["about"]))
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
                f"{path}: is not a stored reference; make one with `lglstm convert … --to "
                "reference` where Caffe is installed"
            ) from None

    def check_made_from(self, model: SourceModel, path: Path) -> None:
        """Raise InputError unless it was made from this model; `path` names it in the message."""
        if (self.weights_sha256, self.net_sha256) != (model.weights_sha256, model.deploy_sha256):
            raise InputError(
                f"{path}: was made from other weights or another net than {model.weights_path} and "
                f"{model.deploy_path}; make it again where Caffe is installed"
            )
