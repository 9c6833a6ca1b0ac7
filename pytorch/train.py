"""Trains a model in PyTorch with the losses, the multipliers and the schedule of its Caffe solver.

    torchrun --nproc-per-node 2 pytorch/train.py horse            # two GPUs of one machine
    torchrun --nproc-per-node 2 pytorch/train.py horse --resume   # goes on after an interruption

Needs the package lglstm, for lists, augmentation and Caffe's files, but no Caffe. Every process
reads batches of its own: the whole batch is the net's times the processes. Beside the solver's
snapshots it writes, for horse, runs/horse_torch.pth to resume from, runs/horse_torch.csv with all
losses for `lglstm plot`, and at the end runs/horse_torch_iter_8820.caffemodel.
"""

import argparse
import math
import os
from pathlib import Path

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from lg_lstm_torch import Losses, Net, load_checkpoint, save_checkpoint
from lg_lstm_torch.solver import make_optimizer, set_rate
from lglstm.caffe_files import read_net, weights_for, write_caffemodel
from lglstm.caffe_files.prototxt import read_message
from lglstm.caffe_files.schema import SolverParameter
from lglstm.common.models import find_model
from lglstm.convert.read import read_weights
from lglstm.layers.seg_source import open_training_data
from lglstm.training.initial import weight_files
from lglstm.training.log import TOTAL, CsvLog


def train(model: str, resume: bool, bf16: bool, device: str) -> None:
    """Train from the beginning, or from the checkpoint, to the solver's last iteration."""
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    found = find_model(model, "solver")
    solver = read_message(found.file, SolverParameter())
    os.chdir(found.root)
    prefix, seed = f"{solver.snapshot_prefix}_torch", max(0, solver.random_seed)
    if os.path.exists(f"{prefix}.pth") and not resume:
        raise FileExistsError(f"{prefix}.pth is there already; give --resume, or move it away")

    train_net = solver.train_net or solver.net
    plan = read_net(train_net, "TRAIN")
    stored = [x for file in weight_files(solver) for x in read_weights(file, [plan]).stored]
    weights = weights_for(plan, stored, str(found.file), np.random.default_rng(seed))
    net = Net(plan.description()).load_weights(weights).count_across_processes()
    net.to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(solver, net.weights(), plan.multipliers())
    start = load_checkpoint(net, optimizer, f"{prefix}.pth") if resume else 0
    data = open_training_data(train_net, rank, processes)
    losses_of = DistributedDataParallel(Losses(net))
    columns = ["iteration", "lr", TOTAL, *net.outputs]
    log = CsvLog(Path(f"{prefix}.csv"), columns, start) if rank == 0 else None

    for iteration in range(start, solver.max_iter):
        torch.manual_seed(hash((seed, rank, iteration)))  # the same dropout after --resume
        inputs = [torch.from_numpy(array).to(device) for array in data.batch(iteration)]
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            losses = losses_of(*inputs)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        values = torch.stack([*losses.values()]).detach() / processes
        distributed.all_reduce(values)
        total, done = values.sum().item(), iteration + 1
        if not math.isfinite(total):
            raise ValueError(f"iteration {iteration}: the loss is {total}; lower base_lr")
        rate = set_rate(optimizer, solver, iteration)
        optimizer.step()
        if log is None:
            continue
        row = {"iteration": iteration, "lr": rate, TOTAL: total}
        log.write(row | dict(zip(losses, values.tolist(), strict=True)))
        if solver.display and iteration % solver.display == 0:
            print(f"iteration {iteration}, lr = {rate:g}, loss = {total:g}", flush=True)
        if done == solver.max_iter or (solver.snapshot and done % solver.snapshot == 0):
            save_checkpoint(net, optimizer, done, f"{prefix}.pth")
    if rank == 0:
        arrays = {key: weight.detach().cpu().numpy() for key, weight in net.weights().items()}
        file = f"{prefix}_iter_{solver.max_iter}.caffemodel"
        write_caffemodel(file, plan.name, plan.stored(arrays))


def main() -> None:
    """Run one process of a training; torchrun starts them all."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("model", help="a name in models/, or the path of a solver.prototxt")
    parser.add_argument("--resume", action="store_true", help="go on from the .pth file")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16 (autocast)")
    arguments = parser.parse_args()
    if "LOCAL_RANK" not in os.environ:
        parser.error("start it with torchrun, as above")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group()
    try:
        train(**vars(arguments), device=device)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
