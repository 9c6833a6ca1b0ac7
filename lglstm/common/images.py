"""Reading photos and label maps, checked: any file either gives pixels or one clear sentence.

photo, label = read_pair("images/a.jpg", "labels/a.png", num_classes=5)

Photos are read with Pillow: unlike OpenCV it refuses a file that is cut short, and it leaves the
ids of palette PNGs alone.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path, check_ordinary
from lglstm.common.labels import IGNORE

PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF")
OPTIONAL_FORMATS = {"JPEG2000": "pillow", "AVIF": "pillow", "HEIF": "pillow-heif"}
"""Those that not every Pillow reads, and the packages that bring them."""
PHOTO_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif",
    ".jp2", ".avif", ".heic", ".heif",
)  # fmt: skip
LABEL_FORMATS = ("PNG",)

MAX_PIXELS = 64_000_000
"""A small file can claim a picture that fills the memory; larger ones are refused unread."""

MAX_SIDE = 32_767
"""OpenCV addresses pixels with 16 bits when it turns a picture."""

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by its EXIF orientation."""

_GRAY_STEPS = {"L;2": 85, "L;4": 17}
"""Pillow spreads 2- and 4-bit gray over 0 … 255; by the step the ids come back."""

PathLike = str | os.PathLike[str]


@cache
def photo_formats() -> tuple[str, ...]:
    """The formats of photos that can be read here."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return (*PHOTO_FORMATS, *(name for name in OPTIONAL_FORMATS if name in Image.OPEN))


def refuse_address(path: PathLike) -> None:
    """Raise InputError for the address of a photo in the network."""
    if match := re.match(r"(?i)(https?|ftp|s3|gs):/+", os.fspath(path)):
        address = f"{match[1]}://{os.fspath(path)[match.end() :]}"  # a Path has lost a slash
        raise InputError(f"{address}: is an address; download the photo and name its file")


def read_photo(path: PathLike) -> np.ndarray:
    """Return (H, W, 3) uint8 BGR, upright.

    Gray, palette, CMYK and 16-bit files are converted, transparency is dropped, an EXIF
    orientation is applied. Raises InputError for a missing, empty, damaged, cut-short or oversized
    file, for an address, and for formats other than `photo_formats()`.
    """
    refuse_address(path)
    with _opened(path, photo_formats()) as image:
        if image.mode == "F":
            raise InputError(f"{path}: has floating-point pixels; save it with 8 bits per channel")
        image.load()
        rgb = upright(_to_rgb(image), left_orientation(image))
        return cv2.cvtColor(np.asarray(rgb), cv2.COLOR_RGB2BGR)


def photo_size(path: PathLike) -> tuple[int, int]:
    """Return height and width of a photo without reading its pixels; InputError as `read_photo`."""
    with _opened(path, photo_formats()) as image:
        return image.height, image.width


def read_label(path: PathLike, num_classes: int | None = None, ignore: int = IGNORE) -> np.ndarray:
    """Return (H, W) uint8 of ids from a palette or gray PNG, upright as its photo.

    With `num_classes`, ids other than 0 … num_classes - 1 and `ignore` are refused. Raises
    InputError for those, for pictures in color and for unusable files.
    """
    with _opened(path, LABEL_FORMATS) as image:
        if image.mode not in ("P", "L", "1") and not image.mode.startswith("I"):
            raise InputError(
                f"{path}: holds colors ({image.mode}), not ids; save the label map as a "
                "single-channel PNG, palette or gray, whose pixel values are the ids"
            )
        step = _GRAY_STEPS.get(_raw_mode(image), 1)
        image.load()
        ids = np.asarray(upright(image, left_orientation(image)))
        ids = ids // step if step > 1 else ids
    limit = 256 if num_classes is None else num_classes
    _check_ids(path, ids, limit, ignore)
    return ids.astype(np.uint8)


def read_pair(
    photo_path: PathLike,
    label_path: PathLike,
    num_classes: int | None = None,
    ignore: int = IGNORE,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a photo and its label map, see `read_photo` and `read_label`, of the same size."""
    photo = read_photo(photo_path)
    label = read_label(label_path, num_classes, ignore)
    check_same_size(photo_path, photo, label_path, label)
    return photo, label


def check_same_size(
    photo_path: PathLike, photo: np.ndarray, label_path: PathLike, label: np.ndarray
) -> None:
    """Raise InputError if a photo, (H, W, 3), and its label map, (H, W), differ in size."""
    if photo.shape[:2] != label.shape:
        raise InputError(_sizes_differ(photo_path, photo, label_path, label))


def write_label(
    path: PathLike, ids: np.ndarray, palette: np.ndarray, texts: Mapping[str, str] | None = None
) -> None:
    """Write (H, W) uint8 ids as a palette PNG, whole or not at all.

    palette: (n, 3) RGB, the color of each id, as `LabelSet.palette`. texts: the PNG's text chunks.
    """
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise ValueError(f"{path}: ids are {ids.dtype} {ids.shape}; they must be (H, W) uint8")
    image = Image.fromarray(ids)
    image.putpalette(np.asarray(palette, np.uint8).tobytes())
    chunks = PngInfo()
    for key, text in (texts or {}).items():
        chunks.add_text(key, text)
    # One of thousands, and PNGs have checksums: nothing is lost if a power cut spoils it.
    with atomic_path(path, sync=False) as temporary:
        image.save(temporary, format="PNG", optimize=True, pnginfo=chunks)


