"""Reading nets that predict: checked before Caffe sees them, since Caffe aborts on a bad one."""

from __future__ import annotations

from pathlib import Path

from lglstm import caffe_files
from lglstm.caffe_files import trusted
from lglstm.caffe_files.layer_types import is_fixed
from lglstm.caffe_files.prototxt import read_message
from lglstm.caffe_files.schema import LayerParameter, NetParameter
from lglstm.common.checkout import setup_advice
from lglstm.common.errors import InputError
from lglstm.common.models import ModelFiles, find_model
from lglstm.convert import caffe_process
from lglstm.layers import seg_options

INPUT, OUTPUT = "data", "score"

_CORRECT = "correct the prototxt"


def read_net(path: str | Path) -> NetParameter:
    """Read a prototxt into pycaffe's NetParameter, which knows the layers of this Caffe."""
    from caffe.proto import caffe_pb2

    return read_message(path, caffe_pb2.NetParameter())


def test_list(model: ModelFiles) -> Path | None:
    """The list of images that a model's test net reads; None if it has none. Needs no Caffe."""
    path = model.file.with_name("test.prototxt")
    if not path.is_file():
        return None
    for layer in seg_options.seg_data_layers(read_message(path, NetParameter())):
        return model.root / seg_options.parse(layer.python_param.param_str).list
    return None


def check_deploy(net: NetParameter, path: str | Path, trust_net: bool = False) -> None:
    """Refuse a net without input `data` and output `score`, or with layers this Caffe lacks.

    Also refused, without `trust_net`, are layers that read or write files or run code.
    """
    import caffe

    trusted.require_layers(net, path)
    known = set(caffe.layer_type_list())
    missing = sorted({layer.type for layer in net.layer} - known)
    if missing:
        raise InputError(
            f"{path}: this Caffe has no layer of type {', '.join(missing)}; {setup_advice()}"
        )
    inputs = [top for layer in net.layer if layer.type == "Input" for top in layer.top]
    tops = {top for layer in net.layer for top in layer.top}
    if inputs != [INPUT] or OUTPUT not in tops:
        raise InputError(
            f"{path}: not a deploy net, which has the input `{INPUT}` and the output `{OUTPUT}`; "
            "give the model's deploy.prototxt"
        )
    trusted.use_our_modules(net.layer)
    if not trust_net:
        trusted.check_layers(net.layer, path)


def check_builds(net: NetParameter, model: ModelFiles, test: Path | None = None) -> None:
    """Raise InputError for a net that Caffe cannot build, since it would end this process.

    net: of the deploy net of `model` and, where this is given, of its test net. One that our reader
    finds sound in a model that is named, not given by a path, is taken as it is; others are built
    in a process of their own first.
    """
    mistake = None
    for path in (model.file, test):
        if path is not None and mistake is None:
            mistake = _mistake(path)
    if mistake is None and _is_known(model):
        return
    reason = caffe_process.why_not_built(str(net))
    if reason is None:
        return
    if mistake and mistake.endswith(_CORRECT):
        raise InputError(mistake)
    raise InputError(f"{test or model.file}: Caffe cannot build this net ({reason}); {_CORRECT}")


def _mistake(path: Path) -> str | None:
    """What our reader says against a net, or None; it ends in _CORRECT unless only we lack it."""
    try:
        caffe_files.read_net(path, advice=_CORRECT)
    except InputError as error:
        return str(error)
    return None


def _is_known(model: ModelFiles) -> bool:
    """Whether it is the model that is found by its name."""
    try:
        return find_model(model.name).file.samefile(model.file)
    except (InputError, OSError):
        return False


def fixed_layers(net: NetParameter) -> tuple[str, ...]:
    """Layers that never learn (all lr_mult 0), such as the bilinear up-sampling of the scores."""
    return tuple(layer.name for layer in net.layer if is_fixed(layer))


def with_all_scores(
    deploy: NetParameter, test: NetParameter, path: str | Path, trust_net: bool = False
) -> tuple[NetParameter, dict[str, str]]:
    """Add to a deploy net the classifiers that only serve training, each scaled to full size.

    deploy, test: the two forms of one model. Returns the net and, from the first LG-LSTM layer's
    to the last one's, the name of each output (`score1` …, the last is `score`) and its blob.
    """
    produced = {top for layer in test.layer for top in layer.top}
    count = 0
    while f"score{count + 1}" in produced:
        count += 1
    if count < 2:
        raise InputError(
            f"{path}: has {count} score map, so there are no earlier layers to compare; "
            "leave out --all-layers"
        )
    net = type(deploy)()
    net.CopyFrom(deploy)
    present = {layer.name for layer in net.layer}
    tail = _downstream(deploy, f"score{count}")
    outputs = {}
    for k in range(1, count):
        for layer in _upstream(test, f"score{k}", present):
            net.layer.add().CopyFrom(layer)
            present.add(layer.name)
        outputs[f"score{k}"] = _append_tail(net, tail, count, k)
    trusted.use_our_modules(net.layer)
    if not trust_net:
        trusted.check_layers(net.layer, path)
    return net, {**outputs, OUTPUT: OUTPUT}


def _upstream(net: NetParameter, blob: str, present: set[str]) -> list[LayerParameter]:
    """The layers that lead to `blob`, in order, back to those already `present`."""
    needed: set[str] = {blob}
    layers: list[LayerParameter] = []
    for layer in reversed(net.layer):
        if needed.intersection(layer.top) and layer.name not in present:
            layers.append(layer)
            needed.update(layer.bottom)
    return layers[::-1]


def _downstream(net: NetParameter, blob: str) -> list[LayerParameter]:
    """The layers between `blob` and the output; none when the net's last scores are the output."""
    reached: set[str] = {blob}
    layers: list[LayerParameter] = []
    for layer in net.layer:
        if reached.intersection(layer.bottom) and not reached.issuperset(layer.top):
            layers.append(layer)
            reached.update(layer.top)
    return layers


def _append_tail(net: NetParameter, tail: list[LayerParameter], last: int, k: int) -> str:
    """Repeat the layers from score<last> to the output for score<k>; return the new blob."""
    renamed = {f"score{last}": f"score{k}"}
    for layer in tail:
        copy = net.layer.add()
        copy.CopyFrom(layer)
        copy.name = f"{layer.name}_of_score{k}"
        renamed.update({top: f"{top}_of_score{k}" for top in layer.top})
        copy.bottom[:] = [renamed.get(bottom, bottom) for bottom in layer.bottom]
        copy.top[:] = [renamed[top] for top in layer.top]
    return renamed.get(OUTPUT, f"score{k}")
