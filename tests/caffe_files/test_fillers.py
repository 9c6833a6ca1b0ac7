"""Our fillers have the distributions of Caffe's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from convert_help import data, layer

from lglstm.caffe_files import read_net, weights_for
from lglstm.caffe_files.fillers import fill
from lglstm.caffe_files.schema import message_class
from lglstm.common.errors import InputError

SHAPE = (60, 20, 3, 5)
FILLERS = {
    "constant": {"value": 0.3},
    "bilinear": {},
    "uniform": {"min": -0.2, "max": 0.7},
    "gaussian": {"mean": 0.1, "std": 0.4},
    "xavier": {},
    "msra": {},
    "xavier_out": {"variance_norm": 1},
    "msra_average": {"variance_norm": 2},
}


@pytest.mark.parametrize("name", FILLERS)
def test_distributions_are_caffes(tmp_path: Path, name: str) -> None:
    caffe = pytest.importorskip("caffe", reason="needs Caffe: make setup")
    filler = message_class("Filler")(type=name.partition("_")[0], **FILLERS[name])
    shape = (2, 1, 4, 4) if name == "bilinear" else SHAPE
    dims = " ".join(f"dim: {size}" for size in shape)
    words = f"dummy_data_param {{ shape {{ {dims} }} data_filler {{ {filler} }} }}"
    (tmp_path / "net.prototxt").write_text(layer("DummyData", "x", "", "x", words))
    caffe.set_random_seed(1)
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    net.forward()
    expected = net.blobs["x"].data
    found = fill(filler, shape, np.random.default_rng(1))
    assert found is not None and found.dtype == np.float32 and found.shape == expected.shape
    if name in ("constant", "bilinear"):
        np.testing.assert_array_equal(found, expected)
    else:
        parts = np.linspace(0.02, 0.98, 25)
        one, other = np.quantile(found, parts), np.quantile(expected, parts)
        assert np.abs(one - other).max() < 0.05 * expected.std()


def test_a_start_takes_fillers_and_says_what_has_none(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    words = "inner_product_param {{ num_output: 2 {} }}"
    text = data(2, 3, 4, 5)
    text += layer("LGLSTMTransition", "t", "data", "a b",
                  "lg_lstm_param { num_output: 2 neighbors: 2 global_grid: 0 bias_term: true "
                  'weight_filler { type: "uniform" min: 3 max: 4 } }')  # fmt: skip
    text += layer("LGLSTM", "l", "a b", "c d",
                  "lg_lstm_param { num_output: 2 neighbors: 2 global_grid: 0 bias_term: true "
                  'weight_filler { type: "uniform" min: 5 max: 6 } }')  # fmt: skip
    path.write_text(text + layer("InnerProduct", "fc", "c", "fc", words.format("")))
    with pytest.raises(InputError, match=r'line 4: layer "fc" has no filler for its weight, and'):
        weights_for(read_net(path), [], "no file", np.random.default_rng(0))
    path.write_text(text)
    weights = weights_for(read_net(path), [], "no file", np.random.default_rng(0))
    assert weights["t.weight"].min() >= 3 and weights["t.weight"].max() <= 4
    assert all(weights[f"l.{x}"].min() >= 5 and weights[f"l.{x}"].max() <= 6
               for x in ("spatial", "depth"))  # fmt: skip
    assert not any(weights[f"{x}"].any() for x in ("t.bias", "l.spatial_bias", "l.depth_bias"))
    with pytest.raises(InputError, match='has no layer "t"'):  # not a start: never a guess
        weights_for(read_net(path), [], "no file")