def read_text_chunk(path: PathLike, key: str) -> str | None:
    """A text chunk of a PNG whose pixels are whole, too; None if there is no such thing."""
    try:
        with _opened(path, LABEL_FORMATS) as image:
            text = image.info.get(key)
            if text is not None:
                image.load()
            return text
    except InputError:
        return None


class _Bounded(io.BufferedReader):
    """A file that makes room for no more bytes than it has left, whatever a header claims."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return super().read()
        return super().read(min(size, max(0, os.fstat(self.fileno()).st_size - self.tell())))


@contextmanager
def _opened(path: PathLike, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """Open a picture; everything that goes wrong in the block, too, becomes an InputError."""
    try:
        check_ordinary(path)
        with (
            warnings.catch_warnings(),
            _Bounded(io.FileIO(path)) as file,
            Image.open(file, formats=formats) as image,
        ):
            warnings.simplefilter("ignore", UserWarning)  # Pillow's, of what it makes up for
            width, height = image.size
            if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
                raise InputError(_too_large(path, f"has {width} × {height} pixels"))
            yield image
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; restore it or correct its name") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: {_unidentified(path, formats)}") from error
    except Image.DecompressionBombError as error:
        raise InputError(_too_large(path, "has too many pixels")) from error
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # Pillow's decoders raise many kinds on damaged bytes
        if isinstance(error, OSError) and error.errno:
            raise InputError(
                f"{path}: cannot be read ({error.strerror}); check the file"
            ) from error
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: is damaged or cut short ({detail}); fetch or save it again"
        ) from error


def _too_large(path: PathLike, fault: str) -> str:
    return (
        f"{path}: {fault}, more than the allowed {MAX_PIXELS:,} or {MAX_SIDE:,} along a side; "
        "scale it down first"
    )


def _unidentified(path: PathLike, formats: tuple[str, ...]) -> str:
    if Path(path).stat().st_size == 0:
        return "is empty; fetch or save it again"
    wanted = {".heic": "HEIF", ".heif": "HEIF", ".avif": "AVIF", ".jp2": "JPEG2000"}
    needed = wanted.get(Path(path).suffix.lower(), "")
    if needed and formats != LABEL_FORMATS and needed not in formats:
        package = OPTIONAL_FORMATS[needed]
        return (
            f"is a photo in {needed}, which is read with pip install -U {package}; or save as JPEG"
        )
    return f"is not a {'/'.join(formats)} file, or damaged at its start; fetch or save it again"


def _raw_mode(image: Image.Image) -> str:
    """How the file stores a pixel, such as "L;4": the decoder's argument in Pillow's first tile."""
    tiles: list[tuple[str, object, int, str]] = vars(image)["tile"]
    return tiles[0][3]


def left_orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 … 8, in which the pixels of a picture still are.

    Ask after loading it: Pillow turns a TIFF while it loads it, and the EXIF data of a PNG may come
    after its pixels. Damaged EXIF data beside a sound picture counts as none.
    """
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:
        return 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn pixels that are in an EXIF orientation upright."""
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I"):
        return image.convert("RGB")
    # 16-bit gray, which Pillow's own conversion would clip at 255 instead of scaling.
    levels = np.asarray(image).astype(np.int64).clip(0, 65_535)
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8)).convert("RGB")


def _check_ids(path: PathLike, ids: np.ndarray, num_classes: int, ignore: int) -> None:
    values, counts = _histogram(ids)
    wrong = ((values < 0) | (values >= num_classes)) & (values != ignore)
    if not wrong.any():
        return
    found = [
        f"{value} ({count:,} pixel{'s' if count > 1 else ''})"
        for value, count in zip(values[wrong], counts[wrong], strict=True)
    ]
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    raise InputError(
        f"{path}: ids {', '.join(found[:4])}{more} are outside the {num_classes} classes "
        f"(0 to {num_classes - 1}; {ignore} = ignore); correct the label map or the number of "
        "classes"
    )


def _histogram(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values that occur and how often; np.unique alone would sort every pixel."""
    if ids.dtype.itemsize > 1:
        return np.unique(ids, return_counts=True)
    counts = np.bincount(ids.ravel())
    values = np.flatnonzero(counts)
    return values, counts[values]


def _sizes_differ(
    photo_path: PathLike, photo: np.ndarray, label_path: PathLike, label: np.ndarray
) -> str:
    (height, width), (label_height, label_width) = photo.shape[:2], label.shape
    fault = (
        f"{label_path}: is {label_width} × {label_height} pixels, its photo {photo_path} is "
        f"{width} × {height}"
    )
    if (label_height, label_width) == (width, height) and _turned(photo_path):
        return (
            f"{fault} after its EXIF orientation turned it upright; turn the label map the same "
            "way, or remove the orientation from the photo"
        )
    return f"{fault}; both must be of the same size: check that they belong together"


def _turned(path: PathLike) -> bool:
    """Whether the photo's EXIF orientation swaps its sides."""
    with _opened(path, photo_formats()) as image:
        before = left_orientation(image)
        image.load()
        return max(before, left_orientation(image)) >= 5
