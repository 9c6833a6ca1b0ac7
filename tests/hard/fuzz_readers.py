"""Every reader of files that come from outside, with the sound files that damage starts from."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# Before NumPy and Caffe are loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GLOG_minloglevel", "2")

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "data_prep")]

import h5py  # noqa: E402
import mutations as how  # noqa: E402
import numpy as np  # noqa: E402
from convert_help import data, layer, lg_lstm_net  # noqa: E402
from data_help import box_mask, horse, photo_bytes, save_mat5, save_mat73  # noqa: E402
from PIL import Image  # noqa: E402
from test_fashionista import mat, sample  # noqa: E402

from lglstm.caffe_files import random_weights, read_caffemodel, read_net  # noqa: E402
from lglstm.caffe_files.costs import measure  # noqa: E402
from lglstm.caffe_files.net import Net, weights_for  # noqa: E402
from lglstm.caffe_files.prototxt import read_message, read_prototxt  # noqa: E402
from lglstm.caffe_files.schema import (  # noqa: E402
    LayerParameter,
    NetParameter,
    SolverParameter,
    message_class,
)
from lglstm.caffe_files.solverstate import read_solverstate  # noqa: E402
from lglstm.common.errors import InputError  # noqa: E402
from lglstm.common.images import read_label, read_pair, read_photo  # noqa: E402
from lglstm.common.labels import label_set  # noqa: E402
from lglstm.common.rules import check, parse_object  # noqa: E402
from lglstm.convert.description import KEY, Description, read_description  # noqa: E402
from lglstm.convert.init_weights import CONVOLUTIONS, LAYERS, initial_weights  # noqa: E402
from lglstm.convert.read import read_weights  # noqa: E402
from lglstm.convert.samples import Reference  # noqa: E402
from lglstm.data_prep import fashionista, horse_cow, prepare, sources  # noqa: E402
from lglstm.data_prep.check import label_set_of  # noqa: E402
from lglstm.data_prep.matfiles import count_structs, load_mat, stream_structs  # noqa: E402
from lglstm.data_prep.pairs import read_colors  # noqa: E402
from lglstm.evaluation import evaluation_json, paper  # noqa: E402
from lglstm.evaluation.image_list import read_image_list  # noqa: E402
from lglstm.evaluation.label_choice import choose_labels  # noqa: E402
from lglstm.evaluation.resume import claim  # noqa: E402
from lglstm.evaluation.tables import paper_tables  # noqa: E402
from lglstm.layers import image_labels, lg_lstm, seg_options  # noqa: E402
from lglstm.layers.seg_list import read_list  # noqa: E402
from lglstm.training import log, snapshots  # noqa: E402

try:
    import torch

    from lglstm.convert import torch as convert_torch

    torch.set_num_threads(1)
except ImportError:
    torch = None

Read = Callable[[Path], object]


@dataclass(frozen=True)
class Reader:
    """A reader of one kind of file.

    filename: what the file is called. seeds: sound files, and hostile ones that no damage makes.
    read: does what the commands do with such a file. mutations: blind damage is always one of them.
    allowed: exceptions besides InputError that the function's documentation promises.
    """

    name: str
    filename: str
    seeds: Sequence[bytes]
    read: Read
    mutations: Sequence[how.Mutation] = ()
    allowed: tuple[type[BaseException], ...] = ()


def make_readers(folder: Path) -> dict[str, Reader]:
    """All readers; files that they need besides the one that they read are made in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [
        *_nets(),
        *_weights(folder),
        *_matlab(folder),
        *_pictures(folder),
        *_lists(folder),
        *_options(),
        *_records(folder),
        *_descriptions(),
    ]
    return {reader.name: reader for reader in made}


# --- Nets -----------------------------------------------------------------------------------------

