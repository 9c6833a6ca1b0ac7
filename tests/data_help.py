"""Small data sets in the layouts of the real ones, for the tests of data_prep."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from PIL import Image

from lglstm.common.labels import label_set


def struct_array(records: list[dict[str, Any]]) -> np.ndarray:
    """Return a 1 × n struct array for scipy.io.savemat."""
    array = np.zeros((1, len(records)), [(name, "O") for name in records[0]])
    for k, record in enumerate(records):
        array[0, k] = tuple(record.values())
    return array


def save_mat5(path: Path, variables: dict[str, Any], compressed: bool = True) -> None:
    """Write plain values (see `matfiles`) as MATLAB 5: lists of dicts are structs."""
    scipy.io.savemat(path, {k: _mat5(v) for k, v in variables.items()}, do_compression=compressed)


def _mat5(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return struct_array([{k: _mat5(v) for k, v in record.items()} for record in value])
    if isinstance(value, list):
        cell = np.empty((len(value), 1), object)
        cell[:, 0] = [_mat5(v) for v in value]
        return cell
    return value


def save_mat73(path: Path, variables: dict[str, Any]) -> None:
    """Write the same values as MATLAB 7.3 does, with its header and its tables of references."""
    with h5py.File(path, "w", userblock_size=512) as file:
        store = file.create_group("#refs#")
        for name, value in variables.items():
            _mat73(file, name, value, store)
    data = path.read_bytes()
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + data[124:])


def _mat73(group: h5py.Group, name: str, value: Any, store: h5py.Group) -> None:
    def referred(content: Any) -> h5py.Reference:
        key = f"r{len(store)}"
        _mat73(store, key, content, store)
        return store[key].ref

    if isinstance(value, str):
        group[name] = np.array([[ord(c)] for c in value], np.uint16)
        group[name].attrs["MATLAB_class"] = np.bytes_("char")
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        inner = group.create_group(name)
        for key in value[0]:
            if len(value) == 1:
                _mat73(inner, key, value[0][key], store)
            else:
                references = [[referred(record[key])] for record in value]
                inner[key] = np.array(references, h5py.ref_dtype)
    elif isinstance(value, list):
        group[name] = np.array([[referred(v)] for v in value], h5py.ref_dtype).T
        group[name].attrs["MATLAB_class"] = np.bytes_("cell")
    else:
        group[name] = np.atleast_2d(value).T
        group[name].attrs["MATLAB_class"] = np.bytes_("double")


def photo_bytes(
    shape: tuple[int, int], kind: str = "JPEG", seed: int = 0, mode: str = "RGB"
) -> bytes:
    """Return an encoded photo of (height, width) pixels of noise."""
    channels = (3,) if mode == "RGB" else ()
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, *channels), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def save_label(path: Path, label: np.ndarray, labels: str = "horse") -> None:
    """Write a label map as palette PNG."""
    image = Image.fromarray(label.astype(np.uint8))
    image.putpalette(label_set(labels).palette.tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "PNG")


def box_mask(shape: tuple[int, int], top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


SHAPE = (60, 90)
"""Height and width of the photos of `voc`."""


def horse(shape: tuple[int, int] = SHAPE, left: int = 10) -> dict[str, Any]:
    """An object of PASCAL-Part with overlapping masks; the last column belongs to no part."""

    def box(top, start, bottom, end):
        return box_mask(shape, top, left + start, bottom, left + end)

    parts = [
        {"part_name": "head", "mask": box(10, 30, 20, 40)},
        {"part_name": "lear", "mask": box(8, 32, 12, 34)},
        {"part_name": "neck", "mask": box(16, 26, 24, 33)},
        {"part_name": "torso", "mask": box(20, 5, 32, 30)},
        {"part_name": "lfuleg", "mask": box(30, 24, 38, 28)},
        {"part_name": "lflleg", "mask": box(36, 24, 46, 28)},
        {"part_name": "lfho", "mask": box(45, 24, 48, 28)},
        {"part_name": "tail", "mask": box(20, 0, 30, 7)},
    ]
    mask = np.maximum.reduce([part["mask"] for part in parts] + [box(10, 40, 20, 41)])
    return {"class": "horse", "class_ind": 13.0, "mask": mask, "parts": parts}


def other(name: str, mask: np.ndarray) -> dict[str, Any]:
    """An object without parts."""
    return {"class": name, "class_ind": 1.0, "mask": mask, "parts": np.empty((0, 0))}


def voc(root: Path, objects: dict[str, list[dict[str, Any]]], save=save_mat5) -> Path:
    """Write photos and annotations, objects by photo name, in VOC's and PASCAL-Part's layout."""
    for folder in ("JPEGImages", "Annotations_Part"):
        (root / "VOC2010" / folder).mkdir(parents=True)
    for k, (name, listed) in enumerate(objects.items()):
        (root / f"VOC2010/JPEGImages/{name}.jpg").write_bytes(photo_bytes(SHAPE, seed=k))
        anno = [{"imname": name, "objects": listed}]
        save(root / f"VOC2010/Annotations_Part/{name}.mat", {"anno": anno})
    return root


def files_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
