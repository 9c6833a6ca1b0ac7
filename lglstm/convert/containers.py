"""Arrays out of npz, HDF5, safetensors and PyTorch files of strangers.

Nothing in a file is run, no other file is opened, and what a file claims is compared with what it
could hold before any of it is read: a few kilobytes can claim gigabytes of zeros.
"""

from __future__ import annotations

import functools
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lglstm.caffe_files import wire
from lglstm.common.errors import InputError, package_missing, reason_of

if TYPE_CHECKING:
    import h5py
    import torch

Arrays = dict[str, np.ndarray]
"""The arrays of a file by their names in it, as float32."""


class Unreadable(Exception):
    """What a library said about a file."""


class Allowance:
    """How many bytes of numbers a file may claim.

    That is what the wanted `values` take in double precision, or four times the file's own size:
    weights hardly compress, so a file that claims more was made to.
    """

    def __init__(self, path: str | os.PathLike[str], values: int):
        self.size = os.stat(path).st_size
        self.values = values
        self.left = max(8 * values, 4 * self.size) + (1 << 16)  # what a header may take

    def take(self, size: int) -> None:
        """Count `size` bytes. Raises Unreadable when they are more than are left."""
        self.left -= size
        if self.left < 0:
            raise Unreadable(
                f"its {self.size} bytes claim more numbers than they, or the {self.values} weights "
                "of the net, can be"
            )


def read_arrays(path: str | os.PathLike[str], format_: str, values: int) -> Arrays:
    """Read an npz, hdf5, safetensors or pth file.

    values: how many numbers the net has, for `Allowance`. Raises InputError for a file that is
    damaged, of another format, holds something else than arrays of floats, or claims too much.
    """
    path = Path(path)
    wire.require_readable(path)
    try:
        arrays = READERS[format_](path, Allowance(path, values))
        return {name: _float32(name, array) for name, array in arrays.items()}
    except InputError:
        raise
    except ImportError as error:
        raise package_missing(path, error) from None
    except MemoryError:
        reason = "it claims more numbers than fit into memory"
    except Exception as error:
        reason = reason_of(error)
    raise InputError(f"{path}: not a whole {format_} file ({reason}); make it again")


def _float32(name: str, array: np.ndarray) -> np.ndarray:
    _require_floats(name, array.dtype)
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def _require_floats(name: str, dtype: np.dtype) -> None:
    if dtype.kind != "f":
        raise Unreadable(f"{name} holds {dtype} instead of floating-point numbers")


# --- npz ------------------------------------------------------------------------------------------


def check_npz(path: Path, values: int) -> None:
    """Raise Unreadable for an archive that claims more than these values, in any type of number."""
    for _ in _check_entries(path, Allowance(path, values)):
        pass


def _check_entries(path: Path, allowance: Allowance) -> Iterator[tuple[str, np.dtype]]:
    """Name and type of each array."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            yield _entry(archive, entry, allowance)


def _read_npz(path: Path, allowance: Allowance) -> Arrays:
    for name, dtype in _check_entries(path, allowance):
        _require_floats(name, dtype)
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _entry(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, allowance: Allowance
) -> tuple[str, np.dtype]:
    """Name and type of an array; Unreadable unless it has the size that it claims."""
    allowance.take(entry.file_size)
    with archive.open(entry) as file:
        name = entry.filename.removesuffix(".npy")
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise Unreadable(f"{name} has the unknown version {version}")
        shape, _, dtype = read(file)
        if dtype.hasobject:
            raise Unreadable(f"{name} holds Python objects instead of floating-point numbers")
        if _count(shape) * dtype.itemsize != entry.file_size - file.tell():
            raise Unreadable(f"{name} does not hold what its shape {shape} says")
    return name, dtype


def _count(shape: tuple[int, ...]) -> int:
    return functools.reduce(lambda a, b: a * b, shape, 1)


# --- HDF5 -----------------------------------------------------------------------------------------


def _read_hdf5(path: Path, allowance: Allowance) -> Arrays:
    """Caffe's datasets, data/<layer>/<index>."""
    import h5py

    with h5py.File(path, "r") as file:
        if "data" not in file.keys():  # noqa: SIM118, `in file` would follow a link
            raise Unreadable("it has no group data, as Caffe's have")
        group = _own(file, "data", h5py.Group)
        return {
            f"{layer}/{index}": dataset[()] for layer, index, dataset in _datasets(group, allowance)
        }


def _datasets(data: h5py.Group, allowance: Allowance) -> Iterator[tuple[str, str, h5py.Dataset]]:
    import h5py

    for layer in data:
        group = _own(data, layer, h5py.Group)
        for index in group:
            dataset = _own(group, index, h5py.Dataset)
            _require_floats(dataset.name, dataset.dtype)
            allowance.take(_count(dataset.shape or ()) * dataset.dtype.itemsize)
            yield layer, index, dataset