_LAYERS = {
    "AbsVal": "", "BatchNorm": "batch_norm_param { use_global_stats: true }",
    "Bias": "bias_param { axis: 1 }", "Clip": "clip_param { min: 0 max: 1 }",
    "Convolution": 'convolution_param { num_output: 4 kernel_h: 3 kernel_w: 1 pad: 1 group: 2 '
    'dilation: 2 weight_filler { type: "xavier" } }',
    "Deconvolution": 'convolution_param { num_output: 4 kernel_size: 4 stride: 2 group: 2 '
    'bias_term: false weight_filler { type: "bilinear" } } param { lr_mult: 0 }',
    "Dropout": "dropout_param { dropout_ratio: 0.3 }", "ELU": "elu_param { alpha: 0.5 }",
    "Flatten": "flatten_param { axis: 1 }", "InnerProduct": "inner_product_param { num_output: 5 }",
    "LRN": "lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }", "PReLU": "",
    "Pooling": "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }",
    "Power": "power_param { power: 2 scale: 0.5 }", "ReLU": "relu_param { negative_slope: 0.1 }",
    "Reshape": "reshape_param { axis: 1 shape { dim: 2 dim: -1 dim: 0 } }", "Sigmoid": "",
    "Scale": "scale_param { bias_term: true }", "Softmax": "", "TanH": "",
    "Tile": "tile_param { axis: 1 tiles: 2 }",
}  # fmt: skip

_BRANCHES = (
    data(1, 4, 6, 5)
    + layer("Slice", "s", "data", "a b", "slice_param { slice_point: 1 }")
    + layer("Concat", "c", "b a", "c")
    + layer("Split", "p", "c", "d e")
    + layer("Eltwise", "m", "d e", "m", "eltwise_param { coeff: 1 coeff: -1 }")
    + layer("Crop", "r", "m data", "r", "crop_param { axis: 2 offset: 0 }")
    + layer("Silence", "q", "r", "")
)

_V1 = """name: "old" input: "data" input_dim: 1 input_dim: 3 input_dim: 9 input_dim: 7
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2
  convolution_param { num_output: 4 kernel_size: 3 group: 1 } }
layers { name: "drop" type: DROPOUT bottom: "conv" top: "x" include { phase: TRAIN } }
"""


def _python(kind: str, module: str, ends: str, **options: object) -> str:
    bottoms, tops = ends.split(">")
    words = f'module: "lglstm.layers.{module}" layer: "{kind}" '
    words += f"param_str: {json.dumps(json.dumps(options))}"
    return layer("Python", kind.lower(), bottoms, tops, f"python_param {{ {words} }}")


_OWN = (
    _python("SegData", "seg_data", ">data label", list="a.txt", batch_size=1, input_size=[6, 5],
            label_stride=1, num_classes=3)
    + _python("LGLSTMTransition", "lg_lstm", "data>l m g", num_output=2, neighbors=4, global_grid=2)
    + _python("ImageLabels", "image_labels", "label>y", num_classes=3)
    + layer("Convolution", "score", "l", "score",
            "convolution_param { num_output: 3 kernel_size: 1 }")
    + layer("SoftmaxWithLoss", "loss", "score label", "loss", "loss_param { ignore_label: 255 }")
)  # fmt: skip

_SOLVER = """net: "models/demo/train.prototxt" base_lr: 0.01 lr_policy: "poly" power: 0.9
momentum: 0.9 weight_decay: 0.0005 max_iter: 100 snapshot: 10 snapshot_prefix: "runs/demo"
display: 1 type: "SGD" test_iter: 2 test_interval: 5
"""


def _net_texts() -> list[str]:
    texts = [data(2, 4, 6, 5) + layer(kind, "x", "data", "x", p) for kind, p in _LAYERS.items()]
    return [
        *texts,
        _BRANCHES,
        _V1,
        _OWN,
        lg_lstm_net(4, 2, True, True),
        lg_lstm_net(8, 0, False, False),
    ]


def _nets() -> list[Reader]:
    def net(path: Path) -> object:
        read = read_net(path)
        with contextlib.suppress(InputError):
            weights_for(read, [], "nothing")
        if sum(map(math.prod, read.weights.values())) < 1 << 20:
            random_weights(read, 1)
        return json.dumps(read.description())

    def summary(path: Path) -> object:
        return [
            (layer.multiply_adds, layer.workspace, layer.param_names)
            for layer in measure(read_prototxt(path, "TRAIN")[0], path)
        ]

    seeds = [text.encode() for text in _net_texts()]
    return [
        Reader("net", "net.prototxt", seeds, net, (how.prototxt,)),
        Reader("summary", "train.prototxt", seeds, summary, (how.prototxt,)),
        Reader(
            "solver",
            "solver.prototxt",
            [_SOLVER.encode()],
            lambda path: read_message(path, SolverParameter()),
            (how.text,),
        ),
    ]


