"""What PyTorch's users do with modules: compile, export, autocast, channels last, DataParallel."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from convert_help import ROOT

torch = pytest.importorskip("torch", reason="needs PyTorch: see docs/convert.md")

from lglstm.caffe_files import random_weights, read_net  # noqa: E402
from lglstm.convert.torch import (  # noqa: E402
    LGLSTM,
    LGLSTMTransition,
    Losses,
    Net,
    load,
    load_checkpoint,
    save_checkpoint,
)

torch.set_num_threads(1)
SIZE = (33, 41)


@pytest.fixture(scope="module")
def net() -> Net:
    """The demo's deploy net."""
    plan = read_net(ROOT / "models" / "demo" / "deploy.prototxt", size=SIZE)
    return Net(plan.description()).load_weights(random_weights(plan, 1, contrast=60)).eval()


@pytest.fixture
def train_net() -> Net:
    plan = read_net(ROOT / "models" / "demo" / "train.prototxt", "TRAIN")
    return Net(plan.description()).load_weights(random_weights(plan, 1, contrast=60))


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    return 60 * torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def labels() -> torch.Tensor:
    ids = torch.randint(0, 5, (2, 1, 9, 11), generator=torch.Generator().manual_seed(2)).float()
    ids[0, :, :3] = 255
    return ids


def gradients(net: Net, loss: torch.Tensor) -> list[torch.Tensor]:
    return torch.autograd.grad(loss, list(net.parameters()))


def close(one: torch.Tensor, other: torch.Tensor, relative: float) -> None:
    assert (one - other).abs().max() <= relative * other.abs().max()


@pytest.mark.slow
def test_compile_takes_a_net_as_one_graph(train_net, photos, labels) -> None:
    compiled = torch.compile(train_net, backend="aot_eager", fullgraph=True)
    loss, expected = compiled(photos, labels), train_net(photos, labels)
    close(loss, expected, 1e-6)
    pairs = zip(gradients(train_net, loss), gradients(train_net, expected), strict=True)
    for one, other in pairs:
        close(one, other, 1e-4)


@pytest.mark.slow
def test_compiled_code_computes_the_same() -> None:
    """With PyTorch's own compiler, for the LG-LSTM layers."""
    torch.manual_seed(0)
    transition, layer = LGLSTMTransition(5, 4), LGLSTM(4)

    def scores(x: torch.Tensor) -> torch.Tensor:
        local, _, grid = layer(*layer(*transition(x)))
        return local.sum(dim=1) + grid.sum(dim=(1, 2, 3))[:, None, None]

    x = torch.randn(2, 5, 9, 7)
    with torch.no_grad():
        close(torch.compile(scores, fullgraph=True)(x), scores(x), 1e-5)


@pytest.mark.slow
def test_export_leaves_the_batch_free(net, photos) -> None:
    exported = torch.export.export(
        net, (photos,), dynamic_shapes={"inputs": ({0: torch.export.Dim("batch")},)}
    )
    more = torch.cat([photos, photos.flip(3)])
    with torch.no_grad():
        close(exported.module()(more), net(more), 1e-6)


@pytest.mark.slow
def test_a_traced_net_computes_the_same(net, photos) -> None:
    with torch.no_grad():
        traced = torch.jit.trace(net, photos)
        close(traced(photos.flip(3)), net(photos.flip(3)), 1e-6)


def test_channels_last_is_only_an_order_in_memory(train_net, photos, labels) -> None:
    expected = gradients(train_net, train_net(photos, labels))
    last = copy.deepcopy(train_net).to(memory_format=torch.channels_last)
    loss = last(photos.contiguous(memory_format=torch.channels_last), labels)
    close(loss, train_net(photos, labels), 1e-6)
    for one, other in zip(gradients(last, loss), expected, strict=True):
        close(one, other, 1e-4)


def test_bfloat16_is_close(train_net, photos, labels) -> None:
    """Losses stay in float32; the direction of the gradient stays within a few degrees."""
    with torch.autocast("cpu", torch.bfloat16):
        loss = train_net(photos, labels)
    assert loss.dtype == torch.float32
    expected = train_net(photos, labels)
    close(loss, expected, 0.02)
    one, other = (
        torch.cat([x.flatten() for x in gradients(train_net, value)]) for value in (loss, expected)
    )
    assert torch.cosine_similarity(one, other, dim=0) > 0.99


def test_losses_are_the_parts_of_the_sum(train_net, photos, labels) -> None:
    parts = Losses(train_net)(photos, labels)
    assert list(parts) == train_net.outputs and len(parts) > 2
    close(sum(parts.values()), train_net(photos, labels), 1e-6)


def replica(module: torch.nn.Module) -> torch.nn.Module:
    """A copy as DataParallel makes it: plain tensors in place of the parameters, shared ones once.

    DataParallel itself copies to GPUs alone; this is what it does to modules
    (torch/nn/parallel/replicate.py).
    """
    tensors = {id(p): p.detach().clone().requires_grad_() for p in module.parameters()}
    copies = {id(m): m._replicate_for_data_parallel() for m in module.modules()}
    for original in module.modules():
        made = copies[id(original)]
        for name, child in original._modules.items():
            made._modules[name] = copies[id(child)]
        for name, parameter in original._parameters.items():
            value = None if parameter is None else tensors[id(parameter)]
            setattr(made, name, value)
    return copies[id(module)]


def test_replicas_of_data_parallel_compute_the_same(train_net, photos, labels) -> None:
    parts = replica(Losses(train_net))(photos, labels)
    close(sum(parts.values()), train_net(photos, labels), 1e-6)
    wrapped = torch.nn.DataParallel(Losses(train_net))
    if torch.cuda.is_available():
        wrapped.cuda()
    close(sum(wrapped(photos, labels).values()).sum().cpu(), train_net(photos, labels), 1e-4)


def test_a_checkpoint_is_a_net_and_goes_on(tmp_path: Path, train_net, photos, labels) -> None:
    path, other = tmp_path / "a.pth", copy.deepcopy(train_net)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(other, torch.optim.Adam(other.parameters()), path)

    def step(net: Net, optimizer: torch.optim.Optimizer) -> float:
        optimizer.zero_grad()
        loss = net(photos, labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    optimizer = torch.optim.Adam(train_net.parameters(), lr=0.01)
    step(train_net, optimizer)
    save_checkpoint(train_net, optimizer, 1, path)
    same = dict(load(path, train=True).weights())
    assert all(torch.equal(same[key], value) for key, value in train_net.weights().items())

    resumed = torch.optim.Adam(other.parameters())
    assert load_checkpoint(other, resumed, path) == 1
    expected = [step(train_net, optimizer) for _ in range(2)]
    assert [step(other, resumed) for _ in range(2)] == expected

    content = path.read_bytes()
    for damaged in (b"", content[:5000], b"text", content.replace(b"iteration", b"iteratoin")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.pth: is no whole checkpoint of this net \("):
            load_checkpoint(other, resumed, path)
