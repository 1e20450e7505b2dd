"""The program that holds the commands: exit codes, one-line errors, and spellings that are near.

A command returns its exit status: 0 done, 1 the answer is no. Bad usage or input is an exception,
which `Program` turns into one line on stderr and status 2.
"""

from __future__ import annotations

import sys
from difflib import get_close_matches
from typing import Any

import click

import redistrib as rd
from redistrib.cli import values


class Program(click.Group):
    """The group of commands: exit codes and one-line errors as the interface promises."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run and exit. Raises SystemExit."""
        kwargs["standalone_mode"] = False
        name = kwargs.get("prog_name") or self.name
        try:
            sys.exit(super().main(*args, **kwargs) or 0)
        except (rd.InfeasibleError, rd.CheckError) as error:
            _fail(name, values.one_line(error), 1)
        except click.Abort:
            _fail(name, "interrupted", 130)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else name
            _fail(path, error.format_message(), 2)
        except click.ClickException as error:
            _fail(name, error.format_message(), 2)
        except (rd.RedistribError, OSError, MemoryError) as error:
            _fail(name, values.one_line(error), 2)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named. Raises UsageError with those that are spelled nearly so."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            known = self.list_commands(ctx)
            near = get_close_matches(args[0], known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            ctx.fail(f"no command {args[0]!r}; {hint}known: {', '.join(known)}")
        return super().resolve_command(ctx, args)


def _fail(name: str | None, message: str, status: int) -> None:
    click.echo(f"{name}: {' '.join(message.split())}", err=True)
    sys.exit(status)
