"""The part of Caffe's file format that this project reads, as protobuf messages built in Python.

Field numbers and names are the file format. The messages live in a package and a descriptor pool of
their own, so that `import caffe` in the same process, which registers Caffe's, does no harm.

A blob's `data` and `double_data` are declared as bytes: a packed list of numbers has the same form
on the wire, and as bytes it becomes a NumPy array without a Python object per number.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "lglstm.caffe_files"
_FILE = "lglstm_caffe_files.proto"

_ENUMS = {
    "Phase": {"TRAIN": 0, "TEST": 1},
    "Engine": {"DEFAULT": 0, "CAFFE": 1, "CUDNN": 2},
    "ConvolutionEngine": {
        "DEFAULT": 0, "CAFFE": 1, "CUDNN": 2, "ONEDNN": 3, "ONEDNN_WINOGRAD": 4,
    },
    "VarianceNorm": {"FAN_IN": 0, "FAN_OUT": 1, "AVERAGE": 2},
    "DimCheckMode": {"STRICT": 0, "PERMISSIVE": 1},
    "NormalizationMode": {"FULL": 0, "VALID": 1, "BATCH_SIZE": 2, "NONE": 3},
    "EltwiseOp": {"PROD": 0, "SUM": 1, "MAX": 2},
    "PoolMethod": {"MAX": 0, "AVE": 1, "STOCHASTIC": 2},
    "RoundMode": {"CEIL": 0, "FLOOR": 1},
    "NormRegion": {"ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1},
    "SnapshotFormat": {"HDF5": 0, "BINARYPROTO": 1},
    "SolverMode": {"CPU": 0, "GPU": 1},
    "SolverType": {
        "SGD": 0, "NESTEROV": 1, "ADAGRAD": 2, "RMSPROP": 3, "ADADELTA": 4, "ADAM": 5,
    },
    "V1LayerType": {
        "NONE": 0, "ACCURACY": 1, "BNLL": 2, "CONCAT": 3, "CONVOLUTION": 4, "DATA": 5,
        "DROPOUT": 6, "EUCLIDEAN_LOSS": 7, "FLATTEN": 8, "HDF5_DATA": 9, "HDF5_OUTPUT": 10,
        "IM2COL": 11, "IMAGE_DATA": 12, "INFOGAIN_LOSS": 13, "INNER_PRODUCT": 14, "LRN": 15,
        "MULTINOMIAL_LOGISTIC_LOSS": 16, "POOLING": 17, "RELU": 18, "SIGMOID": 19, "SOFTMAX": 20,
        "SOFTMAX_LOSS": 21, "SPLIT": 22, "TANH": 23, "WINDOW_DATA": 24, "ELTWISE": 25, "POWER": 26,
        "SIGMOID_CROSS_ENTROPY_LOSS": 27, "HINGE_LOSS": 28, "MEMORY_DATA": 29, "ARGMAX": 30,
        "THRESHOLD": 31, "DUMMY_DATA": 32, "SLICE": 33, "MVN": 34, "ABSVAL": 35, "SILENCE": 36,
        "CONTRASTIVE_LOSS": 37, "EXP": 38, "DECONVOLUTION": 39,
    },
}  # fmt: skip

# A field is "type name = number [default]"; a repeated one has "*" before its type.
_MESSAGES = {
    "BlobShape": "*int64 dim = 1",
    "Blob": """
        BlobShape shape = 7
        *bytes data = 5
        *bytes double_data = 8
        int32 num = 1
        int32 channels = 2
        int32 height = 3
        int32 width = 4""",
    "Filler": """
        string type = 1 constant
        float value = 2 0
        float min = 3 0
        float max = 4 1
        float mean = 5 0
        float std = 6 1
        int32 sparse = 7 -1
        VarianceNorm variance_norm = 8 FAN_IN""",
    "NetParameter": """
        string name = 1
        *V1LayerParameter layers = 2
        *string input = 3
        *int32 input_dim = 4
        bool force_backward = 5
        NetState state = 6
        bool debug_info = 7
        *BlobShape input_shape = 8
        *LayerParameter layer = 100""",
    "SolverParameter": """
        string train_net = 1
        *string test_net = 2
        *int32 test_iter = 3
        int32 test_interval = 4 0
        float base_lr = 5
        int32 display = 6
        int32 max_iter = 7
        string lr_policy = 8
        float gamma = 9
        float power = 10
        float momentum = 11
        float weight_decay = 12
        int32 stepsize = 13
        int32 snapshot = 14 0
        string snapshot_prefix = 15
        bool snapshot_diff = 16 false
        SolverMode solver_mode = 17 GPU
        int32 device_id = 18 0
        bool test_compute_loss = 19 false
        int64 random_seed = 20 -1
        NetParameter train_net_param = 21
        *NetParameter test_net_param = 22
        bool debug_info = 23 false
        string net = 24
        NetParameter net_param = 25
        NetState train_state = 26
        *NetState test_state = 27
        bool snapshot_after_train = 28 true
        string regularization_type = 29 L2
        SolverType solver_type = 30 SGD
        float delta = 31 1e-8
        bool test_initialization = 32 true
        int32 average_loss = 33 1
        *int32 stepvalue = 34
        float clip_gradients = 35 -1
        int32 iter_size = 36 1
        SnapshotFormat snapshot_format = 37 BINARYPROTO
        float rms_decay = 38 0.99
        float momentum2 = 39 0.999
        string type = 40 SGD
        bool layer_wise_reduce = 41 true
        *string weights = 42""",
    "SolverState": """
        int32 iter = 1
        string learned_net = 2
        *Blob history = 3
        int32 current_step = 4 0""",
    "NetState": """
        Phase phase = 1 TEST
        int32 level = 2 0
        *string stage = 3""",
    "NetStateRule": """
        Phase phase = 1
        int32 min_level = 2
        int32 max_level = 3
        *string stage = 4
        *string not_stage = 5""",
    "ParamSpec": """
        string name = 1
        DimCheckMode share_mode = 2
        float lr_mult = 3 1
        float decay_mult = 4 1""",
    "LayerParameter": """
        string name = 1
        string type = 2
        *string bottom = 3
        *string top = 4
        *float loss_weight = 5
        *ParamSpec param = 6
        *Blob blobs = 7
        *NetStateRule include = 8
        *NetStateRule exclude = 9
        Phase phase = 10
        *bool propagate_down = 11
        TransformationParameter transform_param = 100
        LossParameter loss_param = 101
        AccuracyParameter accuracy_param = 102
        ArgMaxParameter argmax_param = 103
        ConcatParameter concat_param = 104
        ConvolutionParameter convolution_param = 106
        DropoutParameter dropout_param = 108
        DummyDataParameter dummy_data_param = 109
        EltwiseParameter eltwise_param = 110
        ExpParameter exp_param = 111
        InnerProductParameter inner_product_param = 117
        LRNParameter lrn_param = 118
        PoolingParameter pooling_param = 121
        PowerParameter power_param = 122
        ReLUParameter relu_param = 123
        EngineParameter sigmoid_param = 124
        SoftmaxParameter softmax_param = 125
        SliceParameter slice_param = 126
        EngineParameter tanh_param = 127
        PythonParameter python_param = 130
        PReLUParameter prelu_param = 131
        ReshapeParameter reshape_param = 133
        ExpParameter log_param = 134
        FlattenParameter flatten_param = 135
        TileParameter tile_param = 138
        BatchNormParameter batch_norm_param = 139
        ELUParameter elu_param = 140
        BiasParameter bias_param = 141
        ScaleParameter scale_param = 142
        InputParameter input_param = 143
        CropParameter crop_param = 144
        ClipParameter clip_param = 148
        LGLSTMParameter lg_lstm_param = 149""",
    "V1LayerParameter": """
        *string bottom = 2
        *string top = 3
        string name = 4
        V1LayerType type = 5
        *Blob blobs = 6
        *float blobs_lr = 7
        *float weight_decay = 8
        ConcatParameter concat_param = 9
        ConvolutionParameter convolution_param = 10
        DropoutParameter dropout_param = 12
        InnerProductParameter inner_product_param = 17
        LRNParameter lrn_param = 18
        PoolingParameter pooling_param = 19
        PowerParameter power_param = 21
        ArgMaxParameter argmax_param = 23
        EltwiseParameter eltwise_param = 24
        DummyDataParameter dummy_data_param = 26
        AccuracyParameter accuracy_param = 27
        ReLUParameter relu_param = 30
        SliceParameter slice_param = 31
        *NetStateRule include = 32
        *NetStateRule exclude = 33
        *float loss_weight = 35
        TransformationParameter transform_param = 36
        EngineParameter tanh_param = 37
        EngineParameter sigmoid_param = 38
        SoftmaxParameter softmax_param = 39
        ExpParameter exp_param = 41
        LossParameter loss_param = 42
        *string param = 1001
        *DimCheckMode blob_share_mode = 1002""",
    "TransformationParameter": """
        float scale = 1 1
        bool mirror = 2
        uint32 crop_size = 3
        string mean_file = 4
        *float mean_value = 5
        bool force_color = 6
        bool force_gray = 7""",
    "LossParameter": """
        int32 ignore_label = 1
        bool normalize = 2
        NormalizationMode normalization = 3 VALID""",
    "AccuracyParameter": """
        uint32 top_k = 1 1
        int32 axis = 2 1
        int32 ignore_label = 3""",
    "ArgMaxParameter": """
        bool out_max_val = 1
        uint32 top_k = 2 1
        int32 axis = 3""",
    "BatchNormParameter": """
        bool use_global_stats = 1
        float moving_average_fraction = 2 0.999
        float eps = 3 1e-5""",
    "BiasParameter": """
        int32 axis = 1 1
        int32 num_axes = 2 1
        Filler filler = 3""",
    "ClipParameter": """
        float min = 1
        float max = 2""",
    "ConcatParameter": """
        uint32 concat_dim = 1 1
        int32 axis = 2 1""",
    "ConvolutionParameter": """
        uint32 num_output = 1
        bool bias_term = 2 true
        *uint32 pad = 3
        *uint32 kernel_size = 4
        uint32 group = 5 1
        *uint32 stride = 6
        Filler weight_filler = 7
        Filler bias_filler = 8
        uint32 pad_h = 9 0
        uint32 pad_w = 10 0
        uint32 kernel_h = 11
        uint32 kernel_w = 12
        uint32 stride_h = 13
        uint32 stride_w = 14
        ConvolutionEngine engine = 15
        int32 axis = 16 1
        bool force_nd_im2col = 17
        *uint32 dilation = 18""",
    "CropParameter": """
        int32 axis = 1 2
        *uint32 offset = 2""",
    "DropoutParameter": "float dropout_ratio = 1 0.5",
    "DummyDataParameter": """
        *Filler data_filler = 1
        *uint32 num = 2
        *uint32 channels = 3
        *uint32 height = 4
        *uint32 width = 5
        *BlobShape shape = 6""",
    "EltwiseParameter": """
        EltwiseOp operation = 1 SUM
        *float coeff = 2
        bool stable_prod_grad = 3 true""",
    "ELUParameter": "float alpha = 1 1",
    "EngineParameter": "Engine engine = 1",
    "ExpParameter": """
        float base = 1 -1
        float scale = 2 1
        float shift = 3 0""",
    "FlattenParameter": """
        int32 axis = 1 1
        int32 end_axis = 2 -1""",
    "InnerProductParameter": """
        uint32 num_output = 1
        bool bias_term = 2 true
        Filler weight_filler = 3
        Filler bias_filler = 4
        int32 axis = 5 1
        bool transpose = 6""",
    "InputParameter": "*BlobShape shape = 1",
    "LGLSTMParameter": """
        uint32 num_output = 1 64
        uint32 neighbors = 2 8
        uint32 global_grid = 3 3
        bool share_spatial = 4 true
        bool bias_term = 5 false
        Filler weight_filler = 6
        Filler bias_filler = 7""",
    "LRNParameter": """
        uint32 local_size = 1 5
        float alpha = 2 1
        float beta = 3 0.75
        NormRegion norm_region = 4
        float k = 5 1
        Engine engine = 6""",
    "PoolingParameter": """
        PoolMethod pool = 1 MAX
        uint32 kernel_size = 2
        uint32 stride = 3 1
        uint32 pad = 4 0
        uint32 kernel_h = 5
        uint32 kernel_w = 6
        uint32 stride_h = 7
        uint32 stride_w = 8
        uint32 pad_h = 9 0
        uint32 pad_w = 10 0
        Engine engine = 11
        bool global_pooling = 12
        RoundMode round_mode = 13 CEIL""",
    "PowerParameter": """
        float power = 1 1
        float scale = 2 1
        float shift = 3 0""",
    "PReLUParameter": """
        Filler filler = 1
        bool channel_shared = 2""",
    "PythonParameter": """
        string module = 1
        string layer = 2
        string param_str = 3
        bool share_in_parallel = 4""",
    "ReLUParameter": """
        float negative_slope = 1 0
        Engine engine = 2""",
    "ReshapeParameter": """
        BlobShape shape = 1
        int32 axis = 2 0
        int32 num_axes = 3 -1""",
    "ScaleParameter": """
        int32 axis = 1 1
        int32 num_axes = 2 1
        Filler filler = 3
        bool bias_term = 4
        Filler bias_filler = 5""",
    "SliceParameter": """
        uint32 slice_dim = 1 1
        *uint32 slice_point = 2
        int32 axis = 3 1""",
    "SoftmaxParameter": """
        Engine engine = 1
        int32 axis = 2 1""",
    "TileParameter": """
        int32 axis = 1 1
        int32 tiles = 2""",
}  # fmt: skip


def _field(line: str) -> descriptor_pb2.FieldDescriptorProto:
    declaration, _, rest = line.strip().partition("=")
    kind, name = declaration.split()
    number, *default = rest.split()
    proto = descriptor_pb2.FieldDescriptorProto
    field = proto(name=name, number=int(number))
    field.label = proto.LABEL_REPEATED if kind.startswith("*") else proto.LABEL_OPTIONAL
    kind = kind.lstrip("*")
    if kind in _MESSAGES or kind in _ENUMS:
        field.type = proto.TYPE_MESSAGE if kind in _MESSAGES else proto.TYPE_ENUM
        field.type_name = f".{_PACKAGE}.{kind}" if kind in _MESSAGES else f".{_PACKAGE}.{kind}.E"
    else:
        field.type = getattr(proto, f"TYPE_{kind.upper()}")
    if default:
        field.default_value = default[0]
    if name == "dim":
        field.options.packed = True
    return field


def _build() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package=_PACKAGE, syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        message.field.extend(_field(line) for line in fields.strip().splitlines())
    # Every enumeration sits in a message of its own: values such as NONE occur in several.
    for name, values in _ENUMS.items():
        enum = file.message_type.add(name=name).enum_type.add(name="E")
        for key, number in values.items():
            enum.value.add(name=key, number=number)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


_POOL = _build()


def message_class(name: str) -> type[Any]:
    """The class of one message of the table above, for example "NetParameter"."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


