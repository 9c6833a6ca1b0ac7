"""`lglstm train`: train a model, or continue a training run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from lglstm.cli.options import MOST_ITERATIONS, complete_model

EXAMPLES = """\b
Examples:
  lglstm train demo
  lglstm train horse --gpu 0 --weights data/init/vgg16_largefov.caffemodel
  lglstm train cow --weights horse
  lglstm train horse --resume
  lglstm train horse --iterations 20000 --resume
  lglstm train models/demo/solver.prototxt --cpu --set random_seed=2 \\
      --set snapshot_prefix=runs/demo_2
"""


@click.command(epilog=EXAMPLES)
@click.argument("model", shell_complete=complete_model)
@click.option("--resume", is_flag=True, help="Continue from the newest complete snapshot.")
@click.option(
    "--overwrite", is_flag=True, help="Start again; deletes the snapshots of the earlier run."
)
@click.option("--gpu", metavar="N[,N…]", help="Train on these GPUs, or on 'all' (default: 0).")
@click.option("--cpu", is_flag=True, help="Train on the CPU even if there is a GPU.")
@click.option(
    "--iterations",
    type=click.IntRange(1, MOST_ITERATIONS),
    help="Train up to this iteration instead of max_iter.",
)
@click.option(
    "--weights", metavar="FILE[,…]",
    help="Initial weights, in any format that convert reads, or a model's name for its trained "
    "weights.",
)  # fmt: skip
@click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True,
    help="Change a field of the solver; may be repeated.",
)  # fmt: skip
@click.option(
    "--tensorboard", is_flag=True,
    help="Also write the CSV's numbers as TensorBoard's event files, NAME.tensorboard/.",
)  # fmt: skip
@click.option("--verbose", is_flag=True, help="Show Caffe's log too.")
@click.option("--json", is_flag=True, help="Print the summary at the end as JSON.")
@click.pass_context
def command(context: click.Context, **options: Any) -> None:
    """Train MODEL: a name in models/, or the path of a solver.prototxt.

    Runs the solver file as `caffe train` does, on the GPU when there is one. Beside the snapshots
    it writes NAME.csv (every loss of every iteration), NAME.png (the loss curve) and NAME.log
    (Caffe's log). Ctrl-C takes a snapshot and stops; --resume continues as if nothing had happened.
    """
    from lglstm.common.steady_streams import outlive_readers
    from lglstm.data_prep.check import nothing_to_learn_in
    from lglstm.training.plan import TrainOptions, locked_plan
    from lglstm.training.supervise import run

    outlive_readers()
    logging.basicConfig(format="warning: %(message)s")
    with locked_plan(TrainOptions(**options)) as plan:
        for sentence in nothing_to_learn_in(plan.nets(), Path(plan.folder)):
            logging.warning(sentence)
        status = run(plan)
    context.exit(status)
