"""What can be chosen about a net: one frozen dataclass of documented options per family.

Every choice that the paper leaves open is an option here, with our choice as its default;
docs/differences.md tells what the paper says about each and why we chose so.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from lglstm.common.errors import InputError
from lglstm.common.labels import DATA_SET, LABEL_SETS, LabelSet, label_set, read_label_set
from lglstm.common.rules import TEXT, TRUTH, Rule, is_list, is_number, number, one_of, whole
from lglstm.common.suggest import nearest
from lglstm.layers.seg_list import read_list
from lglstm.layers.seg_options import RULES as DATA_RULES

MOST = 2**31 - 1
"""The largest number of images or iterations: Caffe counts in 32 bits."""

FILLER = one_of("gaussian", "msra", "xavier")
LABEL_SET = Rule(
    lambda value: isinstance(value, LabelSet), f"{', '.join(LABEL_SETS)} or a file NAME.json"
)
FRACTION = Rule(lambda value: is_number(value) and 0 < value <= 1, "a number above 0, at most 1")
ODD = Rule(
    lambda value: type(value) is int and 0 < value < 1_024 and value % 2 == 1,
    "an odd number below 1,024",
)
RATE = Rule(lambda value: is_number(value) and 0 <= value < 1, "a number from 0, below 1")
# What a net can have at all, far above what it can be trained with: a slip of the keyboard must not
# write for hours, nor what Caffe's 32-bit numbers cannot hold.
LAYERS = whole(0, 100)
CHANNELS = whole(1, 65_536)
GRID = whole(0, 1_024)
COUNT = whole(1, MOST)
ITERATIONS = whole(0, MOST)
BATCH = DATA_RULES["batch_size"]
AMOUNT = number(0, 1e30)


def option(default: Any, help: str, rule: Rule | None = None) -> Any:
    """A dataclass field with its sentence for `--help` and the rule of its values."""
    if rule is None:
        rule = TRUTH if isinstance(default, bool) else TEXT
    return dataclasses.field(default=default, metadata={"help": help, "rule": rule})


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What every family of nets shares: LG-LSTM layers, data, augmentation and training."""

    solver_mode: ClassVar[str] = "GPU"
    """Where `caffe train` runs; without a GPU our Caffe warns and takes the CPU."""

    # The LG-LSTM layers
    engine: str = option("caffe", "LG-LSTM layers in C++ or in Python", one_of("caffe", "python"))
    lg_lstm_layers: int = option(5, "stacked LG-LSTM layers; 0 leaves them out", LAYERS)
    hidden: int = option(64, "hidden cells d of each LSTM", CHANNELS)
    neighbors: int = option(8, "local neighbors N of a position", one_of(2, 4, 8))
    global_grid: int = option(3, "grid G of the global hidden cells, G×G; 0 for none", GRID)
    share_spatial: bool = option(True, "one weight matrix for the N spatial LSTMs")
    share_layers: bool = option(True, "one set of weights for all LG-LSTM layers")
    bias_term: bool = option(False, "biases in the gates of the LSTMs")
    lstm_range: float = option(0.1, "LSTM weights start uniform in ± this", AMOUNT)
    loss_weight: float = option(
        1.0, "weight of the losses before the last layer's, which is 1", AMOUNT
    )

    # Convolutions in place of LG-LSTM layers
    extra_convs: int = option(0, "3×3 convolutions before the prediction, for comparison", LAYERS)
    extra_conv_filters: int = option(0, "their filters; 0 derives (N + 1)·d", whole(0, 65_536))
    extra_conv_losses: bool = option(False, "a prediction and loss after each of them")
    extra_conv_filler: str = option("msra", "how they start; gaussian takes conv_std", FILLER)

    # Initial weights
    weights: str = option("", "initial caffemodel; empty trains from scratch")
    conv_filler: str = option("gaussian", "how new convolutions start", FILLER)
    conv_std: float = option(0.001, "standard deviation of the gaussian filler", AMOUNT)

    # Data
    label_set: LabelSet = option(  # noqa: RUF009
        LABEL_SETS["horse"], "classes and mirror swaps", LABEL_SET
    )
    train_list: str = option("data/horse/train.txt", "list of training images and labels")
    test_list: str = option("data/horse/test.txt", "list of test images and labels")
    train_images: int = option(294, "lines of the training list", COUNT)
    test_images: int = option(227, "lines of the test list", COUNT)
    input_size: tuple[int, int] = option(
        (321, 321), "height and width the images are resized to", DATA_RULES["input_size"]
    )

    # Augmentation of the training images: ranges [low, high] as layers/seg_options.py explains
    mirror: bool = option(True, "flip half of the images, left and right labels swapped")
    box_jitter: tuple[float, float] = option(
        (0, 0), "random box around the object; 0: the photo", DATA_RULES["box_jitter"]
    )
    crop: tuple[float, float] = option(
        (1, 1), "fraction of each side that a second crop keeps", DATA_RULES["crop"]
    )
    scale: tuple[float, float] = option((1, 1), "zoom", DATA_RULES["scale"])
    rotation: tuple[float, float] = option(
        (0, 0), "degrees, counter-clockwise", DATA_RULES["rotation"]
    )
    color: tuple[float, float] = option((1, 1), "factor on each color channel", DATA_RULES["color"])

    # Training
    batch_size: int = option(2, "images in a training iteration", BATCH)
    test_batch: int = option(1, "images in a test iteration; divides test_images", BATCH)
    epochs: float = option(60, "passes over the training images", AMOUNT)
    iterations: int = option(0, "training iterations; 0 derives them from epochs", ITERATIONS)
    base_lr: float = option(0.001, "learning rate of new layers", AMOUNT)
    score_lr_mult: float = option(1.0, "learning rate of classifiers, × base_lr", AMOUNT)
    bias_lr_mult: float = option(2.0, "learning rate of biases, relative to their weights'", AMOUNT)
    bias_decay_mult: float = option(0.0, "weight decay of biases, relative to weights'", AMOUNT)
    lr_gamma: float = option(0.1, "factor on the learning rate at a step", AMOUNT)
    lr_step: float = option(2 / 3, "step after this fraction of the iterations", FRACTION)
    solver_type: str = option("SGD", "how gradients become steps", one_of("SGD", "Adam"))
    momentum: float = option(0.9, "momentum of gradient descent", AMOUNT)
    weight_decay: float = option(0.0005, "weight decay", AMOUNT)
    test_epochs: float = option(5, "epochs between two tests", AMOUNT)
    seed: int = option(1, "seed of weights, dropout and data order", DATA_RULES["seed"])

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, rule = getattr(self, field.name), field.metadata["rule"]
            if not rule.allows(value):
                refuse(field.name, value, rule.words)
        self.check()

    def check(self) -> None:
        """Refuse options that contradict each other."""
        if self.lg_lstm_layers and self.extra_convs:
            refuse("extra_convs", self.extra_convs, "0 with lg_lstm_layers above 0, or the reverse")
        if not 0 < self.max_iter <= MOST:
            name = "iterations" if self.iterations else "epochs"
            words = f"what makes 1 to {MOST:,} iterations, not {self.max_iter:,}"
            refuse(name, getattr(self, name), words)
        if self.test_images % self.test_batch:
            refuse("test_batch", self.test_batch, f"a divisor of test_images ({self.test_images})")
        smallest = min(self.map_size)
        if self.lg_lstm_layers and self.global_grid > smallest:
            refuse("global_grid", self.global_grid, f"at most the map's smaller side, {smallest}")

    @property
    def num_classes(self) -> int:
        return self.label_set.num_classes

    @property
    def stride(self) -> int:
        """Input pixels per position of the score maps."""
        raise NotImplementedError

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of the score maps: every stride-th pixel, from the first on."""
        height, width = self.input_size
        return (height - 1) // self.stride + 1, (width - 1) // self.stride + 1

    @property
    def lstms(self) -> int:
        """LSTMs of a layer: N spatial ones and the depth LSTM."""
        return self.neighbors + 1

    @property
    def local_channels(self) -> int:
        """Channels of the local hidden cells, (N + 1)·d."""
        return self.lstms * self.hidden

    @property
    def predictions(self) -> int:
        """Score maps with a loss: one per LG-LSTM layer (or extra convolution), else one."""
        return self.lg_lstm_layers or (self.extra_convs if self.extra_conv_losses else 0) or 1

    @property
    def max_iter(self) -> int:
        """Training iterations: given, or epochs × images ÷ batch."""
        return self.iterations or math.ceil(self.epochs * self.train_images / self.batch_size)


@dataclass(frozen=True, kw_only=True)
class LargeFOV(ModelOptions):
    """DeepLab-LargeFOV on VGG-16 (Horse-Cow models): score maps at an eighth of the input."""

    weights: str = option("data/init/vgg16_largefov.caffemodel", "initial caffemodel")
    pretrained_lr_mult: float = option(
        0.1, "learning rate of pre-trained layers, × base_lr", AMOUNT
    )
    fc_pretrained: bool = option(True, "fc6 and fc7 come with the initial weights too")
    fc_filler: str = option("gaussian", "how fc6 and fc7 start without initial weights", FILLER)
    fc_std: float = option(
        0.005,
        "standard deviation of their gaussian filler: VGG's features are in the tens, and fc7 must "
        "not saturate the gates of the transition",
        AMOUNT,
    )
    fc_channels: int = option(1024, "filters of fc6 and of fc7", CHANNELS)
    fc6_dilation: int = option(12, "dilation of fc6, the field of view", whole(1, 16_384))
    pool5a: bool = option(True, "the 3×3 average pooling before fc6")
    dropout: float = option(0.5, "dropout rate of fc6 and fc7", RATE)
    lg_lstm_after: str = option(
        "fc7", "the layer that feeds the transition", one_of("fc7", "fc6", "pool5")
    )
    width: float = option(
        1.0, "factor on the channels of conv1 to fc7, for quick tests", number(0, 100)
    )

    @property
    def stride(self) -> int:
        return 8

    def check(self) -> None:
        check_aligned(self)
        super().check()


@dataclass(frozen=True, kw_only=True)
class CoCNN(ModelOptions):
    """Co-CNN (human-parsing models): score maps at the size of the input, image-label branch."""

    label_set: LabelSet = option(  # noqa: RUF009
        LABEL_SETS["atr"], "classes and mirror swaps", LABEL_SET
    )
    train_list: str = option("data/atr/train.txt", "list of training images and labels")
    test_list: str = option("data/atr/test.txt", "list of test images and labels")
    train_images: int = option(6000, "lines of the training list", COUNT)
    test_images: int = option(1000, "lines of the test list", COUNT)
    input_size: tuple[int, int] = option(
        (150, 100), "height and width the images are resized to", DATA_RULES["input_size"]
    )
    epochs: float = option(90, "passes over the training images", AMOUNT)
    lr_step: float = option(1 / 3, "step after this fraction of the iterations", FRACTION)
    first_channels: int = option(128, "filters of the first convolution", CHANNELS)
    channels: int = option(192, "filters of the other convolutions", CHANNELS)
    last_channels: int = option(
        256, "filters of the last convolution before the prediction", CHANNELS
    )
    conv_filler: str = option("msra", "how new convolutions start", FILLER)
    input_scale: float = option(1 / 64, "factor on the image, pixels minus mean", AMOUNT)
    kernel: int = option(5, "kernel of the convolutions of encoder and decoder", ODD)
    upsampling: str = option(
        "bilinear",
        "×2 in the decoder: fixed weights, or learned ones",
        one_of("bilinear", "learned"),
    )
    image_skip: bool = option(True, "add the image, after one convolution, to the decoder's output")
    image_label: bool = option(True, "the image-label branch and its probabilities")
    image_label_conv: int = option(96, "filters of the 1×1 convolution of that branch", CHANNELS)
    image_label_fc: int = option(1024, "outputs of its fully connected layer", CHANNELS)
    image_label_dropout: float = option(0.3, "dropout rate of that layer", RATE)
    image_label_weight: float = option(0.3, "weight of its squared loss", AMOUNT)
    sum_label_scores: bool = option(
        False, "sum the image's label probabilities onto the scores, then a 1×1 convolution"
    )
    lg_lstm_after: str = option(
        "image_skip", "the map that feeds the transition", one_of("image_skip", "decoder1")
    )

    @property
    def stride(self) -> int:
        return 1

    def check(self) -> None:
        if self.sum_label_scores and not self.image_label:
            refuse("sum_label_scores", True, "false when image_label is false")
        super().check()


@dataclass(frozen=True, kw_only=True)
class Demo(ModelOptions):
    """The small net of `make demo`: a few convolutions from scratch, then LG-LSTM layers."""

    solver_mode: ClassVar[str] = "CPU"

    lg_lstm_layers: int = option(4, "stacked LG-LSTM layers; 0 leaves them out", LAYERS)
    hidden: int = option(16, "hidden cells d of each LSTM", CHANNELS)
    lstm_range: float = option(0.2, "LSTM weights start uniform in ± this", AMOUNT)
    conv_filler: str = option("msra", "how new convolutions start", FILLER)
    train_list: str = option("data/demo/train.txt", "list of training images and labels")
    test_list: str = option("data/demo/test.txt", "list of test images and labels")
    train_images: int = option(600, "lines of the training list", COUNT)
    test_images: int = option(100, "lines of the test list", COUNT)
    input_size: tuple[int, int] = option(
        (97, 97), "height and width the images are resized to", DATA_RULES["input_size"]
    )
    batch_size: int = option(8, "images in a training iteration", BATCH)
    test_batch: int = option(10, "images in a test iteration; divides test_images", BATCH)
    iterations: int = option(1000, "training iterations; 0 derives them from epochs", ITERATIONS)
    solver_type: str = option("Adam", "how gradients become steps", one_of("SGD", "Adam"))
    base_lr: float = option(0.008, "learning rate of new layers", AMOUNT)
    widths: tuple[int, ...] = option(
        (16, 32, 48),
        "filters of the 3×3 convolutions, in order",
        Rule(
            lambda value: is_list(value, CHANNELS.allows) and 0 < len(value) <= 100,
            "whole numbers above 0, such as 16,32,48",
        ),
    )
    input_scale: float = option(1 / 64, "factor on the image, pixels minus mean", AMOUNT)
    poolings: int = option(2, "poolings by 2, after the first convolutions", whole(1, 100))

    @property
    def stride(self) -> int:
        return 2**self.poolings

    def check(self) -> None:
        if self.poolings > len(self.widths):
            refuse("poolings", self.poolings, f"at most one per convolution, {len(self.widths)}")
        check_aligned(self)
        super().check()


def refuse(name: str, given: object, allowed: str) -> NoReturn:
    """Raise InputError: the option, what was given, what is allowed."""
    shown = repr(given) if isinstance(given, str) else show(given)
    raise InputError(f"option {name}: {shown} is not allowed; use {allowed}")


def check_aligned(options: ModelOptions) -> None:
    """Refuse an input whose first and last pixels don't both meet a position of the map."""
    stride = options.stride
    if any(size % stride != 1 for size in options.input_size):
        example = ", ".join(str(stride * m + 1) for m in (8, 12, 40))
        refuse("input_size", options.input_size, f"sizes {stride}·m + 1, such as {example}")


