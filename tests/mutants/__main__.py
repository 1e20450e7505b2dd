"""Run the mutants:  python -m tests.mutants [--only TEXT ...] [--new] [--workers N] [--record]

Prints what caught each, and fails if one survives, if a snippet of the table no longer matches
once, or if the tree fails without any mutant. `--record` puts each verdict in RESULTS.md as it
comes, in place of the last one of its mutant; with `--new`, those that have none there run, so what
was stopped goes on.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from threading import Lock

from tests.mutants.mutant import faults, load
from tests.mutants.runner import ROOT, BaselineError, Verdict, run_mutants

RESULTS = Path(__file__).parent / "RESULTS.md"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="in the name or the file")
    parser.add_argument("--new", action="store_true", help=f"without a verdict in {RESULTS.name}")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--record", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args(arguments)
    table = load()
    if wrong := faults(table, ROOT):
        print(*wrong, f"{len(wrong)} faults in the table", sep="\n")
        return 1
    wanted = options.only or [""]
    chosen = [m for m in table if any(text in f"{m.name} {m.file}" for text in wanted)]
    rows = recorded()
    if options.new:
        chosen = [m for m in chosen if m.name not in rows]
    if not chosen:
        print("all have a verdict" if options.new else f"no mutant has {wanted} in name or file")
        return int(not options.new)
    files = {mutant.name: mutant.place(ROOT) for mutant in table}
    lock, start = Lock(), time.perf_counter()

    def report(verdict: Verdict) -> None:
        with lock:
            print(line(verdict), flush=True)
            rows[verdict.mutant.name] = row(verdict)
            if options.record:
                kept = [placed(rows[name], file) for name, file in files.items() if name in rows]
                RESULTS.write_text(page(kept), encoding="utf-8")

    try:
        verdicts = run_mutants(chosen, options.workers, report)
    except BaselineError as error:
        print(error)
        return 1
    minutes = (time.perf_counter() - start) / 60
    print(f"\n{minutes:.1f} minutes", summary(verdict.by for verdict in verdicts), sep="\n")
    return any(verdict.by is None for verdict in verdicts)


def line(verdict: Verdict) -> str:
    """A verdict as text."""
    caught = verdict.by or "SURVIVED"
    head = f"{caught:8} {verdict.seconds:6.1f} s  {verdict.mutant.name} ({verdict.mutant.file})"
    return f"{head}\n{'':19}{verdict.witness[:160]}" if verdict.witness else head


def summary(by: Iterable[str | None]) -> str:
    """What caught how many, and the last line."""
    counts = Counter(kind or "" for kind in by)
    survived, total = counts[""], counts.total()
    kinds = ", ".join(f"{count} by {kind}" for kind, count in sorted(counts.items()) if kind)
    return f"caught: {kinds}\n{total} mutants, {total - survived} killed, {survived} survived"


# --- RESULTS.md

HEADER = """# What catches each seeded bug

Written by `python -m tests.mutants --record`; each row is of the last run of its mutant. Caught by:

- proof: z3 refutes an obligation of `proofs/`, or refuses the certificate of a plan;
- checker: `redistrib check` refuses a plan;
- types: a type or a typing rule refuses what the planner makes, before any check of it;
- test: a test of the project fails otherwise; timeout: a test does not end.

The proofs run first, then the checker, the tests of the file, and all other quick tests.

| mutant | file | by | first to fail | s | date, Python |
| --- | --- | --- | --- | --- | --- |
"""


def row(verdict: Verdict) -> str:
    """A verdict as a row of the page."""
    witness = verdict.witness.partition(": ")[0].removeprefix("tests/").replace("|", "/")
    cells = (
        verdict.mutant.name,
        f"`{verdict.mutant.file}`",
        verdict.by or "",
        f"`{witness}`",
        f"{verdict.seconds:.0f}",
        f"{date.today()}, {platform.python_version()}",
    )
    return f"| {' | '.join(cells)} |"


def placed(row: str, file: str) -> str:
    """A row with the file that its mutant is in now, wherever that was when it ran."""
    name, _, verdict = row.split(" | ", 2)
    return f"{name} | `{file}` | {verdict}"


def recorded() -> dict[str, str]:
    """The rows of the page by mutant."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    lines = text.removeprefix(HEADER).splitlines()
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines if line[:2] == "| "}


def page(rows: Sequence[str]) -> str:
    """The page with these rows."""
    last = summary(row.split(" | ")[2] for row in rows)
    return HEADER + "\n".join([*rows, "", *last.splitlines(), ""])


if __name__ == "__main__":
    sys.exit(main())
