"""MATLAB files that claim gigabytes, lead into other files or lead round in circles are refused.

Each in a process of its own, whose memory is compared with that of one that reads a sound file.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from data_help import SHAPE, horse, save_mat5, save_mat73, voc

from lglstm.common.errors import InputError
from lglstm.data_prep.horse_cow import HorseCowOptions, data_set
from lglstm.data_prep.matfiles import load_mat, stream_structs
from lglstm.data_prep.prepare import run_task

MB = 1 << 20
GROWTH = 64 * MB
"""What reading a hostile file may need beyond reading a sound one of such small photos."""

SECRET = "a word that is in no data set"

READ = """
import resource, sys
from pathlib import Path
from lglstm.data_prep.horse_cow import Annotation, HorseCowOptions, convert
path = Path(sys.argv[1])
try:
    convert(Annotation("a", path, path.parent.parent / "JPEGImages", HorseCowOptions(smallest=1)))
    print("read")
except ValueError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    return voc(folder, {"a": [horse()]}) / "VOC2010/Annotations_Part"


def read(path: Path) -> tuple[str, int]:
    """What a process that converts an annotation says, and the bytes of memory that it needed."""
    command = [sys.executable, "-c", READ, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said, memory = result.stdout.splitlines()
    return said, int(memory)


@pytest.fixture(scope="module")
def usual(source):
    said, memory = read(source / "a.mat")
    assert said == "read"
    return memory


# ---------------------------------------------------------------- version 5


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def head(matlab_class: int, shape: tuple[int, ...], name: bytes = b"ids") -> bytes:
    dimensions = struct.pack(f"<{len(shape)}i", *shape)
    flags = struct.pack("<II", matlab_class, 0)
    return element(6, flags) + element(5, dimensions) + element(1, name)


def write_v5(path: Path, start: bytes, repeated: bytes, count: int) -> Path:
    """Write one compressed variable: `start`, then `repeated` `count` times."""
    block = repeated * (MB // len(repeated))
    size = len(start) + len(repeated) * count
    packer = zlib.compressobj(9)
    packed = packer.compress(struct.pack("<II", 14, min(size, 2**32 - 8)) + start)
    for _ in range(len(repeated) * count // len(block)):
        packed += packer.compress(block)
    packed += packer.flush()
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    path.write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    return path


V5 = {
    "array": (head(9, (30_000, 20_000)) + struct.pack("<II", 2, 600_000_000), b"\0", 600_000_000),
    "many arrays": (
        head(1, (1, 5000), b"ids"),
        element(14, head(9, (8, SHAPE[1] * SHAPE[0]), b"") + element(2, bytes(8 * 5400))),
        5000,
    ),
    "empty arrays": (head(1, (1, 50_000_000)), struct.pack("<II", 14, 0), 50_000_000),
    "name": (
        head(9, (2, 2))[:32] + struct.pack("<II", 1, 500_000_000),
        b"a",
        500_000_000,
    ),
    "rest": (head(9, (2, 2)) + element(2, bytes(4)), b"\0", 1_000_000_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", V5)
def test_what_expands_without_end_is_refused(source, usual, kind):
    path = write_v5(source / "bomb.mat", *V5[kind])
    assert path.stat().st_size < 2 * MB
    said, memory = read(path)
    assert "claims to hold more than a file of this data set can" in said or (
        kind == "name" and "is damaged" in said
    )
    assert memory < usual + GROWTH


# ---------------------------------------------------------------- version 7.3


def huge(file, folder):
    file.create_dataset("ids", (60_000, 55_000), "u1", chunks=(1000, 1000), fillvalue=1)


def expanding_chunk(file, folder):
    ids = file.create_dataset("ids", (10, 100), "u1", chunks=(10, 100), compression="gzip")
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(MB)) for _ in range(600)) + packer.flush()
    ids.id.write_direct_chunk((0, 0), packed)


def expanding_twice(file, folder):
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk((10, 100))
    created.set_deflate(9)
    created.set_deflate(9)
    space = h5py.h5s.create_simple((10, 100))
    ids = h5py.h5d.create(file.id, b"ids", h5py.h5t.NATIVE_UINT8, space, created)
    ids.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones((10, 100), np.uint8))


def tiny_chunks(file, folder):
    file.create_dataset("ids", SHAPE, "u1", chunks=(1, 1), maxshape=(None, None), fillvalue=1)
    file["ids"].resize((600, 70))


def circle_of_references(file, folder):
    ids = file.create_dataset("ids", (100, 1), h5py.ref_dtype)
    ids[...] = np.array([[ids.ref]] * 100, h5py.ref_dtype)
    ids.attrs["MATLAB_class"] = np.bytes_("cell")


def branching_references(file, folder):
    """Ten datasets, of which each has fifty references to the next."""
    following = file.create_dataset("#refs#/end", data=np.ones((2, 2)))
    for k in range(10):
        name = "ids" if k == 9 else f"#refs#/{k}"
        following = file.create_dataset(name, data=[[following.ref]] * 50, dtype=h5py.ref_dtype)
        following.attrs["MATLAB_class"] = np.bytes_("cell")


def circle_of_groups(file, folder):
    group = file.create_group("ids")
    for k in range(50):
        group[f"again{k}"] = group


def external_link(file, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["ids"] = np.frombuffer(SECRET.encode(), np.uint8)[:, None].repeat(4, 1)
    file["ids"] = h5py.ExternalLink(str(folder / "other.h5"), "ids")


def soft_link(file, folder):
    file["#refs#/ids"] = np.ones((3, 4))
    file["ids"] = h5py.SoftLink("/#refs#/ids")


def external_storage(file, folder):
    (folder / "secret").write_text(SECRET)
    file.create_dataset("ids", (4, 4), "u1", external=[(str(folder / "secret"), 0, 16)])


def virtual(file, folder):
    external_link(file, folder)
    del file["ids"]
    layout = h5py.VirtualLayout((len(SECRET), 4), "u1")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "ids", (len(SECRET), 4))
    file.create_virtual_dataset("ids", layout)


def virtual_by_reference(file, folder):
    virtual(file, folder)
    file.move("ids", "#refs#/ids")
    file["cell"] = np.array([[file["#refs#/ids"].ref]], h5py.ref_dtype)
    file["cell"].attrs["MATLAB_class"] = np.bytes_("cell")


def huge_attribute(file, folder):
    file["ids"] = np.ones((3, 4))
    file["ids"].attrs.create("MATLAB_class", np.zeros(8000, "S7"))


TOO_MUCH = [huge, expanding_chunk, tiny_chunks, branching_references]
FOREIGN = [
    circle_of_references, circle_of_groups,
    expanding_twice, external_link, soft_link, external_storage, virtual, virtual_by_reference,
    huge_attribute,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("write", TOO_MUCH + FOREIGN)
def test_only_what_matlab_writes_is_read_from_hdf5(source, usual, tmp_path, write):
    path = source / "bomb.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        write(file, tmp_path)
    assert path.stat().st_size < 2 * MB
    said, memory = read(path)
    sentence = "claims to hold more" if write in TOO_MUCH else "is damaged, or not a MATLAB file"
    assert sentence in said and SECRET not in said
    assert memory < usual + GROWTH


# ---------------------------------------------------------------- and what is sound


@pytest.mark.parametrize("kind", ["uint8", "double", "logical", "compressed", "chunked"])
def test_sound_files_of_every_kind_are_read(tmp_path, kind):
    ids = np.arange(600).reshape(20, 30) % 5
    path = tmp_path / "a.mat"
    if kind in ("compressed", "chunked"):
        with h5py.File(path, "w") as file:
            how = {"compression": "gzip", "shuffle": True, "fletcher32": True}
            how = how if kind == "compressed" else {}
            file.create_dataset("ids", data=ids.T.astype(np.uint8), chunks=(7, 8), **how)
            file["ids"].attrs["MATLAB_class"] = np.bytes_("uint8")
    else:
        as_kind = {"uint8": np.uint8, "double": float, "logical": bool}[kind]
        ids = ids.astype(as_kind)
        scipy.io.savemat(path, {"ids": ids}, do_compression=True)
    np.testing.assert_array_equal(load_mat(path)["ids"], ids)


def test_a_chunk_that_no_filter_could_shrink_is_read(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (50, 50), np.uint8)
    with h5py.File(tmp_path / "a.mat", "w") as file:
        ids = file.create_dataset("ids", (50, 50), "u1", chunks=(50, 50), compression="gzip")
        ids.id.write_direct_chunk((0, 0), noise.tobytes(), filter_mask=1)
    np.testing.assert_array_equal(load_mat(tmp_path / "a.mat")["ids"], noise.T)


@pytest.mark.parametrize("save", [save_mat5, save_mat73])
def test_limits_are_for_one_element_of_a_stream(tmp_path, save):
    from lglstm.data_prep.limits import Limits

    records = [{"a": np.ones((20, 30)), "b": "text"} for _ in range(40)]
    save(tmp_path / "a.mat", {"truths": records})
    limits = Limits(value=4800, total=3 * MB)
    found = list(stream_structs(tmp_path / "a.mat", "truths", limits))
    assert len(found) == 40
    with pytest.raises(InputError, match="claims to hold more"):
        list(stream_structs(tmp_path / "a.mat", "truths", Limits(value=4799, total=MB)))


@pytest.mark.slow
def test_more_objects_than_ever_were_in_a_photo_are_read(tmp_path):
    """2,700 masks, where the fullest photo of VOC has 56 objects of up to 25 parts."""
    crowd = [horse(left=k % 40) for k in range(300)]
    folder = voc(tmp_path, {"a": crowd})
    described = data_set(folder, HorseCowOptions(smallest=1))
    (task,) = described.tasks()
    outcome = run_task(described.convert, described.labels, tmp_path / "set", task)
    assert not outcome.error and len(outcome.files) == 300
