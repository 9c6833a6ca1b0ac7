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

import json

import numpy as np
from numpy.typing import NDArray

from lglstm.common.errors import InputError
from lglstm.common.labels import IGNORE
from lglstm.layers.shown_errors import shown_errors

try:
    from caffe import Layer
except ImportError:  # `image_labels` serves without Caffe
    Layer = object

KEYS = {"num_classes", "ignore_label"}


def image_labels(
    label: NDArray, num_classes: int, ignore_label: int = IGNORE
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


@shown_errors
class ImageLabels(Layer):
    """Bottom: label (B, 1, h, w). Top: (B, num_classes), see `image_labels`. No gradient."""

    def setup(self, bottom, top) -> None:
        options = json.loads(self.param_str)
        if set(options) - KEYS or type(options.get("num_classes")) is not int:
            raise InputError(
                f"ImageLabels: param_str is {self.param_str}; give num_classes, a whole number, "
                "and if it is not 255, ignore_label"
            )
        self.num_classes = options["num_classes"]
        self.ignore_label = options.get("ignore_label", IGNORE)

    def reshape(self, bottom, top) -> None:
        top[0].reshape(bottom[0].shape[0], self.num_classes)

    def forward(self, bottom, top) -> None:
        top[0].data[...] = image_labels(bottom[0].data, self.num_classes, self.ignore_label)

    def backward(self, top, propagate_down, bottom) -> None:
        """Labels have no gradient."""