# --- Weights --------------------------------------------------------------------------------------


def _net(folder: Path) -> Net:
    text = data(1, 4, 6, 5)
    text += layer(
        "Convolution", "conv", "data", "conv", "convolution_param { num_output: 2 kernel_size: 3 }"
    )
    text += layer("PReLU", "prelu", "conv", "conv", "prelu_param { channel_shared: true }")
    path = folder / "net.prototxt"
    path.write_text(text)
    return read_net(path)


def _weights(folder: Path) -> list[Reader]:
    net = _net(folder)
    weights = random_weights(net, 1)
    caffemodels, states = _caffe_seeds(net, weights)
    by_number = {
        f"{item.name}/{index}": weights[key]
        for item in net.layers
        for index, key in enumerate(item.blobs.values())
    }
    vgg = _small_vgg()
    shapes = {name: (vgg[f"{name}_w"].shape, (2,)) for name in LAYERS}

    def take(path: Path) -> object:
        return weights_for(net, read_weights(path, [net]).stored, str(path))

    def caffemodel(path: Path) -> object:
        return weights_for(net, read_caffemodel(path), str(path))

    def start(path: Path) -> object:
        return initial_weights(path, shapes, correct_mean=True)

    def snapshot(path: Path) -> object:
        with contextlib.suppress(snapshots.BrokenSnapshot):
            snapshots.verify(path)
        return read_solverstate(path)

    (folder / "a_iter_7.caffemodel").write_bytes(caffemodels[0])
    vgg_model = [(LayerParameter(name=n), [vgg[f"{n}_w"], vgg[f"{n}_b"]]) for n in LAYERS]
    npz = [_npz(by_number), _npz(by_number, packed=True)]
    readers = [
        Reader("caffemodel", "a.caffemodel", caffemodels, caffemodel, (how.wire,)),
        Reader("solverstate", "a_iter_7.solverstate", states, snapshot, (how.wire,)),
        Reader("npz", "a.npz", npz, take, (how.zipped, how.zipped)),
        Reader("hdf5", "a.h5", _hdf5_seeds(by_number), take),
        Reader("init npz", "vgg.npz", [_npz(vgg)], start, (how.zipped, how.zipped)),
        Reader("init caffemodel", "v.caffemodel", [_model(vgg_model)], start, (how.wire,)),
        Reader(
            "reference",
            "ref.npz",
            [_reference(net)],
            lambda path: Reference.load(path, net),
            (how.zipped, how.zipped),
        ),
    ]
    return [*readers, *_tensor_readers(net, weights, take, start)]


def _tensor_readers(net: Net, weights: dict, take: Read, start: Read) -> list[Reader]:
    from safetensors.numpy import save

    nets = json.dumps({"deploy": net.description()})
    torchvision = {name: np.ascontiguousarray(array) for name, array in _torchvision().items()}
    safe = [save(weights, {"nets": nets})]
    change = (how.safetensors, how.safetensors)
    readers = [
        Reader("safetensors", "a.safetensors", safe, take, change),
        Reader("init safetensors", "v.safetensors", [save(torchvision)], start, change),
    ]
    if torch is None:
        return readers
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
    pth = [
        _pth({"state_dict": tensors, "nets": nets}),
        _pth(tensors),
        _pth({"model": tensors}),
        _pth({f"module.{name}": tensor for name, tensor in tensors.items()}),
        _pth({name: tensor.bfloat16() for name, tensor in tensors.items()}),
        _pth([*tensors.values()]),
        _pth({name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}),
    ]
    vgg = _pth({name: torch.from_numpy(array) for name, array in torchvision.items()})
    load = convert_torch.load
    documented = (ValueError,)
    return [
        *readers,
        Reader("pth", "a.pth", pth, take, (how.zipped, how.zipped)),
        Reader("init pth", "v.pth", [vgg], start, (how.zipped,)),
        Reader("torch load pth", "a.pth", pth[:1], load, (how.zipped,), documented),
        Reader("torch load safetensors", "a.safetensors", safe, load, change, documented),
    ]


