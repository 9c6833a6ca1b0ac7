"""Puts trained weights into a model's folder, where `lglstm predict MODEL` finds them.

    python scripts/release_weights.py horse runs/horse_iter_8820.caffemodel --license "CC BY 4.0"

writes models/horse/weights.safetensors in half precision, proved; scores.json, what the net says of
a drawn animal, with which a test compares; and, if there is none yet, card.md with the headings
that a model card must have. Whoever trained the net fills in the card. The report of the proof goes
to runs/: it names files of this machine.

--class-offsets data/horse/train.txt adds to the biases of the classifier the constants that give
the highest mean IoU on these images (lglstm/evaluation/class_offsets.py), and prints them for the
card: a net that has seldom seen thin parts draws the line too far on the side of the background.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np

from lglstm.caffe_files.caffemodel import write_caffemodel
from lglstm.caffe_files.schema import LayerParameter
from lglstm.cli.main import main as lglstm
from lglstm.common.files import write_text
from lglstm.common.models import WEIGHTS, find_model
from lglstm.common.progress import progress_bar
from lglstm.convert.read import read_weights_for
from lglstm.data_prep.synthetic import draw_example
from lglstm.evaluation.class_offsets import fit, sample
from lglstm.evaluation.engines import net_files
from lglstm.evaluation.image_list import read_image_list
from lglstm.evaluation.label_choice import labels_of
from lglstm.evaluation.predictor import Predictor

CARD = "card.md"
SCORES = "scores.json"
SECTIONS = {
    "Intended use": "What the net parses, on which photos, and what it must not be used for: …",
    "Data and license": (
        "Trained on … (license …), from initial weights of VGG-16 by Karen Simonyan and Andrew "
        "Zisserman (CC BY 4.0). These weights: …"
    ),
    "Training": "The command …, at commit …, … hours on ….",
    "Numbers": "Mean IoU … on … images (`lglstm evaluate {name}`).",
    "Known failures": "…",
}
"""The headings of a model card, and what belongs below each."""

GRID = 5
"""Scores are kept at so many points a side, evenly spaced."""


def drawn_scores(name: str) -> np.ndarray:
    """What a model with its own weights says of a drawn animal: (classes, GRID, GRID) scores."""
    photo, _ = draw_example()
    (scores,) = Predictor(net_files(name)).scores([photo])["score"]
    rows, columns = (
        np.linspace(0, size - 1, GRID).round().astype(int) for size in scores.shape[1:]
    )
    return scores[:, rows][:, :, columns]


def write_scores(name: str, path: Path) -> None:
    scores = drawn_scores(name)
    values = [float(f"{value:.6g}") for value in scores.ravel().tolist()]
    about = "what the net says of data_prep.synthetic.draw_example(), at evenly spaced points"
    content = {"about": about, "shape": list(scores.shape), "scores": values}
    write_text(path, json.dumps(content) + "\n")


def add_class_offsets(name: str, weights: str, list_path: str, path: Path) -> None:
    """Write to `path` the weights with a list's best class offsets in the classifier's biases."""
    files = net_files(name, weights)
    predictor = Predictor(files)
    labels = labels_of(predictor, None, files.model, Path(list_path))
    with progress_bar(f"{list_path}: {name}") as progress:
        images = read_image_list(list_path)
        offsets = fit(sample(predictor, images, labels.num_classes, progress))
    stored = read_weights_for(files.deploy, files.weights)  # with the classifiers of training
    with_bias = [key for key, blobs in predictor.engine.net.params.items() if len(blobs) == 2]
    (classifier,) = (layer for layer in stored if layer.name == with_bias[-1])
    classifier.blobs[1] = classifier.blobs[1] + offsets
    layers = [(LayerParameter(name=layer.name, type=layer.type), layer.blobs) for layer in stored]
    write_caffemodel(path, name, layers)
    photo, _ = draw_example()
    before, after = (
        one.scores([photo])["score"] for one in (predictor, Predictor(net_files(name, path)))
    )
    np.testing.assert_allclose(after, before + offsets[:, None, None], atol=1e-3)
    added = zip(labels.names, offsets.tolist(), strict=True)
    print("added to the scores:", ", ".join(f"{label} {offset:+.2f}" for label, offset in added))


def card(name: str) -> str:
    sections = (f"## {title}\n\n{text.format(name=name)}\n" for title, text in SECTIONS.items())
    return f"# The weights of `{name}`\n\n" + "\n".join(sections)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("weights", help="of any format that `lglstm convert` reads")
    parser.add_argument("--license", required=True, help="of these weights, kept in the file")
    parser.add_argument("--class-offsets", metavar="LIST", help="images to choose constants on")
    given = parser.parse_args()
    folder = find_model(given.model).folder
    runs = Path("runs")  # not in a fresh checkout
    runs.mkdir(exist_ok=True)
    weights = given.weights
    if given.class_offsets:
        weights = runs / f"{given.model}_class_offsets.caffemodel"
        add_class_offsets(given.model, given.weights, given.class_offsets, weights)
    options = ["--to", "pytorch", "--precision", "float16", "-o", str(folder / WEIGHTS)]
    line = ["convert", given.model, str(weights), *options, "--license", given.license]
    if status := lglstm(line, standalone_mode=False):
        sys.exit(status)  # it has said why
    report = (folder / WEIGHTS).with_suffix(".safetensors.json")
    shutil.move(report, runs / f"{given.model}.{WEIGHTS}.json")
    write_scores(given.model, folder / SCORES)
    if not (folder / CARD).exists():
        write_text(folder / CARD, card(given.model))
        print(f"now fill in {folder / CARD}")


if __name__ == "__main__":
    main()
