"""What of the whole benchmark a page lacks, and why, so that nobody reads it as complete."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.campaign import FULL, workloads
from bench.journal import NOT_RUN
from bench.peers import NOT_MEASURED
from bench.sections import SECTIONS

Figures = dict[str, Any]
PAIRS, PLANNING, SCALE = "pairs", "planning", "scale"
PARTS = {
    PAIRS: "Pairs beside XLA",
    PLANNING: "Planning",
    SCALE: "Simulation",
    **{section.key: section.title for section in SECTIONS},
}
"""Every part by its key, and what the page calls it."""


def missing_parts(
    findings: Mapping[str, Sequence[Any]], units: Mapping[str, int]
) -> list[list[str]]:
    """What is missing and why, given the findings of each part and how many it should have.

    A part that is not in `units` has no quick form.
    """
    missing = []
    for key, title in PARTS.items():
        done, count = len(findings.get(key, ())), units.get(key)
        if count is None:
            missing.append([title, "not in the quick form"])
        elif not done:
            missing.append([title, "not asked for (--only)"])
        elif done < count:
            missing.append([title, f"unfinished: {done} of {count}"])
        missing += [
            [title, f"not run: {finding[NOT_RUN]}"]
            for finding in findings.get(key, ())
            if isinstance(finding, dict) and NOT_RUN in finding
        ]
    return missing


def missing(results: Figures) -> Iterator[Sequence[str]]:
    """Everything that results lack: parts, workloads of the full form, runners, peers."""
    unknown = [["Parts", "unknown: these results are of a version that did not say"]]
    yield from results.get("missing", unknown)
    if "--quick" in results["command"].split():
        yield "All parts", "the quick form: fewer pairs, rounds, meshes and jobs in each"
    rows, size = results["workloads"], results["settings"]["size_mib"]
    if rows and (len(rows), size) != (full := (len(workloads(FULL)), FULL.size_mib)):
        yield (
            "Workloads",
            f"{len(rows)} on arrays of {size} MiB; the full form has {full[0]} of {full[1]} MiB",
        )
    for name in dict.fromkeys(name for row in rows for name in row["runners"]):
        records = [row["runners"][name] for row in rows if name in row["runners"]]
        if all(record["status"] == "not installed" for record in records):
            yield name, f"not installed ({records[0]['detail']})"
    for title, text in results.get("sections", ()):
        for line in re.findall(f"^{NOT_MEASURED}(.*)$", text, re.MULTILINE):
            yield title, f"without {line}"