def field_numbers(message: str) -> dict[str, int]:
    """The number of each field of a message, for readers of the bytes."""
    return {field.name: field.number for field in message_class(message).DESCRIPTOR.fields}


if TYPE_CHECKING:

    class Message:
        """A protobuf message; the fields that its class below does not list are Any."""

        DESCRIPTOR: Any

        def __init__(self, **fields: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
        def CopyFrom(self, other: Message) -> None: ...
        def HasField(self, name: str) -> bool: ...
        def ListFields(self) -> list[tuple[Any, Any]]: ...
        def SerializeToString(self, *, deterministic: bool = False) -> bytes: ...

    Item = TypeVar("Item", bound=Message)

    class Repeated(MutableSequence[Item], Generic[Item]):
        """A repeated field of messages."""

        def add(self, **fields: Any) -> Item: ...

    class ParamSpec(Message):
        name: str
        share_mode: int
        lr_mult: float
        decay_mult: float

    class LayerParameter(Message):
        name: str
        type: str
        bottom: MutableSequence[str]
        top: MutableSequence[str]
        loss_weight: MutableSequence[float]
        param: Repeated[ParamSpec]

    class NetParameter(Message):
        name: str
        layer: Repeated[LayerParameter]

        layers: Repeated[Message]

    class SolverParameter(Message):
        weights: MutableSequence[str]

else:
    NetParameter = message_class("NetParameter")
    LayerParameter = message_class("LayerParameter")
    SolverParameter = message_class("SolverParameter")

# The types of the older format whose names Caffe does not simply write in camel case today.
_V1_NAMES = {
    "ABSVAL": "AbsVal", "ARGMAX": "ArgMax", "BNLL": "BNLL", "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output", "LRN": "LRN", "MVN": "MVN", "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss", "TANH": "TanH",
}  # fmt: skip

# Number of a layer type of the older format to today's name: 14 is InnerProduct.
V1_LAYER_TYPES = {
    number: _V1_NAMES.get(name) or "".join(word.capitalize() for word in name.split("_"))
    for name, number in _ENUMS["V1LayerType"].items()
}
