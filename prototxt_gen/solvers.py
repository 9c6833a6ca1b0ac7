"""The solver of a model: every number is derived from its options, in view."""

from __future__ import annotations

import math

from caffe.proto import caffe_pb2

from lglstm.prototxt_gen.options import ModelOptions

SNAPSHOTS = 10
"""In a whole training run."""


def solver(options: ModelOptions, name: str) -> caffe_pb2.SolverParameter:
    """Return the solver; its paths hold in the repository root, where `caffe train` is run."""
    iterations = options.max_iter
    test_every = math.ceil(options.test_epochs * options.train_images / options.batch_size)
    s = caffe_pb2.SolverParameter(
        train_net=f"models/{name}/train.prototxt",
        test_net=[f"models/{name}/test.prototxt"],
        test_iter=[options.test_images // options.test_batch],
        test_interval=min(test_every, iterations),
        test_initialization=False,
        base_lr=options.base_lr,
        lr_policy="step",
        gamma=options.lr_gamma,
        stepsize=max(1, round(iterations * options.lr_step)),
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        max_iter=iterations,
        display=20,
        average_loss=20,
        snapshot=math.ceil(iterations / SNAPSHOTS),
        snapshot_prefix=f"runs/{name}",
        solver_mode=caffe_pb2.SolverParameter.SolverMode.Value(options.solver_mode),
        random_seed=options.seed,
        type=options.solver_type,
    )
    if options.weights:
        s.weights.append(options.weights)
    return s


def derivation(options: ModelOptions) -> str:
    """The arithmetic behind the solver's numbers, for its header."""
    test = f"{options.test_images} test images / batch {options.test_batch}"
    if options.iterations:
        epochs = options.iterations * options.batch_size / options.train_images
        train = f"{options.iterations} iterations x batch {options.batch_size}"
        train += f" / {options.train_images} images = {epochs:.3g} epochs"
    else:
        train = f"{options.train_images} images / batch {options.batch_size}"
        train += f" x {options.epochs:g} epochs = {options.max_iter} iterations"
    return f"{train}; {test} = {options.test_images // options.test_batch} test iterations"
