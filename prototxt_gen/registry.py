"""The models by name: one line per experiment of the paper, and what each differs in."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from lglstm.common.errors import InputError
from lglstm.common.labels import LABEL_SETS
from lglstm.common.suggest import nearest
from lglstm.layers.seg_options import HORSE_COW_AUGMENTATION
from lglstm.prototxt_gen.conv_baseline import conv_baseline
from lglstm.prototxt_gen.options import CoCNN, Demo, LargeFOV, ModelOptions

ATR_TRAIN, ATR_TEST = 6000, 1000  # of the 7,700 images of the ATR set; 700 more validate
ATR_ADDITIONAL = 10_003  # the paper says 10,000; the archive has these
FASHIONISTA_TRAIN, FASHIONISTA_TEST = 456, 229  # of 685


@dataclass(frozen=True)
class Model:
    """A model: its options, what it is in one phrase, and where the paper reports it."""

    options: ModelOptions
    what: str
    paper: str


def lg_lstm_on(animal: str) -> LargeFOV:
    """LargeFOV with LG-LSTM layers on the crops of one animal, at the paper's size."""
    ranges: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in HORSE_COW_AUGMENTATION.items()
    }
    return LargeFOV(
        label_set=LABEL_SETS[animal],
        train_list=f"data/{animal}/train.txt",
        test_list=f"data/{animal}/test.txt",
        **ranges,
    )


def horse_cow(animal: str) -> dict[str, Model]:
    """The rows of Table 5, and with the first one Table 1, for one animal."""
    full = lg_lstm_on(animal)
    vary = lambda **changes: dataclasses.replace(full, **changes)  # noqa: E731
    variants = {
        "": (full, "LargeFOV + 5 LG-LSTM layers", "Tables 1, 5"),
        "_vgg16": (vary(lg_lstm_layers=0), "LargeFOV + 1×1 prediction", "Table 5"),
        "_extra_conv": (
            vary(lg_lstm_layers=0, extra_convs=5),
            "LargeFOV + five 3×3 convolutions of 576 filters",
            "Table 5",
        ),
        "_extra_conv_paper_init": (
            vary(lg_lstm_layers=0, extra_convs=5, extra_conv_filler="gaussian"),
            "the same from the paper's initial weights, which do not train",
            "Table 5",
        ),
        "_local2": (vary(neighbors=2), "2 neighbors", "Table 5"),
        "_local4": (vary(neighbors=4), "4 neighbors", "Table 5"),
        "_wo_global": (vary(global_grid=0), "no global hidden cells", "Table 5"),
    }
    return {f"{animal}{suffix}": Model(*entry) for suffix, entry in variants.items()}


def human_parsing() -> dict[str, Model]:
    """Co-CNN with and without LG-LSTM on ATR; Fashionista tests what was trained on ATR."""
    atr = CoCNN(train_images=ATR_TRAIN, test_images=ATR_TEST)
    baseline = dataclasses.replace(atr, lg_lstm_layers=0, sum_label_scores=True)
    paper_init: dict[str, Any] = {"conv_filler": "gaussian", "input_scale": 1.0}
    more = {
        "train_list": "data/atr_more/train.txt",
        "test_list": "data/atr_more/test.txt",
        "train_images": ATR_TRAIN + ATR_ADDITIONAL,
    }
    on_fashionista = {"test_list": "data/fashionista/test.txt", "test_images": FASHIONISTA_TEST}
    vary = dataclasses.replace
    return {
        "atr": Model(atr, "Co-CNN + 5 LG-LSTM layers", "Tables 2, 4"),
        "atr_more": Model(vary(atr, **more), "trained on 10,000 more images", "Tables 2, 4"),
        "atr_co_cnn": Model(baseline, "Co-CNN, the baseline", "Tables 2, 4"),
        "atr_paper_init": Model(
            vary(atr, **paper_init),
            "atr from the paper's initial weights, which do not train",
            "Tables 2, 4",
        ),
        "atr_co_cnn_paper_init": Model(
            vary(baseline, **paper_init),
            "atr_co_cnn from the paper's initial weights, which do not train",
            "Tables 2, 4",
        ),
        "fashionista": Model(
            vary(atr, **on_fashionista), "Co-CNN + 5 LG-LSTM layers, trained on ATR", "Table 3"
        ),
        "fashionista_co_cnn": Model(
            vary(baseline, **on_fashionista), "Co-CNN, trained on ATR", "Table 3"
        ),
    }


