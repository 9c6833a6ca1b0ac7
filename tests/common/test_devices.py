"""Choosing the device: what is asked for is given or refused in one sentence."""

from __future__ import annotations

import pytest

pytest.importorskip("caffe", reason="needs Caffe: make setup")

from lglstm.common import devices
from lglstm.common.errors import InputError, UsageError


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs; what the driver says is all that is pretended."""
    monkeypatch.setattr(devices, "caffe_has_cuda", lambda: True)
    monkeypatch.setattr(devices, "gpu_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
def test_gpus_by_number_or_by_itself() -> None:
    assert devices.choose_gpus(None, cpu=False) == (0,)
    assert devices.choose_gpus(None, cpu=False, default=1) == (1,)
    assert devices.choose_gpus(None, cpu=False, default=2) == ()
    assert devices.choose_gpus("1", cpu=False) == (1,)
    assert devices.choose_gpus(None, cpu=True) == ()
    assert (devices.choose_gpu(1), devices.choose_gpu(), devices.choose_gpu(cpu=True)) == (
        1,
        0,
        None,
    )
    with pytest.raises(InputError, match="--gpu 2: this machine has 2 GPU"):
        devices.choose_gpu(2)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("asked", ["", "x", "0,", "0,0", "-1", "everything"])
def test_what_is_not_a_list_of_gpus_is_a_usage_error(asked: str) -> None:
    with pytest.raises(UsageError, match=f"^--gpu {asked}: give the number of a GPU"):
        devices.choose_gpus(asked, cpu=False)


def test_cpu_and_gpu_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--cpu and --gpu exclude each other"):
        devices.choose_gpus("0", cpu=True)


def test_devices_in_words() -> None:
    assert [devices.describe(gpus) for gpus in ((), (1,), (0, 1))] == ["CPU", "GPU 1", "GPUs 0, 1"]
