"""What scripts/gpu_check.py works on: nets, solvers and pictures for Caffe and for PyTorch.

A kit is a folder that needs neither this repository nor Python layers: pictures come from HDF5
files, and all paths are relative to the folder.

    demo/      solver, train.prototxt, initial weights; the same net, weights and first batch for
               PyTorch
    <model>/   train.prototxt with its solver, deploy.prototxt, and stack.prototxt, the LG-LSTM
               layers alone; a description of each for PyTorch (.json)
    bin/       caffe, and the tests in C++
"""

from __future__ import annotations

import json
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import caffe
import h5py
import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from lglstm.caffe_files import read_caffemodel, read_net, weights_for
from lglstm.common.errors import InputError
from lglstm.common.labels import LABEL_SETS
from lglstm.common.preprocessing import to_blob, to_label_blob
from lglstm.data_prep.synthetic import draw_example
from lglstm.layers import seg_options
from lglstm.layers.image_labels import image_labels
from lglstm.layers.seg_batches import Batches
from lglstm.layers.seg_list import read_list
from lglstm.layers.seg_options import SegDataOptions

REPOSITORY = Path(__file__).resolve().parent.parent
BATCHES = 4  # of pictures for each net; Caffe begins again after the last
STACK = ("LGLSTMTransition", "LGLSTM")


def make(folder: Path, models: list[str], photos: Path | None = None) -> None:
    """Write the nets, solvers and data of a kit into `folder`.

    photos: a list of photos with as many classes as a model has (`data/fashionista/train.txt`);
    other models, and all without it, get drawn animals.
    """
    for model in dict.fromkeys(["demo", *models]):
        place = folder / model
        place.mkdir(parents=True)
        source = REPOSITORY / "models" / model
        if not source.is_dir():
            raise InputError(f"{source}: there is no such model; see models/README.md")
        _training(source, place, photos)
        _write_solver(source / "solver.prototxt", place)
        if model == "demo":
            _initial_weights(source, place, folder)
        if model in models:
            (place / "deploy.prototxt").write_text((source / "deploy.prototxt").read_text())
            _stack(source, place)
            for net in ("deploy", "stack"):
                _describe(place / f"{net}.prototxt", "TEST", place / f"{net}.json")


def _training(source: Path, place: Path, photos: Path | None) -> None:
    """The training net with its pictures in a file."""
    net = _read(source / "train.prototxt", caffe_pb2.NetParameter())
    options = seg_options.of_net(net, source)
    data = pictures(options, BATCHES * options.batch_size, photos)
    (place / "train.prototxt").write_text(text_format.MessageToString(with_file(net, data, place)))
    (place / "pictures.txt").write_text(f"{place.name}/pictures.h5\n")
    with h5py.File(place / "pictures.h5", "w") as file:
        for name, array in data.items():
            file.create_dataset(name, data=array, compression="gzip", shuffle=True)
    _describe(source / "train.prototxt", "TRAIN", place / "train.json")


def pictures(options: SegDataOptions, count: int, photos: Path | None) -> dict[str, np.ndarray]:
    """`count` inputs of a net, `data` (n, 3, H, W) and `label` (n, 1, h, w), float32."""
    data = np.empty((count, *options.data_shape[1:]), np.float32)
    label = np.empty((count, *options.label_shape[1:]), np.float32)
    if photos and options.num_classes == LABEL_SETS["atr"].num_classes:
        own = replace(options, list=str(photos), batch_size=count)
        Batches(own, read_list(photos)).fill(0, data, label)
    else:
        for i in range(count):
            picture, ids = draw_example(max(options.input_size), index=i)
            data[i] = to_blob(picture, options.input_size)
            label[i] = to_label_blob(ids, options.input_size, options.label_stride)
    return {"data": data, "label": label}