def with_weights() -> dict[str, Model]:
    """Nets whose trained weights come with them (docs/results.md), on fewer pixels."""
    small: dict[str, Any] = {"fc6_dilation": 6, "seed": 2}
    animal = small | {
        "input_size": (161, 161),
        "weights": "data/init/horse_161_fc7.caffemodel",
    }
    person = small | {
        "input_size": (241, 161),
        "weights": "data/init/fashionista_241_fc7.caffemodel",
        "epochs": 14,
        "seed": 3,
        "score_lr_mult": 10,
    }
    larger = person | {
        "input_size": (321, 217),
        "fc6_dilation": 8,
        "weights": "data/init/fashionista_321_fc7.caffemodel",
        "epochs": 6,
        "seed": 5,
        "scale": (0.85, 1.25),
        "rotation": (-5, 5),
        "color": (0.85, 1.15),
    }
    horse = animal | {"train_images": 320, "test_images": 275, "epochs": 18}
    cow = animal | {"train_images": 231, "test_images": 161, "epochs": 30}
    nets = {
        "horse_161": dataclasses.replace(lg_lstm_on("horse"), **horse),
        "cow_161": dataclasses.replace(lg_lstm_on("cow"), **cow),
        "fashionista_241": dataclasses.replace(lg_lstm_on_people(), **person),
        "fashionista_321": dataclasses.replace(lg_lstm_on_people(), **larger),
    }
    return {
        name: Model(options, "LargeFOV + 5 LG-LSTM layers", "not in the paper")
        for name, options in nets.items()
    }


def lg_lstm_on_people() -> LargeFOV:
    """LargeFOV with LG-LSTM layers on Fashionista's photos, whose fc6 and fc7 start new."""
    return LargeFOV(
        label_set=LABEL_SETS["atr"],
        train_list="data/fashionista/train.txt",
        test_list="data/fashionista/test.txt",
        train_images=FASHIONISTA_TRAIN,
        test_images=FASHIONISTA_TEST,
        weights="data/init/vgg16_conv.caffemodel",
        fc_pretrained=False,
    )


def real_photo_checks() -> dict[str, Model]:
    """LargeFOV on Fashionista: not in the paper, a check on photos that anybody can get."""
    full = lg_lstm_on_people()
    return {
        "fashionista_largefov": Model(full, "LargeFOV + 5 LG-LSTM layers", "not in the paper"),
        "fashionista_largefov_vgg16": Model(
            dataclasses.replace(full, lg_lstm_layers=0),
            "LargeFOV + 1×1 prediction",
            "not in the paper",
        ),
    }


def demo() -> dict[str, Model]:
    """The small net of `make demo` and its baseline of convolutions."""
    options = Demo()
    what = f"small net + {options.lg_lstm_layers} LG-LSTM layers, drawn animals"
    baseline = conv_baseline(options)
    return {
        "demo": Model(options, what, "not in the paper"),
        "demo_conv": Model(
            baseline,
            f"the same with {baseline.extra_convs} convolutions of as many weights in their place",
            "not in the paper",
        ),
    }


MODELS: dict[str, Model] = (
    horse_cow("horse")
    | horse_cow("cow")
    | human_parsing()
    | with_weights()
    | real_photo_checks()
    | demo()
)


def find(name: str) -> Model:
    """Return a model; raise InputError with the nearest name when there is none."""
    if name in MODELS:
        return MODELS[name]
    raise InputError(f"there is no model '{name}'; {nearest(name, MODELS)}")


def check_name(name: str) -> None:
    """Refuse a name that would not be a plain folder of its own under models/."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
        raise InputError(f"model name '{name}': use small letters, digits and underscores")
