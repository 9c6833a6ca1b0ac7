"""models/README.md: every model with its numbers, generated like the models themselves."""

from __future__ import annotations

from lglstm.prototxt_gen.nets import build
from lglstm.prototxt_gen.registry import MODELS, Model
from lglstm.prototxt_gen.summary import PAPER_GPU_BYTES, Summary, summarize_nets

HEAD = """\
# Models

Every network of the paper and a few more, made by `lglstm models generate`; `lglstm models generate
--check` says whether the files are up to date. Don't edit them: change the options in
`prototxt_gen/`, or make a variant of your own:

```
lglstm models generate horse --set share_spatial=false --name horse_distinct
lglstm models options horse          # every option, its meaning and its value
lglstm models summary horse_distinct # layers, weights, multiply-adds, memory
lglstm models draw horse_distinct    # a picture
lglstm models generate horse --data data/leaves --name leaves   # for classes of your own
```

Each folder has `train.prototxt`, `test.prototxt`, `deploy.prototxt` (takes a batch of images and
gives class scores of the same size), `solver.prototxt`, and `labels.json`, the names and colors of
its classes ([docs/own_classes.md](../docs/own_classes.md)). Train in the repository root; if there
is a GPU that Caffe can use, it will. `lglstm init-weights` makes the initial weights that a solver
names:

```
lglstm init-weights horse --from VGG_ILSVRC_16_layers.caffemodel
caffe train -solver models/horse/solver.prototxt
```

What we chose where the paper is silent is listed in [docs/differences.md](../docs/differences.md).
"""

TAIL = """\
Only learned weights are counted, shared ones once. Multiply-adds are those of one forward pass of
one image. Activations are the blobs of a training iteration with their gradients, and what the
layers store in addition. GPU memory adds the weights with their gradients and momentum, and the
test net; it is calculated, for float32, without cuDNN's workspaces and the few hundred MB of a CUDA
context. Training on the CPU, tests included, took 3.03 GiB for `horse` and 7.58 GiB for `atr`. The
paper's card had 12 GB: {verdict}.

`horse` and `cow` differ only in their lists; `atr`, `atr_more` and `fashionista` only in their
lists and the numbers that follow from them. The two `fashionista_largefov` models are a check on
photos that anybody can download; the paper has no such experiment. `demo` and `demo_conv` are the
models of `make demo`. `horse_161`, `cow_161`, `fashionista_241` and `fashionista_321` are the same
nets on smaller inputs. Their trained weights and those of `horse` and `cow` lie in their folders,
each with a card that says what they are worth.
"""


def index() -> str:
    """Return the text of models/README.md."""
    lines = [
        "| model | what | paper | input | iterations | weights | multiply-adds | activations "
        "| GPU memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    largest = 0
    for name, model in MODELS.items():
        measured = summarize_nets(
            name, build(model.options, name, "train"), build(model.options, name, "test")
        )
        largest = max(largest, measured.gpu_bytes)
        lines.append(row(name, model, measured))
    verdict = "every model fits" if largest < PAPER_GPU_BYTES else "some models do not fit"
    return "\n".join([HEAD, *lines, "", TAIL.format(verdict=verdict)])


def row(name: str, model: Model, measured: Summary) -> str:
    """Return a model's line of the table."""
    options = model.options
    cells = (
        f"[`{name}`]({name})",
        model.what,
        model.paper,
        f"{measured.batch} × " + "×".join(map(str, options.input_size)),
        f"{options.max_iter:,}",
        f"{measured.weights:,}",
        f"{measured.multiply_adds / 1e9:.2f} G",
        f"{measured.activation_bytes / 2**30:.2f} GiB",
        f"{measured.gpu_bytes / 2**30:.2f} GiB",
    )
    return f"| {' | '.join(cells)} |"
