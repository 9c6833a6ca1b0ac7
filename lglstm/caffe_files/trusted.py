"""Which layers a stranger's net may have: those that compute, not those that reach further.

A prototxt can name files to read and to overwrite (`HDF5Output`), and Python code to run.
Converting knows its layers one by one (`layer_types`); a net that Caffe runs may have any that only
compute.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from lglstm.caffe_files.layer_types import IGNORED, LAYER_TYPES, PYTHON_LAYERS
from lglstm.caffe_files.schema import LayerParameter, NetParameter
from lglstm.common.errors import InputError

_TEST = 1
_PACKAGE = "lglstm.layers."

_BRINGS_FILES = {"SegData", "ImageLabels"}  # Python layers of ours that only training has

_ONLY_CAFFE_HAS = """
ArgMax BNLL BatchReindex ContrastiveLoss Embed Exp Filter HingeLoss Im2col LSTM LSTMUnit Log MVN
MultinomialLogisticLoss Parameter RNN Reduction SPP SigmoidCrossEntropyLoss Swish Threshold
"""

COMPUTING = {*LAYER_TYPES, *IGNORED, *_ONLY_CAFFE_HAS.split()} - _BRINGS_FILES
"""Types of layers that touch nothing but their blobs."""


def require_layers(net: NetParameter, path: str | os.PathLike[str]) -> None:
    """Raise InputError for a net of before 2014: Caffe runs its `layers`, which nobody checks."""
    if net.layers:
        raise InputError(
            f"{path}: has `layers`, the form before 2014; write it anew with Caffe's "
            "upgrade_net_proto_text"
        )


def check_layers(
    layers: Iterable[LayerParameter], path: str | os.PathLike[str], training: bool = False
) -> None:
    """Raise InputError for layers that may read or write files or run code, and may be built.

    layers: of our schema or of pycaffe. training: whether the net is one to train with, which has
    our data layer.
    """
    for layer in layers:
        if (training or _may_be_built(layer)) and not _computes(layer, training):
            raise InputError(
                f'{path}: layer "{layer.name}" of type {_described(layer)} may read or write files '
                "or run code, which a net that is only run has no need for; if you trust the net, "
                "allow it with --trust-net, else take the layer out"
            )


def use_our_modules(layers: Iterable[LayerParameter]) -> None:
    """Name our Python layers by their place in this package, whatever lies in the user's folders.

    The prototxts of version 0.1 say `layers.lg_lstm`, which a stranger's folder may hold, too.
    """
    for layer in layers:
        module = layer.python_param.module
        if layer.type == "Python" and (module, layer.python_param.layer) in PYTHON_LAYERS:
            layer.python_param.module = _PACKAGE + module.rpartition(".")[2]


def _computes(layer: LayerParameter, training: bool) -> bool:
    if layer.type != "Python":
        return layer.type in COMPUTING
    if not layer.python_param.module.startswith(_PACKAGE):
        return False  # a user's folder `layers` could hold it; see `use_our_modules`
    kind = PYTHON_LAYERS.get((layer.python_param.module, layer.python_param.layer))
    return kind in COMPUTING or (training and kind in _BRINGS_FILES)


def _may_be_built(layer: LayerParameter) -> bool:
    """Whether a net for prediction can have it; only the phase is ours, levels and stages are not.

    The net itself may set these in its `state`.
    """
    if layer.include:
        return any(not rule.HasField("phase") or rule.phase == _TEST for rule in layer.include)
    return not any(
        [field.name for field, _ in rule.ListFields()] == ["phase"] and rule.phase == _TEST
        for rule in layer.exclude
    )


def _described(layer: LayerParameter) -> str:
    if layer.type != "Python":
        return layer.type
    return f"Python ({layer.python_param.module}.{layer.python_param.layer})"
