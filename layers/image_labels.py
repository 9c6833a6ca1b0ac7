"""Which classes an image shows, from its label map: the target of Co-CNN's image-label branch.

layer {
  type: "Python"  name: "label_target"  bottom: "label"  top: "label_target"
  python_param {
    module: "lglstm.layers.image_labels"  layer: "ImageLabels"
    param_str: '{"num_classes": 18, "ignore_label": 255}'
  }
}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lglstm.common.errors import InputError
from lglstm.common.labels import IGNORE
from lglstm.common.rules import check, parse_object, whole
from lglstm.layers.python_layer import Blobs, PythonLayer, reports_errors

RULES = {"num_classes": whole(1, 256), "ignore_label": whole(0, 255)}
"""Every key of `param_str`."""


def image_labels(
    label: NDArray[Any], num_classes: int, ignore_label: int = IGNORE
) -> NDArray[np.float32]:
    """Return (B, num_classes): y / ‖y‖₁, y being 1 for each class that an image shows.

    label: (B, …) ids, 0 … num_classes - 1 or ignore_label. An image of ignored pixels alone gives
    zeros. Raises InputError for any other id.
    """
    ids = np.asarray(label).reshape(len(label), -1)
    target = np.zeros((len(ids), num_classes), np.float32)
    for row, image in zip(target, ids, strict=True):
        shown = np.unique(image[image != ignore_label])
        known = shown[(shown >= 0) & (shown < num_classes) & (shown % 1 == 0)]
        if len(known) < len(shown):
            raise InputError(
                f"ImageLabels: the label map has ids {sorted(set(shown) - set(known))}; allowed "
                f"are 0 to {num_classes - 1} and {ignore_label}"
            )
        row[known.astype(int)] = 1 / max(1, len(known))
    return target


@reports_errors
class ImageLabels(PythonLayer):
    """Bottom: label (B, 1, h, w). Top: (B, num_classes), see `image_labels`. No gradient."""

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        options = parse_object("ImageLabels", self.param_str, '{"num_classes": 18}')
        check("ImageLabels", options, RULES, required=["num_classes"])
        self.num_classes: int = options["num_classes"]
        self.ignore_label: int = options.get("ignore_label", IGNORE)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(bottom[0].shape[0], self.num_classes)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[...] = image_labels(bottom[0].data, self.num_classes, self.ignore_label)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Labels have no gradient."""
