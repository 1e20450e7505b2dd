"""The command line. Its dependencies (click, rich) are the extra `cli`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `sys.argv` and exit: 0 done, 1 the answer is no, 2 bad usage or input."""
    try:
        from redistrib.cli.commands import program
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.stderr.write(
            f"redistrib: the command line needs the package {error.name}; "
            "install the extra: pip install 'redistrib[cli]'\n"
        )
        sys.exit(2)
    program(prog_name="redistrib")
