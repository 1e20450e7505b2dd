"""Run the mutants:  python -m tests.mutants [--only TEXT] [--workers N] [--record]

Prints what caught each, and fails if one survives, if a snippet of the table no longer matches
once, or if the tree fails without any mutant. `--record` writes RESULTS.md.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from tests.mutants.mutant import faults, load
from tests.mutants.runner import ROOT, BaselineError, Verdict, run_mutants

RESULTS = Path(__file__).parent / "RESULTS.md"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="mutants with this in their name or file")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--record", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args(arguments)
    table = load()
    if wrong := faults(table, ROOT):
        print(*wrong, f"{len(wrong)} faults in the table", sep="\n")
        return 1
    chosen = [m for m in table if options.only in f"{m.name} {m.file}"]
    start = time.perf_counter()

    def report(verdict: Verdict) -> None:
        print(line(verdict), flush=True)

    try:
        verdicts = run_mutants(chosen, options.workers, report)
    except BaselineError as error:
        print(error)
        return 1
    minutes = (time.perf_counter() - start) / 60
    if options.record:
        RESULTS.write_text(page(verdicts, minutes), encoding="utf-8")
    print(f"\n{minutes:.1f} minutes", summary(verdicts), sep="\n")
    return any(verdict.by is None for verdict in verdicts)


def line(verdict: Verdict) -> str:
    """A verdict as one line of text."""
    caught = verdict.by or "SURVIVED"
    head = f"{caught:8} {verdict.seconds:6.1f} s  {verdict.mutant.name} ({verdict.mutant.file})"
    return f"{head}\n{'':19}{verdict.witness[:160]}" if verdict.witness else head


def summary(verdicts: Sequence[Verdict]) -> str:
    """What caught how many, and the last line."""
    by = Counter(verdict.by for verdict in verdicts)
    survived = by.pop(None, 0)
    kinds = ", ".join(f"{count} by {kind}" for kind, count in sorted(by.items()))
    total = len(verdicts)
    return f"caught: {kinds}\n{total} mutants, {total - survived} killed, {survived} survived"


def page(verdicts: Sequence[Verdict], minutes: float) -> str:
    """The table as a page."""
    lines = [
        "# What catches each seeded bug",
        "",
        f"`python -m tests.mutants --record`, {date.today()}, Python {platform.python_version()}, "
        f"{minutes:.0f} minutes. Caught by:",
        "",
        "- proof: z3 refutes an obligation of `proofs/`, or refuses the certificate of a plan;",
        "- checker: `redistrib check` refuses a plan;",
        "- test: a test of the project fails otherwise. The proofs run first, the checker second.",
        "",
        "| mutant | file | by | first to fail | s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for v in verdicts:
        witness = v.witness.partition(": ")[0].removeprefix("tests/").replace("|", "/")
        cells = (
            v.mutant.name,
            f"`{v.mutant.file}`",
            v.by or "**survived**",
            witness,
            f"{v.seconds:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *summary(verdicts).splitlines(), ""])


if __name__ == "__main__":
    sys.exit(main())
