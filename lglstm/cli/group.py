"""Groups of sub-commands that answer a mistyped one with the nearest."""

from __future__ import annotations

import click

from lglstm.common.suggest import nearest


class Group(click.Group):
    """A click group; `@click.group(cls=Group)`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"no such command '{name}'; {nearest(name, known)}")
        return super().resolve_command(ctx, args)
