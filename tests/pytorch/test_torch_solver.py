"""The optimizers and learning rates of lg_lstm_torch.solver are those of Caffe's solvers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: see docs/convert.md")
caffe = pytest.importorskip("caffe", reason="needs Caffe: make setup")

from lglstm.caffe_files import read_net  # noqa: E402
from lglstm.caffe_files.prototxt import read_message  # noqa: E402
from lglstm.caffe_files.schema import SolverParameter  # noqa: E402
from lglstm.convert.torch import Net  # noqa: E402
from lglstm.convert.torch.solver import learning_rate, make_optimizer, set_rate  # noqa: E402

ITERATIONS = 9
NET = """
layer { name: "in" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 }
  data_filler { type: "constant" value: 0.7 } data_filler { type: "constant" value: -1 } } }
layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc"
  param { lr_mult: 0.5 decay_mult: 2 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 2 weight_filler { type: "uniform" min: 0.2 max: 0.9 } } }
layer { name: "out" type: "InnerProduct" bottom: "fc" top: "out"
  param { lr_mult: 0 } param { name: "bias" lr_mult: 1 }
  inner_product_param { num_output: 2 weight_filler { type: "uniform" min: 0.2 max: 0.9 } } }
layer { name: "more" type: "InnerProduct" bottom: "fc" top: "more"
  param { decay_mult: 3 } param { name: "bias" decay_mult: 4 }
  inner_product_param { num_output: 2 weight_filler { type: "uniform" min: 0.2 max: 0.9 } } }
layer { name: "sum" type: "Eltwise" bottom: "out" bottom: "more" top: "sum" }
layer { name: "loss" type: "EuclideanLoss" bottom: "sum" bottom: "y" top: "loss" }
"""
POLICIES = {
    "fixed": "",
    "step": "gamma: 0.3 stepsize: 2",
    "multistep": "gamma: 0.3 stepvalue: 2 stepvalue: 3 stepvalue: 7",
    "exp": "gamma: 0.8",
    "inv": "gamma: 0.3 power: 0.7",
    "poly": "power: 1.3",
    "sigmoid": "gamma: 0.5 stepsize: 4",
}
SGD = 'type: "SGD" momentum: 0.9'


@pytest.mark.parametrize(
    ("rule", "policy"),
    [*((SGD, policy) for policy in POLICIES), ('type: "Adam" momentum: 0.8 delta: 0.01', "step")],
)
def test_weights_become_caffes(tmp_path: Path, rule: str, policy: str) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(
        f'train_net: "{tmp_path}/net.prototxt" base_lr: 0.05 weight_decay: 0.02 random_seed: 3 '
        f'max_iter: {ITERATIONS} lr_policy: "{policy}" {POLICIES[policy]} {rule}'
    )
    solver = read_message(tmp_path / "solver.prototxt", SolverParameter())
    plan = read_net(tmp_path / "net.prototxt", "TRAIN")
    assert plan.multipliers()["out.bias"] == (1, 4)
    of_caffe = caffe.get_solver(str(tmp_path / "solver.prototxt"))
    blobs = {
        key: of_caffe.net.params[layer.name][index]
        for layer in plan.layers
        for index, key in enumerate(layer.blobs.values())
    }
    net = Net(plan.description()).load_weights({key: blob.data for key, blob in blobs.items()})
    optimizer = make_optimizer(solver, net.weights(), plan.multipliers())
    x, y = torch.full((4, 3), 0.7), torch.full((4, 2), -1.0)
    start = {key: blob.data.copy() for key, blob in blobs.items()}
    for iteration in range(ITERATIONS):
        of_caffe.step(1)
        optimizer.zero_grad()
        net(x, y).backward()
        set_rate(optimizer, solver, iteration)
        optimizer.step()
        for key, blob in blobs.items():
            found = net.weights()[key].detach().numpy()
            np.testing.assert_allclose(found, blob.data, rtol=1e-5, atol=1e-6, err_msg=key)
    moved = {key for key, blob in blobs.items() if np.abs(blob.data - start[key]).max() > 1e-3}
    assert moved == blobs.keys() - {"out.weight"}


def test_the_statistics_of_batch_norm_do_not_learn(tmp_path: Path) -> None:
    norm = 'layer { name: "norm" type: "BatchNorm" bottom: "fc" top: "norm" }'
    start, end = NET.split('layer { name: "out"')
    end = end.replace('bottom: "fc"', 'bottom: "norm"')
    (tmp_path / "net.prototxt").write_text(f'{start}{norm} layer {{ name: "out"{end}')
    plan = read_net(tmp_path / "net.prototxt", "TRAIN")
    net = Net(plan.description())
    solver = SimpleNamespace(type="SGD", base_lr=1, momentum=0, weight_decay=0)
    make_optimizer(solver, net.weights(), plan.multipliers())
    net.eval()(torch.ones(4, 3), torch.ones(4, 2)).backward()
    learning = {key for key, weight in net.weights().items() if weight.requires_grad}
    assert learning == {"fc.weight", "fc.bias", "out.bias", "more.weight"}


def test_the_rate_stays_in_the_momentum() -> None:
    """After the rate has become zero, Caffe's weights move on, PyTorch's stand still."""
    weight = torch.nn.Parameter(torch.zeros(1))
    solver = SimpleNamespace(
        type="SGD", base_lr=1.0, momentum=0.5, weight_decay=0.0, lr_policy="step", stepsize=1,
        gamma=0.0,
    )  # fmt: skip
    optimizer = make_optimizer(solver, {"w": weight}, {"w": (1, 1)})
    for iteration, expected in enumerate((-1, -1.5, -1.75)):
        weight.grad = torch.ones(1)
        set_rate(optimizer, solver, iteration)
        optimizer.step()
        assert weight.item() == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "AdaGrad"}, "type is AdaGrad; only SGD and Adam"),
        ({"iter_size": 2}, "iter_size is 2; only 1"),
        ({"clip_gradients": 35.0}, "clip_gradients is 35.0; only -1"),
        ({"regularization_type": "L1"}, "regularization_type is L1; only L2"),
    ],
)
def test_what_is_not_implemented_is_refused(changes: dict, words: str) -> None:
    settings = {"type": "SGD", "base_lr": 1, "momentum": 0, "weight_decay": 0}
    with pytest.raises(ValueError, match=words):
        make_optimizer(SimpleNamespace(**settings | changes), {}, {})


def test_a_far_sigmoid_is_zero() -> None:
    solver = SimpleNamespace(lr_policy="sigmoid", base_lr=1, gamma=-0.01, stepsize=5_000)
    assert [learning_rate(solver, at) for at in (0, 5_000, 100_000)] == [1, 0.5, 0]


@pytest.mark.parametrize(
    ("policy", "words"), [("cosine", "lr_policy is 'cosine'"), ("step", "from 1 on")]
)
def test_bad_schedules_are_refused(policy: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        learning_rate(SimpleNamespace(lr_policy=policy, base_lr=1, stepsize=0), 0)
