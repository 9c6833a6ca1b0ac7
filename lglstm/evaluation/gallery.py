"""The pictures of the report: photo, truth, prediction and errors of chosen images, inlined."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import cv2
import numpy as np
from PIL import Image

from lglstm.common import preprocessing
from lglstm.common.images import read_label, read_photo
from lglstm.common.labels import IGNORE, LabelSet
from lglstm.evaluation.evaluator import Evaluation, ImageScore
from lglstm.evaluation.html import choices, slider, swatch
from lglstm.evaluation.paper import percent
from lglstm.evaluation.tables import number

PER_GROUP = 4
LONGEST_SIDE = 560
"""Pixels; larger photos are scaled down, so that a report stays near a megabyte."""

ERROR_COLOR = (214, 0, 110)
IGNORED_COLOR = (150, 150, 150)

VIEWS = {"side": "Side by side", "truth": "Truth", "prediction": "Prediction", "errors": "Errors"}
GROUPS = {"worst": "Worst", "median": "Median", "best": "Best"}


def gallery(evaluation: Evaluation) -> str:
    """The section with the worst, median and best images, with its controls."""
    groups = choose(evaluation.images)
    shown = {name: GROUPS.get(name, "All") for name in groups}
    examples = "".join(
        f'<div id="images-{name}"><h3 class="visually-hidden">{shown[name]} images</h3>'
        '<div class="examples">'
        + "".join(_example(image, evaluation.labels) for image in images)
        + "</div></div>"
        for name, images in groups.items()
    )
    group_choice = choices("images-group", "Images", shown, "images") if len(groups) > 1 else ""
    return (
        '<section class="gallery"><h2>Images</h2>'
        "<p>Chosen by each image's own mean IoU over the classes that it shows or that were "
        "predicted in it.</p>"
        f'<div class="controls">{group_choice}{choices("view", "Show", VIEWS)}'
        f"{slider('opacity', 'Opacity', 0, 100, 65, '65 %')}"
        f"{slider('zoom', 'Zoom', 100, 600, 100, '1 ×')}</div>"
        f"{_legend(evaluation.labels)}{examples}</section>"
    )


def choose(images: Sequence[ImageScore]) -> dict[str, list[ImageScore]]:
    """The worst, median and best few images, or all of them when there are few; worst first."""
    ranked = sorted(
        (image for image in images if image.mean_iou is not None),
        key=lambda image: image.mean_iou or 0.0,
    )
    if len(ranked) <= 3 * PER_GROUP:
        return {"all": ranked}
    middle = (len(ranked) - PER_GROUP) // 2
    return {
        "worst": ranked[:PER_GROUP],
        "median": ranked[middle : middle + PER_GROUP],
        "best": ranked[: -PER_GROUP - 1 : -1],
    }


def error_map(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """(H, W, 4) RGBA: wrong pixels colored, ignored ones gray, the rest transparent."""
    picture = np.zeros((*truth.shape, 4), np.uint8)
    picture[truth != prediction] = (*ERROR_COLOR, 255)
    picture[truth == IGNORE] = (*IGNORED_COLOR, 255)
    return picture


def _legend(labels: LabelSet) -> str:
    entries = "".join(
        f"<li>{swatch(labels, k)}{escape(name)}</li>"
        for k, name in enumerate(labels.names)
        if k  # the background is transparent
    )
    return f'<ul class="legend" aria-label="Colors of the labels">{entries}</ul>'


# ----------------------------------------------------------------------------------- one image


def _example(image: ImageScore, labels: LabelSet) -> str:
    photo = read_photo(image.image.photo)
    truth = read_label(image.image.label, labels.num_classes)
    prediction = read_label(image.prediction, labels.num_classes)
    photo, truth, prediction = _scaled(photo, truth, prediction)
    name = image.image.name
    maps = {
        "truth": ("Truth", _label_png(truth, labels), f"True parts: {_shares(truth, labels)}"),
        "prediction": (
            "Prediction",
            _label_png(prediction, labels),
            f"Predicted parts: {_shares(prediction, labels)}",
        ),
        "errors": ("Errors", _png(Image.fromarray(error_map(truth, prediction))), "Wrong pixels"),
    }
    panels = "".join(
        f'<div class="panel {key}"><h4>{title}</h4><div class="window" tabindex="0" role="group" '
        f'aria-label="{title} of {escape(name)}"><div class="stack">'
        f'<img alt="{escape(text)}" src="{png}"></div></div></div>'
        for key, (title, png, text) in maps.items()
    )
    caption = (
        f"<strong>{escape(name)}</strong> mean IoU {number(percent(image.mean_iou), 1)} %, "
        f"pixel accuracy {number(percent(image.pixel_accuracy), 1)} %"
    )
    return (
        f'<figure style="--photo:url({_jpeg(photo)})"><div class="panels">{panels}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _scaled(
    photo: np.ndarray, truth: np.ndarray, prediction: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All three no larger than LONGEST_SIDE; the photo follows the truth when sizes differ."""
    factor = min(1.0, LONGEST_SIDE / max(truth.shape))
    size = tuple(max(1, round(side * factor)) for side in truth.shape)
    rows, columns = (preprocessing.nearest(a, b) for a, b in zip(truth.shape, size, strict=True))
    photo = cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA)
    return photo, truth[rows[:, None], columns], prediction[rows[:, None], columns]


def _shares(label: np.ndarray, labels: LabelSet) -> str:
    """What a label map shows, in words, the largest part first."""
    counts = np.bincount(label[label != IGNORE].ravel(), minlength=labels.num_classes)
    parts = [
        f"{labels.names[k]} {100 * counts[k] / max(1, counts.sum()):.0f} %"
        for k in np.argsort(-counts, kind="stable")
        if counts[k]
    ]
    return ", ".join(parts)


def _label_png(label: np.ndarray, labels: LabelSet) -> str:
    """A label map in the colors of its set, background transparent so that the photo shows."""
    image = Image.fromarray(label)
    image.putpalette(labels.palette.tobytes())
    return _png(image, transparency=0)


def _png(image: Image.Image, **options: object) -> str:
    return _data_url(image, "PNG", optimize=True, **options)


def _jpeg(photo: np.ndarray) -> str:
    return _data_url(Image.fromarray(photo[:, :, ::-1].copy()), "JPEG", quality=82)


def _data_url(image: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