def with_data(options: ModelOptions, folder: Path) -> ModelOptions:
    """Return the options changed to a prepared data set: its classes, lists and their lengths.

    folder: what `lglstm data` wrote, with train.txt, test.txt and dataset.json. Test iterations
    take as many images as divide the list. Raises InputError when something is missing or wrong.
    """
    train, test = folder / "train.txt", folder / "test.txt"
    test_images = len(read_list(test))
    return dataclasses.replace(
        options,
        label_set=read_label_set(folder / DATA_SET),
        train_list=str(train),
        test_list=str(test),
        train_images=len(read_list(train)),
        test_images=test_images,
        test_batch=math.gcd(options.test_batch, test_images),
    )


def with_settings(options: ModelOptions, settings: list[str]) -> ModelOptions:
    """Return the options changed by `key=value` strings, as `--set` gives them.

    Lists are written with commas, with or without brackets (`input_size=65,97`). Raises InputError
    for an unknown key, with the nearest one, and for a wrong value, with what is allowed.
    """
    fields = {field.name: field for field in dataclasses.fields(options)}
    changes: dict[str, Any] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise InputError(f"--set {setting}: write it as option=value")
        if key not in fields:
            kind = type(options).__name__
            raise InputError(f"option {key} is unknown to {kind} nets; {nearest(key, fields)}")
        changes[key] = parse_value(fields[key], text)
    return dataclasses.replace(options, **changes)