def _caffe_seeds(net: Net, weights: dict[str, np.ndarray]) -> tuple[list[bytes], list[bytes]]:
    blob_class, state = message_class("Blob"), message_class("SolverState")()
    layers = [(x.message, [weights[key] for key in x.blobs.values()]) for x in net.layers]
    today = _model(layers)
    old = NetParameter()
    double = blob_class(num=1, channels=1, height=1, width=2)
    double.double_data.append(np.array([1.0, 2.0]).tobytes())
    old.layers.add(name="fc", type=14, blobs=[double])
    raw = today + b"\xa2\x06\x0c\x0a\x01r\x3a\x07\x3a\x01\x01\x50\x02\x62\x00"
    state.iter, state.learned_net, state.current_step = 7, "a_iter_7.caffemodel", 0
    for array in weights.values():
        state.history.add(data=[array.tobytes()]).shape.dim.extend(array.shape)
    return [today, old.SerializeToString(), raw], [state.SerializeToString()]


def _model(layers: list) -> bytes:
    net = NetParameter(name="a")
    for message, arrays in layers:
        stored = net.layer.add(name=message.name, type=message.type)
        for array in arrays:
            blob = stored.blobs.add(data=[np.ascontiguousarray(array, "<f4").tobytes()])
            blob.shape.dim.extend(array.shape)
    return net.SerializeToString()


def _small_vgg() -> dict[str, np.ndarray]:
    """The names of a VGG-16 with two channels."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name in LAYERS:
        shape = {"conv1_1": (2, 3, 3, 3), "fc6": (2, 2, 3, 3), "fc7": (2, 2, 1, 1)}
        arrays[f"{name}_w"] = rng.random(shape.get(name, (2, 2, 3, 3)), np.float32)
        arrays[f"{name}_b"] = rng.random(2, np.float32)
    return arrays


def _torchvision() -> dict[str, np.ndarray]:
    from lglstm.convert.init_weights import TORCHVISION_NAMES

    vgg = _small_vgg()
    return {
        f"{theirs}.{kind}": vgg[f"{ours}_{short}"]
        for theirs, ours in TORCHVISION_NAMES.items()
        if ours in CONVOLUTIONS
        for kind, short in (("weight", "w"), ("bias", "b"))
    }


def _npz(arrays: dict[str, np.ndarray], packed: bool = False) -> bytes:
    out = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(out, **arrays)
    return out.getvalue()


def _pth(content: object) -> bytes:
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def _reference(net: Net) -> bytes:
    about = {"names": [["p"]], "weights_sha256": "0", "net_sha256": "1"}
    arrays = {f"in:0:{name}": np.zeros(shape, np.float32) for name, shape in net.inputs.items()}
    return _npz({**arrays, "out:0:conv": np.zeros(3), "about": np.array(json.dumps(about))})


def _hdf5_seeds(arrays: dict[str, np.ndarray]) -> list[bytes]:
    """Caffe's layout, in the ways that HDF5 has to store it, and links to elsewhere."""

    def made(fill: Callable[[h5py.Group], None], **options: object) -> bytes:
        out = io.BytesIO()
        with h5py.File(out, "w", **options) as file:
            group = file.create_group("data")
            for name, array in arrays.items():
                group[name] = array
            fill(group)
        return out.getvalue()

    def packed(group: h5py.Group) -> None:
        group.create_dataset("z/0", (64, 64), "f4", chunks=(8, 8), compression="gzip", fillvalue=1)

    def bomb(group: h5py.Group) -> None:
        group.create_dataset("z/0", (1 << 15, 1 << 15), "f4", chunks=(1 << 9, 1 << 9))

    def elsewhere(group: h5py.Group) -> None:
        group["z/0"] = h5py.ExternalLink("/etc/passwd", "data")
        group["y/0"] = h5py.SoftLink("/data")
        group["x"] = group
        group.create_dataset("w/0", (4,), "f4", external=[("/etc/passwd", 0, 16)])

    return [
        made(lambda group: None),
        made(lambda group: None, libver="latest"),
        *map(made, (packed, bomb, elsewhere)),
    ]