def with_file(
    net: caffe_pb2.NetParameter, data: dict[str, np.ndarray], place: Path
) -> caffe_pb2.NetParameter:
    """The net with an HDF5Data layer for its Python layers; adds to `data` what these compute."""
    batch = seg_options.of_net(net, place).batch_size
    result = caffe_pb2.NetParameter(name=net.name)
    reader = result.layer.add(name="pictures", type="HDF5Data", top=["data", "label"])
    reader.hdf5_data_param.source = f"{place.name}/pictures.txt"
    reader.hdf5_data_param.batch_size = batch
    for layer in net.layer:
        kind = layer.python_param.layer if layer.type == "Python" else ""
        if kind == "ImageLabels":
            [top] = layer.top
            classes = json.loads(layer.python_param.param_str)["num_classes"]
            data[top] = image_labels(data["label"], classes)
            reader.top.append(top)
        elif kind not in ("", "SegData"):
            raise InputError(f"{place.name}: the Python layer {kind} has no file to take its place")
        elif not kind:
            result.layer.append(layer)
    return result


def _write_solver(source: Path, place: Path) -> None:
    """The model's solver without what gpu_check.py decides: iterations and output."""
    solver = _read(source, caffe_pb2.SolverParameter())
    for field in ("test_net", "test_iter", "test_interval", "snapshot", "average_loss", "weights"):
        solver.ClearField(field)
    for field in ("max_iter", "display", "solver_mode", "snapshot_prefix"):
        solver.ClearField(field)
    solver.train_net = f"{place.name}/train.prototxt"
    solver.snapshot_after_train = False
    if place.name == "demo":
        # Adam divides by the size of gradients: of two runs, rounding alone would part the losses.
        solver.type, solver.base_lr = "SGD", 0.01
    (place / "solver.prototxt").write_text(text_format.MessageToString(solver))


def _initial_weights(source: Path, place: Path, folder: Path) -> None:
    """Weights from which Caffe and PyTorch compute the loss of the first batch."""
    caffe.set_random_seed(1)
    with chdir(folder):
        caffe.Net("demo/train.prototxt", caffe.TRAIN).save("demo/initial.caffemodel")
    with (place / "solver.prototxt").open("a") as solver:
        solver.write('weights: "demo/initial.caffemodel"\n')
    described = read_net(source / "train.prototxt", "TRAIN")
    weights = weights_for(described, read_caffemodel(place / "initial.caffemodel"), "initial")
    with h5py.File(place / "pictures.h5") as file:
        batch = described.inputs["data"][0]
        first = {f"input {name}": file[name][:batch] for name in described.inputs}
    np.savez_compressed(place / "first.npz", **weights, **first)


def _stack(source: Path, place: Path) -> None:
    """The LG-LSTM layers of a training net alone, on random features of the same shape.

    The loss is the sum of the last layer's local and global top; features get a gradient, too.
    """
    net = _read(source / "train.prototxt", caffe_pb2.NetParameter())
    described = read_net(source / "train.prototxt", "TRAIN")
    [shape] = [layer.bottom_shapes[0] for layer in described.layers if layer.type == STACK[0]]
    result = caffe_pb2.NetParameter(name=f"{place.name}_stack")
    features = result.layer.add(name="features", type="DummyData", top=["features"])
    features.dummy_data_param.shape.add().dim.extend(shape)
    features.dummy_data_param.data_filler.add(type="constant", value=0.5)
    result.layer.extend(layer for layer in net.layer if layer.type in STACK)
    if len(result.layer) < 3:
        raise InputError(f"{source}: has no LG-LSTM layers; name a model that has")
    result.layer[1].bottom[0] = "features"
    result.layer[1].propagate_down.append(True)
    result.layer[-1].loss_weight.extend([1, 0, 1])
    (place / "stack.prototxt").write_text(text_format.MessageToString(result))


def _describe(prototxt: Path, phase: str, to: Path) -> None:
    to.write_text(json.dumps(read_net(prototxt, phase).description()))


def _read(path: Path, message):
    return text_format.Parse(path.read_text(), message)
