"""schema.py, which is written by hand, against the messages of the Caffe that is built here."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from lglstm.caffe_files.schema import V1_LAYER_TYPES, message_class

caffe = pytest.importorskip("caffe", reason="needs Caffe: make setup")
caffe_pb2 = caffe.proto.caffe_pb2

ROOTS = ("NetParameter", "SolverParameter", "SolverState")
PACKED_AS_BYTES = {"data": FieldDescriptor.TYPE_FLOAT, "double_data": FieldDescriptor.TYPE_DOUBLE}


def pairs() -> dict[str, tuple[Descriptor, Descriptor]]:
    """Our messages beside Caffe's, from the roots down through the fields' types."""
    found: dict[str, tuple[Descriptor, Descriptor]] = {}
    waiting = [(message_class(name).DESCRIPTOR, getattr(caffe_pb2, name).DESCRIPTOR)
               for name in ROOTS]  # fmt: skip
    while waiting:
        ours, theirs = waiting.pop()
        if f"{ours.name}-{theirs.name}" in found:
            continue
        found[f"{ours.name}-{theirs.name}"] = (ours, theirs)
        for field in ours.fields:
            other = theirs.fields_by_name.get(field.name)
            if field.message_type and other is not None and other.message_type:
                waiting.append((field.message_type, other.message_type))
    return found


PAIRS = pairs()


def values(enum: EnumDescriptor) -> dict[str, int]:
    return {value.name: value.number for value in enum.values}


def differences(ours: Descriptor, theirs: Descriptor) -> list[str]:
    """What Caffe declares otherwise: number, type, label, default and the values of enums."""
    wrong = []
    for field in ours.fields:
        other = theirs.fields_by_name.get(field.name)
        if other is None:
            wrong.append(f"{field.name}: Caffe has no such field")
            continue
        as_bytes = ours.name == "Blob" and field.name in PACKED_AS_BYTES
        kind = PACKED_AS_BYTES[field.name] if as_bytes else field.type
        checks = {
            "number": (field.number, other.number),
            "type": (kind, other.type),
            "repeated": (field.is_repeated, other.is_repeated),
            "enum": (field.enum_type and values(field.enum_type),
                     other.enum_type and values(other.enum_type)),
        }  # fmt: skip
        if not field.is_repeated and not field.message_type:
            given, expected = field.default_value, other.default_value
            if isinstance(given, float):
                given, expected = np.float32(given), np.float32(expected)
            checks["default"] = (given, expected)
        wrong += [
            f"{field.name}: {what} {ours_} instead of {theirs_}"
            for what, (ours_, theirs_) in checks.items()
            if ours_ != theirs_
        ]
    return wrong


@pytest.mark.parametrize("pair", PAIRS)
def test_fields_are_caffes(pair):
    assert differences(*PAIRS[pair]) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ("PoolingParameter", "ConvolutionParameter", "pool: Caffe has no such field"),
        ("PoolingParameter", "ConvolutionParameter", "pad: number 4 instead of 3"),
        ("PoolingParameter", "ConvolutionParameter", "stride: repeated False instead of True"),
        ("ConcatParameter", "ArgMaxParameter", "axis: default 1 instead of 0"),
        ("ParamSpec", "FillerParameter", "name: Caffe has no such field"),
        ("Blob", "BlobShape", "shape: Caffe has no such field"),
    ],
)
def test_the_comparison_sees_a_difference(ours, theirs, expected):
    """Between messages that are not the same."""
    other = getattr(caffe_pb2, theirs).DESCRIPTOR
    assert expected in differences(message_class(ours).DESCRIPTOR, other)


def test_every_message_of_the_schema_is_compared():
    package = message_class("NetParameter").DESCRIPTOR.file.message_types_by_name
    messages = {name for name, message in package.items() if not message.enum_types}
    assert messages == {pair.partition("-")[0] for pair in PAIRS}


def test_the_solver_is_declared_whole():
    """So that a solver file is read strictly: an unknown field is a mistake in it."""
    ours = message_class("SolverParameter").DESCRIPTOR.fields_by_name.keys()
    assert set(ours) == set(caffe_pb2.SolverParameter.DESCRIPTOR.fields_by_name)


def test_older_layer_types_are_caffes():
    """By number, and by today's name a layer that this Caffe makes; NONE is no layer."""
    numbers = dict(caffe_pb2.V1LayerParameter.LayerType.items())
    assert set(V1_LAYER_TYPES) == set(numbers.values())
    made = {name for number, name in V1_LAYER_TYPES.items() if number != numbers["NONE"]}
    assert made <= set(caffe.layer_type_list())
    assert V1_LAYER_TYPES[numbers["SOFTMAX_LOSS"]] == "SoftmaxWithLoss"
