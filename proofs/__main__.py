"""Runs all obligations: `python -m proofs [FAMILY...]`. The last line says what came of them.

Fails unless every obligation is proved, every deliberately false one is refuted, every family has
one of each, and no file of obligations is left out. With families named, only these run, and
as others are skipped, that is no success either: exit status 3.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import proofs
from redistrib.errors import BackendError

try:
    from proofs.harness import Obligation, Result, obligations, run
except BackendError as error:  # without z3
    print(f"proofs: {error}", file=sys.stderr)
    sys.exit(2)

NO_FAMILIES = ("__init__", "__main__", "harness", "stacks")


def main(names: Sequence[str] = ()) -> int:
    """Run the named families, or all of them. Gives the exit status."""
    faults = missing_families(Path(__file__).parent, proofs.FAMILIES)
    unknown = [name for name in names if name not in proofs.FAMILIES]
    if unknown:
        print(f"families are {', '.join(proofs.FAMILIES)}; got {unknown}", file=sys.stderr)
        return 2
    skipped = [name for name in proofs.FAMILIES if names and name not in names]
    start = time.perf_counter()
    results: list[Result] = []
    for name in proofs.FAMILIES:
        if name not in skipped:
            module = importlib.import_module(f"proofs.{name}")
            print(f"\n{name}: {(module.__doc__ or '').strip().splitlines()[0]}")
            decided, bad = run_family(module)
            results += decided
            faults += bad
    print(f"\n{time.perf_counter() - start:.1f} s", *faults, sep="\n")
    if skipped:
        print(f"skipped: {', '.join(skipped)}")
    print(summary(results))
    return 1 if faults else 3 if skipped else 0


def missing_families(directory: Path, families: Sequence[str]) -> list[str]:
    """Files of obligations that are not run, and families without a file."""
    files = {path.stem for path in directory.glob("*.py")} - {*NO_FAMILIES}
    return [
        *(f"skipped: {name}.py is not in FAMILIES" for name in sorted(files - {*families})),
        *(f"missing: {name}.py is in FAMILIES" for name in families if name not in files),
    ]


def run_family(module: ModuleType) -> tuple[list[Result], list[str]]:
    """Decide and print the obligations of a family. Gives the results and what is wrong."""
    todo = list(obligations(module))
    faults = [
        f"{module.__name__}: no {kind} obligation"
        for kind in ("proved", "false")
        if not any(item.kind == kind for item in todo)
    ]
    results = []
    for item in todo:
        result = run(item)
        results.append(result)
        print(f"  {result.seconds:6.2f} s  {outcome_text(result):22}  {item.words}")
        if result.problem is not None:
            print(f"{'':34}{result.problem}")
        if not result.passed:
            faults.append(f"FAILED: {fault(item, result)}")
    return results, faults


def outcome_text(result: Result) -> str:
    """How an obligation came out; a false one is right to be refuted."""
    if result.obligation.kind == "false":
        return "refuted, as it should" if result.passed else f"FALSE BUT {result.outcome.kind}"
    return result.outcome.kind


def fault(item: Obligation, result: Result) -> str:
    """What an obligation that did not pass came to."""
    outcome = result.outcome
    detail = outcome.reason or result.problem or outcome.model or ""
    wanted = "is false" if item.kind == "false" else "is to be proved"
    return f"{item.family}.{item.name} {wanted}; {outcome.kind} {detail}"


def summary(results: Sequence[Result]) -> str:
    """The last line: deliberately false obligations count only where they fail."""
    counted = [r for r in results if r.obligation.kind == "proved" or not r.passed]
    counts = {
        kind: sum(r.outcome.kind == kind and r.obligation.kind == "proved" for r in counted)
        for kind in ("proved", "counter-model", "unknown")
    }
    counts["unknown"] += sum(r.obligation.kind == "false" for r in counted)
    return (
        f"{counts['proved']} proved, {counts['counter-model']} counter-models, "
        f"{counts['unknown']} unknown"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