def _own(group: h5py.Group, name: str, kind: type) -> Any:
    """A member that lies in this file; Unreadable for one that only leads somewhere else."""
    import h5py

    from lglstm.common import hdf5

    where = f"{group.name}/{name}".replace("//", "/")
    if not hdf5.is_own(group, name):
        raise Unreadable(f"{where} is a link, which could lead into other files; Caffe writes none")
    member = group[name]
    if not isinstance(member, kind):
        raise Unreadable(f"{where} is not a {kind.__name__.lower()}, as in Caffe's files")
    if isinstance(member, h5py.Dataset) and not hdf5.holds_its_numbers(member):
        raise Unreadable(f"{where} takes its numbers from other files; Caffe writes none such")
    return member


# --- safetensors ----------------------------------------------------------------------------------


def _read_safetensors(path: Path, allowance: Allowance) -> Arrays:
    """The numbers lie in the file as they are, so it cannot claim more than it holds."""
    from safetensors import deserialize, safe_open
    from safetensors.numpy import load_file

    with safe_open(path, "np") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    if kinds <= _KINDS.keys():
        return _without_counters(load_file(path))
    return _without_counters({n: _unpacked(n, x) for n, x in deserialize(path.read_bytes())})


_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8"}
"""The types of safetensors that NumPy knows, as far as weights have them."""


def _unpacked(name: str, tensor: Mapping[str, Any]) -> np.ndarray:
    kind, data = tensor["dtype"], tensor["data"]
    if kind == "BF16":  # the upper half of a float32
        array = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    elif kind in _KINDS:
        array = np.frombuffer(data, _KINDS[kind])
    else:
        raise Unreadable(f"{name} holds numbers of type {kind}; save it as float32")
    return array.reshape(tensor["shape"])


def _without_counters(named: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out PyTorch's count of batches beside the statistics of a BatchNorm."""
    return {name: x for name, x in named.items() if not name.endswith("num_batches_tracked")}


# --- PyTorch --------------------------------------------------------------------------------------

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
_SAVE = "where it was made, save torch.save(net.state_dict(), FILE)"


def _read_pth(path: Path, allowance: Allowance) -> Arrays:
    import torch

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                allowance.take(entry.file_size)
        allowance = Allowance(path, allowance.values)  # the tensors are what has just been counted
    tensors = _without_counters(_state_dict(path, _content(path)))
    for name, tensor in tensors.items():
        if not tensor.dtype.is_floating_point:
            raise Unreadable(f"{name} holds {tensor.dtype} instead of floating-point numbers")
        if tensor.layout != torch.strided or tensor.device.type == "meta":
            raise Unreadable(f"{name} does not hold its numbers one by one; save it as dense")
        allowance.take(4 * tensor.numel())
    return {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}


def _content(path: Path) -> Any:
    """What was saved. Nothing in the file is run: only tensors and plain containers are read."""
    import pickle

    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # what matters comes as an error
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global|class|function) `?([A-Za-z_][\w.]*\.\w+)", str(error))
        if "Unsupported" not in str(error) or found is None:
            raise Unreadable("it is no pickle that torch.save writes") from None
        what = f"an object of the class {found[1]}"
    except RuntimeError as error:
        if "TorchScript" not in str(error):
            raise
        what = "a TorchScript program"
    raise InputError(
        f"{path}: holds {what}, which only running its code could load; {_SAVE}"
    ) from None


def _state_dict(path: Path, content: Any) -> dict[str, torch.Tensor]:
    """The tensors by name, out of the dict that holds them."""
    import torch

    for _ in range(3):  # {"model": {"state_dict": …}}
        inner = []
        if isinstance(content, Mapping):
            inner = [content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)]
        if not inner:
            break
        content = inner[0]
        if not content:
            return {}  # of a net without weights
    if isinstance(content, Mapping):
        tensors = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
        if tensors and all(isinstance(name, str) for name in tensors):
            return tensors
    raise InputError(f"{path}: holds {_described(content)}, not tensors by name; {_SAVE}")


def _described(content: Any) -> str:
    """What a file holds, in words."""
    import torch

    if isinstance(content, torch.Tensor):
        return f"one tensor of shape {list(content.shape)}"
    if isinstance(content, Mapping):
        names = ", ".join(map(str, list(content)[:5]))[:80]
        return f"a dict of {names}{', …' * (len(content) > 5)}" if content else "an empty dict"
    if isinstance(content, list | tuple):
        return f"a {type(content).__name__} of {len(content)}"
    return f"a {type(content).__name__}"


def without_wrappers(named: Arrays, wanted: frozenset[str]) -> Arrays:
    """Names without what DataParallel (`module.`) and torch.compile (`_orig_mod.`) put into them.

    wanted: the names that the net has; where some of them are there, all stay as they are.
    """
    if not wanted.isdisjoint(named):
        return named
    return {re.sub(r"(?:(?<=^)|(?<=\.))(?:module|_orig_mod)\.", "", k): a for k, a in named.items()}


READERS: dict[str, Callable[[Path, Allowance], Arrays]] = {
    "hdf5": _read_hdf5,
    "npz": _read_npz,
    "pth": _read_pth,
    "safetensors": _read_safetensors,
}
