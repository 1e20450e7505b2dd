"""Run the exhaustive checks:  python -m tests.exhaustive [STAGE ...] [--examples N]

Finished units are kept in NAME.partial beside this file, so a run that was stopped goes on where it
was. A finished stage is recorded in RESULTS.md with its date and command.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from pathlib import Path

from tests.exhaustive.stages import Stage, stages

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"


def run_stage(stage: Stage, examples: int, workers: int) -> Counter[str]:
    """Run the units of a stage that no earlier run finished; the sum of all their counts."""
    progress = HERE / f"{stage.name}.partial"
    done: dict[int, dict[str, int]] = {}
    if progress.exists():
        for line in progress.read_text().splitlines():
            entry = json.loads(line)
            done[entry["unit"]] = entry["counts"]
    units = stage.units(examples)
    todo = [unit for unit in units if unit not in done]
    start = time.monotonic()
    with progress.open("a") as log, ProcessPoolExecutor(workers) as pool:
        futures = {pool.submit(stage.run, unit): unit for unit in todo}
        for count, future in enumerate(as_completed(futures), 1):
            try:
                counts = dict(future.result())
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            unit = futures[future]
            done[unit] = counts
            log.write(json.dumps({"unit": unit, "counts": counts}) + "\n")
            log.flush()
            left = (time.monotonic() - start) / count * (len(todo) - count)
            print(
                f"\r{stage.name}: {len(done)}/{len(units)} units, {left / 60:.0f} min left ",
                end="",
                file=sys.stderr,
                flush=True,
            )
    print(file=sys.stderr)
    total: Counter[str] = Counter()
    for unit in units:
        total.update(done[unit])
    stage.finish(total)
    return total


def record(stage: Stage, total: Counter[str], command: str) -> None:
    """Put the result of a finished stage in RESULTS.md, in place of its last one."""
    counts = ", ".join(f"{value:,} {name}" for name, value in sorted(total.items()))
    line = (
        f"- **{stage.name}**: {stage.what}. 0 failures: {counts}. "
        f"`{command}`, {date.today()}, Python {platform.python_version()}.\n"
    )
    lines = RESULTS.read_text().splitlines(keepends=True) if RESULTS.exists() else [HEADER]
    kept = [old for old in lines if not old.startswith(f"- **{stage.name}**")]
    RESULTS.write_text("".join([*kept, line]))


HEADER = """# Last results of the exhaustive checks

Written by `python -m tests.exhaustive`; each line is a finished stage.

"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.exhaustive", description=__doc__)
    names = [stage.name for stage in stages(0)]
    parser.add_argument("stage", nargs="*", choices=[*names, []], help=", ".join(names))
    parser.add_argument("--examples", type=int, default=1_000_000, help="random examples")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    for stage in stages(options.examples):
        if options.stage and stage.name not in options.stage:
            continue
        total = run_stage(stage, options.examples, options.workers)
        command = f"python -m tests.exhaustive {stage.name}"
        if stage.name == "random":
            command += f" --examples {options.examples}"
        record(stage, total, command)
        (HERE / f"{stage.name}.partial").unlink()
        print(f"{stage.name}: {dict(total)}")


if __name__ == "__main__":
    main()
