"""Photos of every kind come out upright in BGR; label maps keep their ids; bad files explain."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lglstm.common.errors import InputError
from lglstm.common.images import read_label, read_pair, read_photo, write_label
from lglstm.common.labels import label_set

RGB = np.zeros((12, 20, 3), np.uint8)
RGB[:, :10] = (200, 40, 90)
RGB[5:, 10:] = (20, 180, 60)
GRAY = RGB[:, :, 0]
PALETTE = label_set("horse").palette


def gray_as_bgr(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[:, :, None], 3, 2)


def save(path: Path, array: np.ndarray, mode: str | None = None, **how) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **how)
    return path


def png(path: Path, values: np.ndarray, depth: int) -> Path:
    """A gray PNG of 1, 2 or 4 bits, as image optimizers make them; Pillow cannot write it."""
    bits = (values[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    return path


def test_kinds_of_photos(tmp_path):
    transparent = np.dstack([RGB, np.full(GRAY.shape, 7, np.uint8)])
    sixteen = GRAY.astype(np.uint16) * 257
    exact = {
        "rgb.png": (RGB, None, RGB[:, :, ::-1]),
        "rgba.png": (transparent, None, RGB[:, :, ::-1]),
        "palette.png": (RGB, "P", RGB[:, :, ::-1]),
        "palette.gif": (RGB, "P", RGB[:, :, ::-1]),
        "gray.png": (GRAY, None, gray_as_bgr(GRAY)),
        "gray_alpha.png": (GRAY, "LA", gray_as_bgr(GRAY)),
        "sixteen.png": (sixteen, None, gray_as_bgr(GRAY)),
        "sixteen.tif": (sixteen, None, gray_as_bgr(GRAY)),
        "bits.png": (GRAY > 100, None, gray_as_bgr((GRAY > 100) * np.uint8(255))),
        "rgb.bmp": (RGB, None, RGB[:, :, ::-1]),
    }
    for name, (array, mode, expected) in exact.items():
        how = {"palette": Image.Palette.ADAPTIVE} if mode == "P" else {}
        image = Image.fromarray(array)
        (image.convert(mode, **how) if mode else image).save(tmp_path / name)
        photo = read_photo(tmp_path / name)
        np.testing.assert_array_equal(photo, expected, err_msg=name)
        assert photo.dtype == np.uint8 and photo.flags.c_contiguous


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_jpeg(tmp_path, mode):
    path = save(tmp_path / "a.jpg", RGB, mode, quality=98, subsampling=0)
    expected = np.asarray(Image.fromarray(RGB).convert(mode).convert("RGB"))[:, :, ::-1]
    assert np.abs(read_photo(path).astype(int) - expected).mean() < 2


UPRIGHT = np.array(
    [[[250, 10, 20], [10, 240, 30], [20, 30, 230]], [[90, 80, 10], [0] * 3, [128] * 3]]
)
"""2 × 3 pixels, all different, so that no turn or flip of them is another."""

STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: np.swapaxes(a[::-1, ::-1], 0, 1),
    8: lambda a: np.rot90(a, -1),
}
"""How a camera stores an upright picture, by the orientation that it then writes."""


def with_orientation(path: Path, upright: np.ndarray, orientation: int, **how) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(path, np.ascontiguousarray(STORED[orientation](upright)), exif=exif, **how)


def exif_at_the_end(path: Path) -> Path:
    """Move the eXIf chunk of a PNG behind the pixels, where it may be as well."""
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4])
    path.write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.png", {}),
        ("a.tif", {}),
        ("lzw.tif", {"compression": "tiff_lzw"}),
        ("deflate.tif", {"compression": "tiff_deflate"}),
        ("a.webp", {"lossless": True}),
    ],
)
def test_every_orientation_is_applied_once(tmp_path, name, how, orientation):
    upright = UPRIGHT.astype(np.uint8)
    path = with_orientation(tmp_path / name, upright, orientation, **how)
    np.testing.assert_array_equal(read_photo(path), upright[:, :, ::-1])
    if name == "a.png":
        np.testing.assert_array_equal(read_photo(exif_at_the_end(path)), upright[:, :, ::-1])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_jpeg_is_applied(tmp_path, orientation):
    upright = UPRIGHT.repeat(16, 0).repeat(16, 1).astype(np.uint8)
    path = with_orientation(tmp_path / "a.jpg", upright, orientation, quality=98, subsampling=0)
    assert np.abs(read_photo(path).astype(int) - upright[:, :, ::-1]).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.tif"])
def test_photo_and_label_map_are_turned_alike(tmp_path, name, orientation):
    """Each may tell its orientation; pixel by pixel they belong together when both are upright."""
    upright = UPRIGHT.repeat(16, 0).repeat(16, 1).astype(np.uint8)
    ids = np.arange(6, dtype=np.uint8).reshape(2, 3).repeat(16, 0).repeat(16, 1)
    photo_path = with_orientation(tmp_path / name, upright, orientation)
    turned = with_orientation(tmp_path / "turned.png", ids, orientation)
    for label_path in (save(tmp_path / "upright.png", ids), turned, exif_at_the_end(turned)):
        photo, label = read_pair(photo_path, label_path)
        np.testing.assert_array_equal(label, ids)
        assert np.abs(photo.astype(int) - upright[:, :, ::-1]).mean() < 8


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_ids_of_gray_pngs_with_few_bits(tmp_path, depth):
    ids = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7) % 2**depth
    np.testing.assert_array_equal(read_label(png(tmp_path / "a.png", ids, depth)), ids)


def test_labels_are_written_and_read_back(tmp_path):
    ids = np.array([[0, 1, 4], [255, 3, 2]], np.uint8)
    path = tmp_path / "new" / "a.png"
    write_label(path, ids, PALETTE)
    np.testing.assert_array_equal(read_label(path, 5), ids)
    with Image.open(path) as image:
        assert image.mode == "P"
        colors = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(colors, PALETTE[ids])
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]
    np.testing.assert_array_equal(read_label(save(tmp_path / "gray.png", ids)), ids)


def test_ids_outside_the_classes_are_named_and_counted(tmp_path):
    ids = np.zeros((4, 5), np.uint8)
    ids[0, :3], ids[1, 0], ids[2, 0] = 7, 9, 255
    path = save(tmp_path / "a.png", ids)
    with pytest.raises(InputError, match=r"ids 7 \(3 pixels\), 9 \(1 pixel\) are outside the 5"):
        read_label(path, 5)
    assert read_label(path)[0, 0] == 7
    with pytest.raises(InputError, match=r"255 \(1 pixel\)"):
        read_label(path, 10, ignore=0)
    wide = save(tmp_path / "wide.png", ids.astype(np.uint16) * 100)
    with pytest.raises(InputError, match=r"ids 700 \(3 pixels\), 900 .* outside the 256 classes"):
        read_label(wide)


def truncated(path: Path, source: Path) -> Path:
    path.write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
    return path


def test_bad_files_say_what_and_what_to_do(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    jpeg = save(tmp_path / "noise.jpg", noise)
    label = save(tmp_path / "label.png", noise[:, :, 0])
    empty = tmp_path / "empty.jpg"
    empty.touch()
    text = tmp_path / "text.jpg"
    text.write_text("<html>404 not found</html>")
    bomb = png(tmp_path / "bomb.png", np.zeros((2, 2), np.uint8), 1)
    header = bytearray(bomb.read_bytes())
    header[16:24] = struct.pack(">II", 9_000, 9_000)
    header[29:33] = struct.pack(">I", zlib.crc32(header[12:29]))
    bomb.write_bytes(header)
    enormous = tmp_path / "enormous.png"
    header[16:24] = struct.pack(">II", 90_000, 90_000)
    header[29:33] = struct.pack(">I", zlib.crc32(header[12:29]))
    enormous.write_bytes(header)
    cases = [
        (read_photo, tmp_path / "none.jpg", "no such file; restore"),
        (read_photo, tmp_path, "cannot be read"),
        (read_photo, empty, "is empty; fetch"),
        (read_photo, text, "is not a JPEG/PNG/.* file, or damaged at its start"),
        (read_photo, truncated(tmp_path / "cut.jpg", jpeg), "is damaged or cut short"),
        (read_photo, truncated(tmp_path / "cut.png", label), "is damaged or cut short"),
        (read_label, tmp_path / "cut.png", "is damaged or cut short"),
        (read_photo, bomb, "has 9000 × 9000 pixels, more than the allowed 64,000,000"),
        (read_photo, enormous, "too many pixels, .*; scale it down"),
        (read_photo, save(tmp_path / "f.tif", noise[:, :, 0] / np.float32(255)), "floating-point"),
        (read_label, jpeg, "is not a PNG file"),
        (read_label, save(tmp_path / "rgb.png", noise), "holds colors .*, not ids; save"),
    ]
    for read, path, words in cases:
        with pytest.raises(InputError, match=words) as caught:
            read(path)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_pair_must_have_one_size(tmp_path):
    photo = save(tmp_path / "a.png", RGB)
    label = save(tmp_path / "b.png", np.zeros((20, 12), np.uint8))
    sizes = f"{re.escape(str(label))}: is 12 × 20 pixels, its photo {re.escape(str(photo))} is 20"
    with pytest.raises(InputError, match=sizes + ".*check that they belong together"):
        read_pair(photo, label)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save(tmp_path / "turned.jpg", RGB, exif=exif)
    assert read_pair(turned, label)[0].shape == (20, 12, 3)
    flat = save(tmp_path / "flat.png", GRAY * 0)
    with pytest.raises(InputError, match="after its EXIF orientation .* turn the label map"):
        read_pair(turned, flat)


def test_what_pillow_makes_up_for_is_not_told(tmp_path, recwarn):
    """A palette with transparency, which Pillow warns of with a line of its own source."""
    picture = Image.new("P", (4, 3))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.save(tmp_path / "photo.png", transparency=bytes([100, 200]))
    assert read_photo(tmp_path / "photo.png").shape == (3, 4, 3)
    assert not recwarn.list