# --- MATLAB ---------------------------------------------------------------------------------------


def _matlab(folder: Path) -> list[Reader]:
    photos = folder / "photos"
    photos.mkdir(exist_ok=True)
    (photos / "a.jpg").write_bytes(photo_bytes((60, 90)))
    options = horse_cow.HorseCowOptions(smallest=1)

    def plain(path: Path, variables: dict) -> None:
        save_mat5(path, variables, compressed=False)

    def animals(path: Path) -> object:
        return horse_cow.convert(horse_cow.Annotation("a", path, photos, options))

    def people(path: Path) -> object:
        data_set = fashionista.data_set(path)
        return [data_set.convert(task.payload) for task in data_set.tasks()]

    def values(path: Path) -> object:
        return load_mat(path), count_structs(path, "truths"), [*stream_structs(path, "truths")]

    readers = []
    for save, version, change in (
        (save_mat5, "5 packed", (how.mat5, how.mat5)),
        (plain, "5", ()),
        (save_mat73, "7.3", ()),
    ):
        path = folder / "seed.mat"
        save(path, {"anno": [{"imname": "a", "objects": [horse()]}]})
        horses = path.read_bytes()
        save(path, {"map": box_mask((60, 90), 5, 5, 20, 30)})
        merged = path.read_bytes()
        mat(path, [sample([("coat", 4, 4, 9, 9)], shape=(24, 16))], save=save)
        persons = path.read_bytes()
        save(path, {"truths": [{"a": "text"}, {"a": ""}], "cells": ["c", np.eye(2)]})
        small = path.read_bytes()
        readers += [
            Reader(f"horses, mat {version}", "a.mat", [horses, merged], animals, change),
            Reader(f"people, mat {version}", "f.mat", [persons], people, change),
            Reader(f"mat {version}", "v.mat", [small, merged], values, change),
        ]
    return readers


# --- Pictures -------------------------------------------------------------------------------------


def _pictures(folder: Path) -> list[Reader]:
    photo, ids = folder / "p.png", np.arange(20 * 30, dtype=np.uint8).reshape(20, 30) % 5
    photo.write_bytes(photo_bytes((20, 30), "PNG"))
    readers = []
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF"):
        seeds = [photo_bytes((20, 30), kind)]
        for mode, options in _variants(kind):
            out = io.BytesIO()
            Image.open(photo).convert(mode).save(out, kind, **options)
            seeds.append(out.getvalue())
        change = (how.png, how.png) if kind == "PNG" else ()
        suffix = {"JPEG": "jpg", "TIFF": "tif"}.get(kind, kind.lower())
        readers.append(Reader(kind, f"a.{suffix}", seeds, read_photo, change))
    labels = []
    for mode in ("L", "P", "1", "I;16"):
        out = io.BytesIO()
        picture = Image.fromarray(ids.astype(np.uint16) if mode == "I;16" else ids)
        if mode == "P":
            picture.putpalette(label_set("horse").palette.tobytes())
        (picture.convert(mode) if mode in ("1", "L") else picture).save(out, "PNG")
        labels.append(out.getvalue())
    return [
        *readers,
        Reader("label map", "l.png", labels, lambda path: read_label(path, 5), (how.png, how.png)),
        Reader("pair", "l.png", labels, lambda path: read_pair(photo, path, 5), (how.png,)),
    ]


def _variants(kind: str) -> list[tuple[str, dict]]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "JPEG": [("L", {}), ("CMYK", {}), ("RGB", {"progressive": True}), ("RGB", {"exif": exif})],
        "PNG": [("P", {}), ("RGBA", {}), ("1", {}), ("I;16", {}), ("LA", {"exif": exif})],
        "WEBP": [("RGBA", {"lossless": True}), ("RGB", {"exif": exif})],
        "BMP": [("L", {}), ("P", {}), ("1", {})],
        "TIFF": [("L", {}), ("F", {}), ("RGB", {"compression": "tiff_lzw"}), ("I;16", {}),
                 ("CMYK", {"compression": "tiff_adobe_deflate"}), ("RGB", {"exif": exif}),
                 ("1", {"compression": "group4"}), ("RGB", {"compression": "jpeg"})],
        "PPM": [("L", {}), ("1", {}), ("I;16", {})],
        "GIF": [("L", {}), ("P", {})],
    }[kind]  # fmt: skip


