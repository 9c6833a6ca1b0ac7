"""Tiny nets, and `lglstm train` on them in processes of their own."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from caffe.proto import caffe_pb2

from lglstm.training.plan import TrainingPlan, TrainOptions, locked_plan

ROOT = Path(__file__).resolve().parents[1]

# Seconds that a tiny training may take on a machine that is busy with other things.
PATIENCE = 300


def make_plan(net: str = "./solver.prototxt", **options) -> TrainingPlan:
    """The plan of a training that nobody else begins meanwhile."""
    with locked_plan(TrainOptions(net, **options)) as plan:
        return plan


COMMAND = [sys.executable, "-m", "lglstm.cli.main", "train", "./solver.prototxt", "--cpu"]

# A layer that passes its bottom on: slowly, or with a NaN in batch number `nan_at`.
FAULTY = """
import json, time
import caffe

class Faulty(caffe.Layer):
    def setup(self, bottom, top):
        self.options = json.loads(self.param_str)
        self.count = 0
    def reshape(self, bottom, top):
        top[0].reshape(*(bottom[0].shape if bottom else (4, 3, 2, 5)))
    def forward(self, bottom, top):
        time.sleep(self.options.get("sleep", 0))
        top[0].data[...] = bottom[0].data if bottom else self.count
        if self.count == self.options.get("nan_at"):
            top[0].data[0] = float("nan")
        self.count += 1
    def backward(self, top, propagate_down, bottom):
        pass
"""

# Two losses, a weight that two layers share, dropout, and data in shuffled order.
NET = """
name: "tiny"
layer {{ name: "data" type: "HDF5Data" top: "image" top: "label"
  hdf5_data_param {{ source: "list.txt" batch_size: 4 shuffle: {shuffle} }}
  include {{ phase: TRAIN }} }}
layer {{ name: "test_data" type: "HDF5Data" top: "image" top: "label"
  hdf5_data_param {{ source: "list.txt" batch_size: 5 }} include {{ phase: TEST }} }}
layer {{ name: "slow" type: "Python" bottom: "image" top: "data"
  python_param {{ module: "faulty" layer: "Faulty" param_str: '{faulty}' }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 4 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "drop" type: "Dropout" bottom: "conv" top: "drop"
  dropout_param {{ dropout_ratio: {dropout} }} }}
layer {{ name: "score1" type: "InnerProduct" bottom: "drop" top: "score1"
  param {{ name: "shared" }} param {{ name: "shared_bias" }}
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "score2" type: "InnerProduct" bottom: "conv" top: "score2"
  param {{ name: "shared" }} param {{ name: "shared_bias" }}
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss1" type: "SoftmaxWithLoss" bottom: "score1" bottom: "label" top: "loss1" }}
layer {{ name: "loss2" type: "SoftmaxWithLoss" bottom: "score2" bottom: "label" top: "loss2"
  loss_weight: 0.5 }}
"""

# A net whose data layer keeps its position itself.
PHOTO_NET = """
layer { name: "train_data" type: "Python" top: "data" top: "label"
  param { lr_mult: 0 decay_mult: 0 }
  python_param { module: "lglstm.layers.seg_data" layer: "SegData" param_str: 'OPTIONS' } }
layer { name: "small" type: "Power" bottom: "data" top: "small" power_param { scale: 0.01 } }
layer { name: "conv" type: "Convolution" bottom: "small" top: "conv"
  convolution_param { num_output: 6 kernel_size: 4 stride: 4 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" }
layer { name: "score" type: "Convolution" bottom: "conv" top: "score"
  convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""

SOLVER = """
net: "net.prototxt" base_lr: 0.05 lr_policy: "step" stepsize: 30 gamma: 0.5 momentum: 0.9
weight_decay: 0.001 max_iter: 60 display: 1 snapshot: 12 snapshot_prefix: "runs/tiny"
test_iter: 2 test_interval: 20 random_seed: 7
"""


def write_net(folder: Path, shuffle="true", dropout=0.5, **faulty) -> None:
    text = NET.format(shuffle=shuffle, dropout=dropout, faulty=json.dumps(faulty))
    (folder / "net.prototxt").write_text(text)


def environment(folder: Path) -> dict[str, str]:
    here = {"PYTHONPATH": f"{ROOT}:{folder}", "OMP_NUM_THREADS": "1", "GLOG_minloglevel": "0"}
    return os.environ | here


def start(*arguments: str, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(folder),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def train(*arguments: str, folder: Path, status: int = 0) -> tuple[str, str]:
    process = start(*arguments, folder=folder)
    out, err = finish(process)
    assert process.returncode == status, err
    return out, err


def finish(process: subprocess.Popen) -> tuple[str, str]:
    try:
        return process.communicate(timeout=PATIENCE)
    finally:
        process.kill()


def wait_for_rows(folder: Path, count: int) -> None:
    path = folder / "runs/tiny.csv"
    for _ in range(100 * PATIENCE):
        if path.exists() and path.read_text().count("\n") > count:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {count} rows in {path}")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "runs/tiny.csv").open() as file:
        return list(csv.DictReader(file))


def results(folder: Path) -> list[dict[str, str]]:
    """The rows without what a clock measured."""
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows(folder)]


def weights(path: Path) -> list[np.ndarray]:
    net = caffe_pb2.NetParameter()
    net.ParseFromString(path.read_bytes())
    return [np.array(blob.data, np.float32) for layer in net.layer for blob in layer.blobs]


def same_weights(one: Path, other: Path) -> bool:
    pairs = zip(weights(one), weights(other), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)
