"""The transition, the stack of LG-LSTM layers, and the classifier after each (sec. 3 of the paper).

`local` (B, (N+1)·d, h, w), `memory` (the same shape) and `global` (B, d, G, G; absent when G = 0)
go from layer to layer; together `local` and `global` are the input states H of Eq. (3).
"""

# ruff: noqa: C408 (dict(…) reads like the keyword arguments of NetSpec)
from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from caffe import layers as L
from caffe.net_spec import NetSpec, Top

from lglstm.prototxt_gen.backbones import Features, filler, learning_rates
from lglstm.prototxt_gen.options import ModelOptions


@dataclass(frozen=True)
class CellTops:
    """The tops of a transition or LG-LSTM layer; `global_` is None without global cells."""

    local: Top
    memory: Top
    global_: Top | None


def transition(n: NetSpec, features: Features, options: ModelOptions) -> CellTops:
    """N + 1 LSTMs with weights of their own turn features (B, C, h, w) into the first cells."""
    kinds = ["weight", "bias"] if options.bias_term else ["weight"]
    params = [param("", kind == "bias", options) for kind in kinds]
    return lstm_layer(n, "transition", "LGLSTMTransition", [features.top], params, options)


def lg_lstm(n: NetSpec, i: int, cells: CellTops, options: ModelOptions) -> CellTops:
    """LG-LSTM layer i, Eq. (4); `share_layers` names its weights, so that all layers use them."""
    kinds = ["spatial", "spatial_bias", "depth", "depth_bias"]
    kinds = kinds if options.bias_term else kinds[::2]
    params = [
        param(f"lg_lstm_{kind}" if options.share_layers else "", "bias" in kind, options)
        for kind in kinds
    ]
    bottoms = [cells.local, cells.memory] + ([cells.global_] if cells.global_ else [])
    return lstm_layer(n, f"lg_lstm{i}", "LGLSTM", bottoms, params, options)


def lstm_layer(
    n: NetSpec,
    name: str,
    layer_type: str,
    bottoms: list[Top],
    params: list[dict[str, Any]],
    options: ModelOptions,
) -> CellTops:
    """Add a layer in the chosen engine and name its tops `<name>_local`, `_memory`, `_global`."""
    settings = lstm_settings(layer_type, options)
    ntop = 3 if options.global_grid else 2
    if options.engine == "caffe":
        arguments: dict[str, Any] = dict(lg_lstm_param=settings)
    else:
        arguments = dict(
            module="lglstm.layers.lg_lstm", layer=layer_type, param_str=json.dumps(settings)
        )
        layer_type = "Python"
    tops = getattr(L, layer_type)(*bottoms, ntop=ntop, name=name, param=params, **arguments)
    for top, kind in zip(tops, ("local", "memory", "global"), strict=False):
        n[f"{name}_{kind}"] = top
    return CellTops(tops[0], tops[1], tops[2] if ntop == 3 else None)


def lstm_settings(layer_type: str, options: ModelOptions) -> dict[str, Any]:
    """The keys of `lg_lstm_param`; the Python layers take the same ones as JSON."""
    settings: dict[str, Any] = dict(
        num_output=options.hidden, neighbors=options.neighbors, global_grid=options.global_grid
    )
    if layer_type == "LGLSTM":
        settings["share_spatial"] = options.share_spatial
    settings["bias_term"] = options.bias_term
    settings["weight_filler"] = dict(
        type="uniform", min=-options.lstm_range, max=options.lstm_range
    )
    return settings


def param(name: str, is_bias: bool, options: ModelOptions) -> dict[str, Any]:
    """A `param` entry; layers that give it the same name share the blob."""
    rates = learning_rates(options)[int(is_bias)]
    return dict(name=name, **rates) if name else rates


def classifier(
    n: NetSpec, i: int, local: Top, global_: Top | None, blob: str, options: ModelOptions
) -> Top:
    """The 1×1 convolution of H into `blob`, (B, classes, h, w).

    H repeats the global cells at every position, so their part of the convolution is one vector
    per image: an InnerProduct, which a Bias layer adds to the convolution of the local part.
    """
    name = f"score{i}_local"
    rates = learning_rates(options, options.score_lr_mult)
    convolution = dict(
        num_output=options.num_classes,
        kernel_size=1,
        weight_filler=filler(options),
        param=rates,
        name=name,
    )
    if global_ is None:
        n[blob] = L.Convolution(local, **convolution)
        return n[blob]
    n[name] = L.Convolution(local, **convolution)
    n[f"score{i}_global"] = L.InnerProduct(
        global_,
        num_output=options.num_classes,
        bias_term=False,
        weight_filler=filler(options),
        param=rates[:1],
    )
    n[blob] = L.Bias(n[name], n[f"score{i}_global"], axis=0, name=f"score{i}")
    return n[blob]
