"""The process that trains; its arguments are a descriptor and its parent, its input the plan.

Caffe aborts the process on a failed check, and logs to its error stream. Both are contained by
training apart from the process that the user started (`supervise`): here file descriptor 2 belongs
to Caffe, and what is meant for the user goes to the descriptor of the argument.

    python -m lglstm.training.worker DESCRIPTOR PARENT
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from lglstm.common.child import end_with_parent
from lglstm.common.steady_streams import SteadyStream
from lglstm.training.stop import Stopped, StopRequest

if TYPE_CHECKING:
    from lglstm.training.loop import TrainingSummary
    from lglstm.training.plan import TrainingPlan

EXIT_SIGNAL_BASE = 128


def main(descriptor: str, parent: str) -> int:
    stop = StopRequest()
    stop.install()
    # A supervisor that was killed outright must not leave a training process behind.
    end_with_parent(int(parent))
    # Nor may a reader that has gone end the training.
    sys.stderr, sys.stdout = SteadyStream(int(descriptor)), SteadyStream(1, closefd=False)
    # Imported only now: a Ctrl-C while they load must not end in a traceback.
    from lglstm.common.errors import InputError
    from lglstm.training.plan import TrainingPlan

    plan = TrainingPlan.from_json(sys.stdin.read())
    try:
        status = _train(plan, stop)
        _require_printed(sys.stdout)
        return status
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(
            f"error: {place}{error.strerror}; check the path, its permissions and the free space",
            file=sys.stderr,
        )
        return 1
    except Stopped:
        return EXIT_SIGNAL_BASE + (stop.signal or 0)


def _train(plan: TrainingPlan, stop: StopRequest) -> int:
    from lglstm.training.loop import Training, follow

    if plan.rank:
        follow(plan)
        return 0
    summary = Training(plan, stop, sys.stderr).run()
    if summary.message:
        print(f"error: {summary.message}", file=sys.stderr)
    print(json.dumps(asdict(summary), indent=2) if plan.json else _describe(summary))
    if summary.outcome == "interrupted":
        return EXIT_SIGNAL_BASE + (stop.signal or 0)
    return 0 if summary.outcome == "finished" else 1


def _require_printed(stream: SteadyStream) -> None:
    from lglstm.common.errors import InputError

    if reason := stream.loss():
        raise InputError(
            f"the summary cannot be printed ({reason}); the training itself has ended as it says "
            "in its files; give the output another place next time"
        )


def _describe(summary: TrainingSummary) -> str:
    from lglstm.training.display import clock

    done = summary.iteration - summary.start
    lines = [
        f"{summary.name}: {summary.outcome} at iteration {summary.iteration} of "
        f"{summary.max_iter} on {summary.device}; {done} iterations in {clock(summary.seconds)}, "
        f"{summary.data_seconds:.1f} s of them waiting for data",
    ]
    values = {} if summary.loss is None else {"loss (last tenth)": summary.loss}
    table = {name: f"{value:.4f}" for name, value in (values | summary.tests).items()}
    files = {"weights": summary.weights, "losses": summary.csv, "curve": summary.curve}
    table |= {name: os.path.relpath(path) for name, path in files.items() if path}
    table["log"] = os.path.relpath(summary.log)
    width = max(map(len, table))
    lines += [f"  {name:<{width}}  {value}" for name, value in table.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