def parse_value(field: dataclasses.Field[Any], text: str) -> Any:
    """Turn the text of a setting into a value of the field's type."""
    if field.type == "LabelSet" and text.endswith(".json"):
        return label_set(text)
    try:
        return PARSERS[str(field.type)](text)
    except (KeyError, ValueError):
        refuse(field.name, text, field.metadata["rule"].words)


def parse_tuple(kind: type[int] | type[float], text: str) -> tuple[float, ...]:
    return tuple(kind(part) for part in text.strip("[]").split(","))


# What a setting's text becomes, by the field's type.
PARSERS: dict[str, Callable[[str], Any]] = {
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": int,
    "float": float,
    "str": str,
    "LabelSet": LABEL_SETS.__getitem__,
    "tuple[int, int]": partial(parse_tuple, int),
    "tuple[int, ...]": partial(parse_tuple, int),
    "tuple[float, float]": partial(parse_tuple, float),
}


def describe(options: ModelOptions) -> list[tuple[str, str, str, str]]:
    """List (name, value, meaning, allowed values) of every option."""
    return [
        (
            field.name,
            show(getattr(options, field.name)),
            field.metadata["help"],
            field.metadata["rule"].words,
        )
        for field in dataclasses.fields(options)
    ]


def show(value: Any) -> str:
    """Write a value as `--set` takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, LabelSet):
        return value.name
    if isinstance(value, tuple):
        return ",".join(map(show, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
