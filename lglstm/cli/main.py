"""The `lglstm` command: a group that imports a sub-command only when it is called."""

from lglstm.common.search_path import put_user_folders_last

put_user_folders_last()  # before any other import, which a file of the user's might stand in for

from lglstm.common.early_stop import let_ctrl_c_end_the_process, let_ctrl_c_raise  # noqa: E402

importing = let_ctrl_c_end_the_process()

import contextlib  # noqa: E402
import errno  # noqa: E402
import importlib  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from typing import Any, NamedTuple, NoReturn  # noqa: E402

import click  # noqa: E402

from lglstm import __version__  # noqa: E402
from lglstm.cli.group import Group  # noqa: E402
from lglstm.common.errors import InputError, UsageError  # noqa: E402
from lglstm.common.streams import let_streams_print_anything  # noqa: E402

if importing:
    let_ctrl_c_raise()

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


class Entry(NamedTuple):
    """Where a sub-command is defined (`module:attribute`), and its line in `lglstm --help`."""

    target: str
    summary: str


# In the order of a whole experiment.
COMMANDS = {
    "doctor": Entry("lglstm.cli.doctor:command", "Say what is installed here and what is missing."),
    "demo": Entry("lglstm.cli.demo:command", "Train and evaluate on drawn animals in minutes."),
    "data": Entry("lglstm.cli.data:command", "Turn downloaded data sets into images and labels."),
    "init-weights": Entry(
        "lglstm.cli.init_weights:command", "Make the initial weights of a model."
    ),
    "models": Entry("lglstm.cli.models:command", "Generate and describe the nets in models/."),
    "train": Entry("lglstm.cli.train:command", "Train a model, or continue a training run."),
    "plot": Entry("lglstm.cli.plot:command", "Draw the loss curve of a training run."),
    "predict": Entry("lglstm.cli.predict:command", "Parse photos into part labels."),
    "evaluate": Entry("lglstm.cli.evaluate:command", "Measure a trained model on a data set."),
    "compare": Entry(
        "lglstm.cli.compare:command", "Say whether one evaluated net is better than another."
    ),
    "table": Entry("lglstm.cli.table:command", "Print the paper's tables with our results."),
    "convert": Entry("lglstm.cli.convert:command", "Convert weights for other frameworks."),
    "bench": Entry("lglstm.cli.bench:command", "Measure how fast layers, nets and data are."),
}


class LazyGroup(Group):
    """A click group over `COMMANDS` that turns expected errors into one line and an exit code."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """As click's, but what the system refuses (disk, permissions) is one sentence, too."""
        let_streams_print_anything()
        try:
            return super().main(*arguments, **settings)
        except OSError as error:
            _drop_output()
            with contextlib.suppress(OSError):
                click.echo(f"error: {_sentence(error)}", err=True)
            sys.exit(1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name].target.split(":")
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the summaries from the table, so that `lglstm --help` imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].summary) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise click.UsageError(str(error), self._invoked(ctx)) from error
        except InputError as error:
            _fail(ctx, str(error))
        except ImportError as error:
            # Only what needs Caffe imports it; all else works without.
            from lglstm.common.pycaffe import why_missing

            reason = why_missing(error)
            if reason is None:
                raise
            _fail(ctx, reason)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)

    def _invoked(self, ctx: click.Context) -> click.Context:
        """A context of the sub-command that was called, to show its usage."""
        name = ctx.invoked_subcommand or ""
        command = self.get_command(ctx, name)
        return click.Context(command, parent=ctx, info_name=name) if command else ctx


def _fail(ctx: click.Context, message: str) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    ctx.exit(1)


def _sentence(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
        return f"{name}: {reason}; check the path, its permissions and the free space"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"what was to be written did not fit ({reason}); free some space"
    return f"the system refused to read or write ({reason}); check files, permissions and space"


def _drop_output() -> None:
    """Let Python not try once more, at its end, to print what could not be printed."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command has its own --help with examples; start with: lglstm doctor",
)
@click.version_option(__version__, prog_name="lglstm")
def main() -> None:
    """LG-LSTM in BVLC Caffe: object parsing with local-global LSTMs (Liang et al., CVPR 2016)."""


if __name__ == "__main__":
    main()
