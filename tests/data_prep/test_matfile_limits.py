"""MATLAB files that claim more than they can hold, or lead into other files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from lglstm.common.errors import InputError
from lglstm.data_prep.limits import LIMITS
from lglstm.data_prep.matfiles import load_mat, stream_structs

TOO_MUCH = (
    "claims to hold more than a file of this data set can; fetch it again, or check that it is the "
    "right file"
)
UINT8, MATRIX, COMPRESSED, INT32, INT8, UINT32 = 9, 14, 15, 5, 1, 6


def element(kind: int, content: bytes, size: int | None = None) -> bytes:
    """A data element of version 5; `size` is what it claims."""
    head = struct.pack("<II", kind, len(content) if size is None else size)
    return head + content + bytes(-len(content) % 8)


def version5(path: Path, height: int, width: int) -> Path:
    """A compressed matrix of bytes, of which only the first few are there."""
    size = height * width
    body = element(UINT32, struct.pack("<II", UINT8, 0))
    body += element(INT32, struct.pack("<ii", height, width)) + element(INT8, b"a")
    body += element(2, bytes(64), size)
    stream = zlib.compress(element(MATRIX, body, len(body) + size))
    header = b"MATLAB 5.0".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49)
    path.write_bytes(header + struct.pack("<II", COMPRESSED, len(stream)) + stream)
    return path


def error_of(path: Path, *names: str) -> str:
    with pytest.raises(InputError) as error:
        load_mat(path, *names)
    return str(error.value)


def test_a_matrix_that_claims_gigabytes(tmp_path: Path) -> None:
    path = version5(tmp_path / "a.mat", 60_000, 60_000)
    assert path.stat().st_size < 1000
    assert error_of(path) == f"{path}: {TOO_MUCH}"


@pytest.mark.slow
def test_a_stream_that_inflates_to_more_than_all_may_have(tmp_path: Path) -> None:
    deflate = zlib.compressobj()
    body = element(UINT32, struct.pack("<II", UINT8, 0))
    body += element(INT32, struct.pack("<ii", 2, 2)) + element(INT8, b"a") + element(2, bytes(4))
    whole = LIMITS.total + (64 << 20)
    stream = deflate.compress(element(MATRIX, body, whole))
    for _ in range(whole >> 20):  # behind the matrix, within its element
        stream += deflate.compress(bytes(1 << 20))
    stream += deflate.flush()
    header = b"MATLAB 5.0".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49)
    path = tmp_path / "a.mat"
    path.write_bytes(header + struct.pack("<II", COMPRESSED, len(stream)) + stream)
    assert path.stat().st_size < 1 << 20
    assert error_of(path) == f"{path}: {TOO_MUCH}"


def test_an_hdf5_array_that_claims_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (60_000, 60_000), "f8", chunks=(1000, 1000), compression="gzip")
        group = file.create_group("s")
        group.create_dataset("x", (60_000, 60_000), "u1", chunks=(1000, 1000))
    assert path.stat().st_size < 20_000
    assert error_of(path, "a") == f"{path}: {TOO_MUCH}"
    with pytest.raises(InputError, match=TOO_MUCH):
        list(stream_structs(path, "s"))


def test_hdf5_that_leads_into_other_files(tmp_path: Path) -> None:
    secret, path = tmp_path / "secret", tmp_path / "a.mat"
    secret.write_bytes(b"password")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = np.arange(8, dtype=np.uint8)
    with h5py.File(path, "w") as file:
        file["link"] = h5py.ExternalLink("other.h5", "a")
        file["soft"] = h5py.SoftLink("/raw")
        file.create_dataset("raw", (8,), "u1", external=[(str(secret), 0, 8)])
        layout = h5py.VirtualLayout((8,), "u1")
        layout[:] = h5py.VirtualSource("other.h5", "a", (8,))
        file.create_virtual_dataset("virtual", layout)
        cell = file.create_dataset("cell", (1,), h5py.ref_dtype)
        cell[0] = file["raw"].ref
        file["sound"] = np.arange(8, dtype=np.uint8)
    for name in ("link", "soft", "raw", "virtual", "cell"):
        assert "is damaged, or not a MATLAB file" in error_of(path, name), name
    assert load_mat(path, "sound")["sound"].ravel().tolist() == list(range(8))
