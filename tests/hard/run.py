"""`make test-hard`: damaged files for every reader, kills at random times, hostile places.

Not part of `make test`, which replays the files that once did harm (`corpus/`).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of all that is random")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="damaged files to try")
    parser.add_argument("--kills", type=int, default=200, help="processes to kill")
    parser.add_argument("--steps", type=int, default=200, help="kills at system calls, by strace")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--only", action="append", default=[], help="readers, scenarios or places")
    parser.add_argument("--save", type=Path, help="folder for harmful files; default: the corpus")
    parser.add_argument("--places", type=int, default=60, help="full disks, odd inputs, two runs")
    options = parser.parse_args()
    shared = Path("/dev/shm")
    root = shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
    failures = 0
    with tempfile.TemporaryDirectory(prefix="lglstm-hard-", dir=root) as folder:
        if options.inputs:
            failures += report_fuzz(options, Path(folder))
    with tempfile.TemporaryDirectory(prefix="lglstm-hard-") as folder:
        if options.kills:
            failures += report_kills(options, Path(folder))
        if options.steps:
            failures += report_steps(options, Path(folder))
        if options.places:
            failures += report_places(options, Path(folder))
    return 1 if failures else 0


def report_fuzz(options: argparse.Namespace, folder: Path) -> int:
    from fuzz import CORPUS, fuzz, save

    start = time.monotonic()
    tally = fuzz(options.inputs, options.seed, folder, options.workers, options.only, say)
    seconds = time.monotonic() - start
    for name in tally.tried:
        each = 1e3 * tally.seconds[name] / tally.tried[name]
        say(f"  {name}: {tally.tried[name]:,} tried, {tally.read[name]:,} read, {each:.2f} ms each")
    for key, fault in sorted(tally.faults.items()):
        path = save(fault, options.save or CORPUS)
        say(f"FAULT {' | '.join(key)} ({tally.times[key]} times): {fault.detail} [{path}]")
    say(
        f"{tally.tried.total():,} inputs tried over {len(tally.tried)} readers in {seconds:.0f} s: "
        f"{tally.times.total()} faults of {len(tally.faults)} kinds"
    )
    return len(tally.faults)


def report_kills(options: argparse.Namespace, folder: Path) -> int:
    from kills import kill_at_random

    return kill_at_random(options.kills, options.seed, folder, options.only, say)


def report_steps(options: argparse.Namespace, folder: Path) -> int:
    from steps import kill_at_steps

    return kill_at_steps(options.steps, options.seed, folder, options.only, say)


def report_places(options: argparse.Namespace, folder: Path) -> int:
    from places import try_places

    return try_places(options.places, options.seed, folder, options.only, say)


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