# --- Lists ----------------------------------------------------------------------------------------


def _lists(folder: Path) -> list[Reader]:
    root = folder / "set"
    for name in ("images/0.jpg", "images/1 b.jpg", "labels/0.png", "labels/1 b.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    lines = ["images/0.jpg labels/0.png\n", "images/1 b.jpg\tlabels/1 b.png\n"]
    seeds = [
        "".join(lines).encode(),
        "\r\n".join(lines).encode(),
        b"\xef\xbb\xbf" + lines[0].encode(),
    ]
    seeds += [b"/images/0.jpg /labels/0.png\n"]
    names = [b"2008_000008\n2008_000026_2\n", b"2008_000008 1\n2008_000015 -1\n"]

    def splits(path: Path) -> object:
        return sources.read_splits({"train": path}, lambda name: True, root)

    return [
        Reader("list", "train.txt", seeds, lambda path: read_list(path, root), (how.text,)),
        Reader(
            "image list", "test.txt", seeds, lambda path: read_image_list(path, root), (how.text,)
        ),
        Reader("names", "names.txt", names, splits, (how.text,)),
    ]


# --- param_str ------------------------------------------------------------------------------------


def _options() -> list[Reader]:
    seg_data = {
        "list": "a.txt", "root": "b", "batch_size": 2, "input_size": [321, 321], "num_classes": 5,
        "label_stride": 8, "ignore_label": 255, "mean": [104, 117, 123.5], "mirror_swaps": [[1, 2]],
        "train": True, "seed": 3, "prefetch": 4, "workers": 0, "rank": 0, "world_size": 1,
        **seg_options.HORSE_COW_AUGMENTATION,
    }  # fmt: skip
    lstm = {"num_output": 4, "neighbors": 8, "global_grid": 3, "share_spatial": True}
    lstm |= {"bias_term": False, "weight_filler": {"type": "uniform", "min": -0.1, "max": 0.1}}
    change = (how.json_tree, how.json_tree, how.text)

    def decoded(path: Path) -> str:
        return path.read_bytes().decode(errors="replace")

    def filled(path: Path) -> object:
        options = lg_lstm.parse_options("LGLSTM", decoded(path))
        return lg_lstm.filled("LGLSTM", (2, 2), options.weight_filler or {})

    def classes(path: Path) -> object:
        given = parse_object("ImageLabels", decoded(path), "{}")
        return check("ImageLabels", given, image_labels.RULES, ["num_classes"])

    def batches(path: Path) -> object:
        options = seg_options.parse(decoded(path))
        return options.data_shape, options.label_shape, seg_options.parse(options.to_json())

    return [
        Reader("SegData", "a.json", [json.dumps(seg_data).encode()], batches, change),
        Reader("LGLSTM", "a.json", [json.dumps(lstm).encode()], filled, change),
        Reader("ImageLabels", "a.json", [b'{"num_classes": 5}'], classes, change),
    ]


# --- Records of runs and data sets ----------------------------------------------------------------


def _records(folder: Path) -> list[Reader]:
    change = (how.json_tree, how.json_tree, how.text)
    labels = label_set("horse")
    journal = prepare.DataSet("x", labels, {"a": "train"}, list, horse_cow.convert)

    def evaluation(path: Path) -> object:
        result = evaluation_json.read(path)
        ours = {"horse.lg_lstm": result.percents, result.provenance.row or "": result.percents}
        texts = (f"{result.images:,}", result.provenance.finished < "2026", str(result.provenance))
        return texts, [paper_tables(b, ours, 80) for n in range(1, 6) for b in paper.blocks_of(n)]

    def dataset(path: Path) -> object:
        return label_set_of(path.parent), choose_labels(None, None, None, path.parent / "a.txt")

    def curves(path: Path) -> object:
        run = log.read(path)
        return [log.curve(c) for c in (*run.losses.values(), *run.tests.values())]

    def continued(path: Path) -> object:
        return log.CsvLog(path, ["iteration", "total_loss", "lr"], 2).close()

    csv = b"iteration,total_loss,loss1,lr,seconds,test_loss\n0,1.5,1,0.1,1,\n1,1.25,1,0.1,1,2\n"
    head = json.dumps(prepare._Journal(folder, journal).head)
    entry = {"task": "a", "files": [["p.png", "p.png"]], "counts": {"x": 1}, "error": ""}
    note = {"deploy_sha256": "0", "weights_sha256": "1", "labels": "horse"}
    ours = {"set": "pairs", "label_set": labels.to_json(), "examples": {"train": 3}, "counts": {}}
    return [
        Reader("evaluation.json", "evaluation.json", [_evaluation()], evaluation, change),
        Reader("dataset.json", "dataset.json", [json.dumps(ours).encode()], dataset, change),
        Reader(
            "labels",
            "labels.json",
            [labels.to_text().encode()],
            lambda path: label_set(str(path)).palette,
            change,
        ),
        Reader(
            "colors",
            "colors.json",
            [b'{"a": [0, 0, 0], "b": [0, 128, 0], "ignore": [9, 9, 9]}'],
            lambda path: read_colors(path, None),
            change,
        ),
        Reader(
            "journal",
            "prepared.jsonl",
            [f"{head}\n{json.dumps(entry)}\n".encode()],
            lambda path: prepare._Journal(path.parent, journal).read(),
            change,
        ),
        Reader(
            "predictions.json",
            "predictions.json",
            [json.dumps(note).encode()],
            lambda path: claim(path.parent, note, ()),
            change,
        ),
        Reader("csv", "a.csv", [csv], curves, (how.text, how.text)),
        Reader(
            "csv continued",
            "a.csv",
            [b"iteration,total_loss,lr\n0,1.5,0.1\n1,1.25,0.1\n2,1,0.1\n"],
            continued,
            (how.text, how.text),
        ),
        Reader("caffe log", "a.log", [_LOG.encode()], curves, (how.text, how.text)),
    ]


_LOG = """I1 solver.cpp:218] Iteration 0 (0 iter/s, 1s/20 iters), loss = 1.5
I1 solver.cpp:237]     Train net output #0: loss = 1.5 (* 1 = 1.5 loss)
I1 solver.cpp:330] Iteration 0, Testing net (#0)
I1 solver.cpp:397]     Test net output #0: accuracy = 0.5
I1 solver.cpp:397]     Test net output #1: loss = 1.25 (* 1 = 1.25 loss)
I1 solver.cpp:218] Iteration 20 (3.1 iter/s, 1s/20 iters), loss = 0.25
"""


def _descriptions() -> list[Reader]:
    """What converted files say of themselves."""
    import onnx
    from onnx import helper
    from safetensors.numpy import save

    labels = label_set("horse")
    about = Description("demo", labels, (97, 97), "demo.caffemodel", "0" * 64, ("score",))
    text = about.to_text()
    safe = save({"a": np.zeros(2, np.float32)}, {KEY: text})
    value = helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [2])
    model = helper.make_model(helper.make_graph([], "net", [value], [value]))
    helper.set_model_props(model, {KEY: text})
    packed = model.SerializeToString()
    change = (how.json_tree, how.json_tree, how.text)
    return [
        Reader(
            "description",
            "a.json",
            [text.encode()],
            lambda path: Description.from_text(path.read_text(errors="replace"), "a"),
            change,
        ),
        Reader("safetensors described", "a.safetensors", [safe], read_description, (how.text,)),
        Reader("onnx described", "a.onnx", [packed], read_description, (how.wire,)),
    ]


def _evaluation() -> bytes:
    metrics = {"mean_iou": 0.5, "pixel_accuracy": 0.75, "iou": {"head": 0.5, "tail": None}}
    contents = {
        "format": evaluation_json.FORMAT, "model": "horse", "weights": "w.caffemodel",
        "weights_sha256": "0", "predictions": "p", "list": "test.txt", "labels": "horse",
        "row": "horse.lg_lstm", "finished": "2026-01-01T00:00:00+00:00", "warnings": [],
        "images": 3, "table": [], "metrics": metrics, "layers": {}, "per_image": [],
    }  # fmt: skip
    return json.dumps(contents).encode()
