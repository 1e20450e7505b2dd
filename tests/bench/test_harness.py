"""The benchmark harness: real worker processes that are slow, wrong, late, or crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from math import exp, inf
from pathlib import Path

import pytest

import redistrib as rd
from bench import campaign, page, sections, summary
from bench.__main__ import _parser, section_options
from bench.coverage import PARTS, missing_parts
from bench.harness import BASELINE, ROOT, Limits, Runner, Team, runners
from bench.journal import NOT_RUN, Journal, OutOfTimeError
from bench.peers import NOT_MEASURED
from bench.sections import SECTIONS, Section
from bench.workloads import Workload, real, survey

LIMITS = Limits(answer_seconds=2, memory_bytes=512 << 20, rounds=5)
FLAGS = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=16"}


def runner(name: str, kind: str, *more: str, **options: object) -> Runner:
    command = (sys.executable, "-m", "tests.bench.worker", kind, *more)
    return Runner(name, command, **options)  # type: ignore[arg-type]


def workload(size: int = 8) -> Workload:
    mesh = rd.Mesh(x=2, y=2)
    src, dst = (
        rd.ArrayType.parse(text.format(n=size), mesh)
        for text in ("f32[{n}{{x}}, 8{{y}}]", "f32[{n}{{y}}, 8{{x}}]")
    )
    return Workload("real", f"swap {size}", "constructed", src, dst)


def test_slow_wrong_late_and_crashing_runners_are_reported_as_such() -> None:
    kinds = ("slow", "wrong", "hangs", "hangs when timed", "divides by zero", "exits", "hungry")
    team = [runner(BASELINE, "fast"), *(runner(kind, kind) for kind in kinds)]
    team.append(Runner("absent", ("no such program",), "pip install it"))
    team.append(runner("not asked", "exits", groups=("survey 8",)))
    with Team(team, LIMITS) as members:
        records = members.measure(workload())
    assert {name: record["status"] for name, record in records.items()} == {
        BASELINE: "ok",
        "slow": "ok",
        "wrong": "wrong",
        "hangs": "timeout",
        "hangs when timed": "timeout",
        "divides by zero": "crashed",
        "exits": "crashed",
        "hungry": "crashed",
        "absent": "not installed",
    }
    assert records["divides by zero"]["detail"] == "SIGFPE"
    assert records["exits"]["detail"] == "exit status 3: SomeError: gone"
    assert "MemoryError" in records["hungry"]["detail"]
    assert records["absent"]["detail"] == "pip install it"
    # The slow one sleeps 40 ms where the baseline sleeps 10 ms.
    slow = records["slow"]["speed_up"]
    assert slow["rounds"] == LIMITS.rounds
    assert 0.1 < slow["median"] < 0.7
    assert summary.verdict(slow) == "below"
    # No time is invented for what did not run.
    timed = {name for name, record in records.items() if "seconds" in record}
    assert timed == {BASELINE, "slow"} == {n for n, r in records.items() if "speed_up" in r}


def test_a_wrong_program_on_jax_is_wrong_and_the_right_one_beside_it_right() -> None:
    members = [r for r in runners(None, mpi=False) if r.name in {BASELINE, "ours"}]
    members.append(runner("off by one", "off by one", environment=FLAGS))
    with Team(members, Limits(rounds=3)) as team:
        records = team.measure(workload(64))
        mesh = rd.Mesh(x=2, y=2)
        ends = (rd.ArrayType.parse(t, mesh) for t in ("f32[8] sum{x,y}", "f32[8{y,_2}]"))
        inexpressible = team.measure(Workload("real", "partial", "", *ends), clock=False)
    assert {name: record["status"] for name, record in records.items()} == {
        BASELINE: "ok",
        "ours": "ok",
        "off by one": "wrong",
    }
    ours = records["ours"]
    assert ours["received_bytes"] == ours["planned_received_bytes"]
    assert ours["largest_buffer_bytes"] <= workload(64).src.tile_bytes
    assert "seconds" not in records["off by one"]
    # jit has no word for these two ends; ours runs on tiles.
    assert inexpressible[BASELINE]["status"] == "unsupported"
    assert inexpressible["ours"]["status"] == "ok"


def test_shardys_wrong_layouts_are_wrong() -> None:
    """Its pass ends with two axes in the wrong order where sizes are mixed."""
    mesh = rd.Mesh(a=2, b=3, c=2)
    src, dst = (
        rd.ArrayType.parse(text, mesh)
        for text in ("f32[12{c}, 12{b}, 12]", "f32[12, 12{c}, 12{b,a}]")
    )
    members = [r for r in runners(None, mpi=False) if r.name == "Shardy"]
    with Team(members, Limits()) as team:
        wrong = team.measure(Workload("real", "mixed", "", src, dst), clock=False)
        right = team.measure(Workload("real", "swap", "", src, src), clock=False)
    assert wrong["Shardy"]["status"] == "wrong"
    assert "ends in f32[12, 12{c}, 12{a,b}]" in wrong["Shardy"]["detail"]
    assert right["Shardy"]["status"] == "ok"


def campaign_command(path: Path, log: Path) -> list[str]:
    return [sys.executable, "-m", "tests.bench.test_harness", str(path), str(log)]


def run_campaign(path: Path, log: Path, about: str = "same", until: float = inf) -> list[str]:
    """Measure three workloads; the names of what is in the journal then."""
    journal = Journal(path, {"about": about}, until)
    with Team([runner(BASELINE, "fast", str(log))], LIMITS) as team:
        items = {w.name: partial(campaign.measure, team, w) for w in map(workload, (8, 16, 32))}
        campaign.measured("pairs", items, journal)
    return [journal["pairs", name]["name"] for name in items]


# Starts a process that starts another one, and waits for it as a section of the page does.
STARTS_TWO = """
import signal, subprocess, sys
from redistrib.demo.launch import finish
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
inner = "import time; time.sleep(60)"
outer = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', sys.argv[1]]);"
outer += "print(p.pid, file=sys.stderr, flush=True); p.wait()"
finish(subprocess.Popen([sys.executable, "-c", outer, inner], text=True))
"""


def test_a_benchmark_that_is_ended_leaves_no_process() -> None:
    command = [sys.executable, "-c", STARTS_TWO]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        grandchild = int(process.stderr.readline())
        process.terminate()
        assert process.wait(timeout=30) == 143
    until = time.monotonic() + 10
    while Path(f"/proc/{grandchild}/stat").exists():
        # Ended, and not yet asked for by whoever took it over.
        if Path(f"/proc/{grandchild}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path, log = tmp_path / "rows.partial.jsonl", tmp_path / "log"
    process = subprocess.Popen(campaign_command(path, log), cwd=ROOT, start_new_session=True)
    try:
        until = time.monotonic() + 30
        while not path.exists() or len(path.read_text().splitlines()) < 2:
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = [json.loads(line)["name"] for line in path.read_text().splitlines()[1:]]
    asked = log.read_text().splitlines()
    # Without time it does nothing but say so.
    with pytest.raises(OutOfTimeError):
        run_campaign(path, log, until=0.0)
    assert log.read_text().splitlines() == asked
    names = run_campaign(path, log)
    assert names == ["swap 8", "swap 16", "swap 32"]
    again = log.read_text().splitlines()[len(asked) :]
    assert len(again) == len(names) - len(done)

    # A row that was cut off in the middle is measured again; other settings start afresh.
    text = path.read_text()
    path.write_text(text[:-20])
    asked = log.read_text().splitlines()
    assert run_campaign(path, log) == names
    assert path.read_text().count("\n") == text.count("\n")
    assert len(log.read_text().splitlines()) == len(asked) + 1
    run_campaign(path, log, "other")
    assert len(log.read_text().splitlines()) == len(asked) + 1 + len(names)


def test_a_run_that_is_out_of_time_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--minutes", "0"]
    answer = subprocess.run(
        [*command, "--output", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 3, answer.stderr
    assert "0 min are over; the same command goes on from here" in answer.stderr
    assert not answer.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["benchmarks.partial.jsonl"]


def test_what_cannot_be_run_says_why() -> None:
    def section(module: str, *options: str, needs: str = "json") -> dict[str, str]:
        made = Section(
            "key", "Title", module, None, needs=(needs,), install="get it", says="Legend."
        )
        return sections.text_of(made, options)

    for absent in ("no_such_module", "no_such_module.inner"):
        reason = section("bench.paper_comparison", needs=absent)
        assert reason == {NOT_RUN: f"no Python here has {absent} (get it)"}
    failed = section("bench.paper_comparison", "--pairs", "none")
    assert list(failed) == [NOT_RUN]
    assert failed[NOT_RUN].startswith("`python -m bench.paper_comparison --pairs none` ended with")
    assert "invalid int value: 'none'" in failed[NOT_RUN]
    assert section("bench.paper_comparison", "--help")["text"].startswith(
        "`python -m bench.paper_comparison --help`. Legend.\n\nusage:"
    )


def test_what_was_not_run_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "partial.jsonl"
    for finding in ({NOT_RUN: "no compiler"}, {"text": "a table"}):
        journal = Journal(path, {})
        assert ("gpu", "") not in journal
        campaign.measured("gpu", {"": lambda found=finding: found}, journal)  # type: ignore[misc]
        assert journal["gpu", ""] == finding
    assert Journal(path, {})["gpu", ""] == {"text": "a table"}


def test_a_page_says_at_its_top_what_it_lacks() -> None:
    whole = dict.fromkeys(PARTS, 1)
    assert missing_parts({key: [{}] for key in PARTS}, whole) == []
    found = {"pairs": [{}] * 3, "planning": [{}], "gpu": [{NOT_RUN: "no compiler"}], "mpi": [{}]}
    units = {key: count for key, count in (whole | {"pairs": 5}).items() if key != "tpu"}
    rows = [row("one", XLA=1, ours=2, DTensor=1)]
    rows[0]["runners"]["DTensor"] = {"status": "not installed", "detail": "get it"}
    shown = results(rows) | {
        "command": "redistrib bench --quick",
        "missing": missing_parts(found, units),
        "sections": [["MPI", f"a table\n\n{NOT_MEASURED}heat (on mpich)"]],
    }
    text = page.markdown(shown, [])
    items = [line for line in text.split("## All runners")[0].splitlines() if line.startswith("- ")]
    assert items == [
        "- Pairs beside XLA: unfinished: 3 of 5.",
        "- Simulation: not asked for (--only).",
        "- Every pair of the survey: not asked for (--only).",
        "- The paper's strategy: not asked for (--only).",
        "- Prices: not asked for (--only).",
        "- Compiled for TPU v5e, 4x4: not in the quick form.",
        "- Compiled for 16 GPUs, H100 by default: not run: no compiler.",
        "- All parts: the quick form: fewer pairs, rounds, meshes and jobs in each.",
        "- Workloads: 1 on arrays of 1 MiB; the full form has 67 of 32 MiB.",
        "- DTensor: not installed (get it).",
        "- MPI: without heat (on mpich).",
    ]
    # Nothing is said of runners where none was measured.
    nothing = page.markdown(results([]) | {"missing": []}, [])
    assert "This is not the whole benchmark" not in nothing
    assert "No runner was wrong" not in nothing


def test_a_gpu_target_is_named_where_it_is_used() -> None:
    gpu = SECTIONS[-1]

    def options(*arguments: str) -> tuple[str, ...] | None:
        return section_options(gpu, _parser().parse_args(arguments))

    assert options() == gpu.full
    assert options("--gpu-target", "/elsewhere/a100.txtpb") == (
        *gpu.full, "--target-config", "/elsewhere/a100.txtpb",
    )  # fmt: skip
    assert options("--quick") is None
    absent = subprocess.run(
        [sys.executable, "-m", "bench", "--gpu-target", "absent.txtpb"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert absent.returncode == 2
    assert "absent.txtpb: no such file" in absent.stderr


def row(name: str, **speeds: float) -> campaign.Figures:
    def record(speed: float) -> campaign.Figures:
        spread = {"median": speed, "q1": 0.95 * speed, "q3": 1.05 * speed, "max": 2 * speed}
        return {
            "status": "ok",
            "received_bytes": 75,
            "largest_buffer_bytes": 100,
            "num_collectives": 1,
            "speed_up": spread,
        }

    return {
        "group": "real",
        "name": name,
        "source": "constructed",
        "mesh": "x=2",
        "src": "f32[8{x}]",
        "dst": "f32[8]",
        "source_tile_bytes": 50,
        "target_tile_bytes": 100,
        "bound_bytes": 50,
        "runners": {key.replace("_", " "): record(speed) for key, speed in speeds.items()},
    }


def results(rows: list[campaign.Figures]) -> campaign.Figures:
    return {
        "program": "bench",
        "date": "2026-01-01",
        "command": "redistrib bench",
        "commit": "0",
        "machine": {"cpu": "made up", "cores": 2, "load": "0"},
        "versions": {},
        "settings": {"size_mib": 1},
        "workloads": rows,
        "summary": summary.headline(rows),
    }


def test_the_headline_is_a_geometric_mean_over_the_right_pairs() -> None:
    rows = [row("one", XLA=1, ours=2), row("two", XLA=1, ours=8), row("three", XLA=1, ours=1)]
    rows[0]["runners"][BASELINE]["largest_buffer_bytes"] = 101
    rows[2]["bound_bytes"] = 0
    by_key = {(e["set"], e["runner"]): e for e in summary.headline(rows)}
    ours = by_key["b", "ours"]
    assert ours["speed_up"]["mean"] == pytest.approx(4)
    assert ours["speed_up"]["largest"] == 8
    assert ours["verdicts"] == {"above": 2}
    assert ours["received_over_bound"] == {"mean": pytest.approx(1.5), "worst": 1.5, "sums": 1.5}
    assert by_key["b", BASELINE]["above_tiles"] == 0.5
    assert by_key["d", "ours"]["pairs"] == 1
    assert by_key["d", "ours"]["speed_up"]["mean"] == 2
    assert not {("a", "ours"), ("c", "ours")} & set(by_key)
    rows[0]["source"] = "github.com/jax-ml/jax/issues/18591"
    by_key = {(e["set"], e["runner"]): e for e in summary.headline(rows)}
    assert [by_key[key, "ours"]["pairs"] for key in "bc"] == [1, 1]
    assert summary.over(rows, "ours", BASELINE)["mean"] == pytest.approx(16 ** (1 / 3))
    assert summary.over(rows, "ours", "absent") is None


def test_a_verdict_is_of_a_pairs_own_rounds_and_a_mean_needs_more_than_noise() -> None:
    def speed(median: float, low: float, high: float) -> campaign.Figures:
        return {"median": median, "q1": low, "q3": high, "max": high}

    assert summary.verdict(speed(1.5, 1.2, 1.8)) == "above"
    assert summary.verdict(speed(1.5, 0.9, 1.8)) == "tie"
    assert summary.verdict(speed(0.6, 0.5, 0.7)) == "below"

    # Student's t at 2 degrees of freedom is 4.303: exp(log 2 -+ 4.303 log(2) / sqrt 3).
    found = summary.interval([1, 2, 4])
    assert [round(found[key], 3) for key in ("mean", "low", "high")] == [2, 0.357, 11.19]
    wider = summary.interval([1, 2, 4], bias=1)
    assert wider["high"] / found["high"] == pytest.approx(exp(1))
    alone = summary.interval([3])
    assert alone["low"] < 0.001
    assert alone["high"] > 1000
    assert summary.standing(found) == "tie"
    assert summary.standing({"mean": 2, "low": 1.5, "high": 2.5}) == "above"
    assert summary.standing({"mean": 0.5, "low": 0.4, "high": 0.6}) == "below"

    # XLA in a second process is 1.5 times as fast: that much says nothing of others.
    rows = [row(str(n), XLA=1, XLA_again=1.5, ours=1.4, paper=3) for n in range(4)]
    assert summary.noise(rows) == pytest.approx(1.5)
    entries = {e["runner"]: e for e in summary.headline(rows) if e["set"] == "b"}
    assert entries["ours"]["standing"] == "tie"
    assert entries["ours"]["verdicts"] == {"above": 4}
    assert entries["paper"]["standing"] == "above"


def test_two_runs_are_compared_on_the_workloads_of_both() -> None:
    speeds = (1.1, 2, 3, 4, 5, 6)
    old = [row(str(n), XLA=1, XLA_again=1, ours=s, paper=s) for n, s in enumerate(speeds)]
    new = [
        row(str(n), XLA=1, XLA_again=1, ours=s * 1.02, paper=s / (n + 3))
        for n, s in enumerate(speeds[1:], 1)
    ]
    found = summary.against(results(old), results(new))
    assert found["workloads"] == 5
    means = {m["runner"]: m for m in found["means"]}
    assert BASELINE not in means
    assert means["ours"]["verdicts"] == ["above", "above"]
    assert summary.standing(means["ours"]["ratio"]) == "above"
    assert means["ours"]["ratio"]["mean"] == pytest.approx(1.02)
    assert summary.standing(means["paper"]["ratio"]) == "below"
    assert means["paper"]["verdicts"] == ["above", "below"]
    pairs = {entry["runner"]: entry for entry in found["pairs"]}
    assert BASELINE not in pairs
    assert (pairs["ours"]["same"], pairs["ours"]["opposite"], pairs["ours"]["apart"]) == (5, 0, [])
    assert (pairs["paper"]["same"], pairs["paper"]["opposite"]) == (0, 5)
    assert len(pairs["paper"]["apart"]) == 5
    text = "\n".join(page.against_lines(found))
    assert "| b | ours | 5 | " in text
    assert "| ours | 5 | 5 | 0 | - |" in text
    assert page.markdown(results(new) | {"against": found}, []).count(text) == 1

    # Ours has changed on three pairs, by more than noise, and the mean with them.
    for n, now in enumerate((2, 3, 1, 0.5, 0.1), 1):
        new[n - 1]["runners"]["ours"] = row("", ours=now)["runners"]["ours"]
    text = "\n".join(page.against_lines(summary.against(results(old), results(new))))
    assert "| ours | 5 | 2 | 2 | 3, 4, 5 |" in text
    assert "| above, tie | " in text


def test_against_finds_what_is_worse_and_nothing_else(tmp_path: Path) -> None:
    old = [row(name, XLA=1, XLA_again=1.02, ours=2, DTensor=1) for name in ("one", "two", "three")]
    new = [row(name, XLA=1, XLA_again=0.97, ours=2.1, DTensor=0.2) for name in ("one", "two")]
    assert summary.regressions(old, new) == []
    new[0]["runners"]["ours"]["speed_up"] = {"median": 1.2, "q1": 1.1, "q3": 1.3, "max": 2}
    new[1]["runners"]["ours"]["received_bytes"] = 76
    found = summary.regressions(old, new)
    assert "one, ours: 1.2 times as fast as XLA, was 2" in found
    assert "two, ours: received_bytes 76, was 75" in found
    assert len(found) == 2
    slower = [row(name, XLA=1, XLA_again=0.97, ours=1.7, DTensor=1) for name in ("one", "two")]
    slower = [*slower, row("three", XLA=1, XLA_again=0.97, ours=1.75, DTensor=1)]
    found = summary.regressions(old, slower)
    assert "named workloads, ours: mean speed-up 1.72, was 2" in found
    new[1]["runners"]["ours"] = {"status": "wrong", "detail": "device 0"}
    assert "two, ours: was ok, is wrong: device 0" in summary.regressions(old, new)

    files = tmp_path / "old.json", tmp_path / "new.json"
    for path, rows in zip(files, (old, new), strict=True):
        path.write_text(json.dumps(results(rows)))
    command = [sys.executable, "-m", "bench", "--output", str(tmp_path)]
    for against, status, said in (
        (files[0], 1, "worse: two, ours: was ok, is wrong"),
        (files[1], 0, "0 regressions on 2 workloads, against 2026-01-01"),
        (tmp_path / "absent.json", 2, "No such file"),
        (Path(__file__), 2, "does not hold results"),
    ):
        answer = subprocess.run(
            [*command, "--results", str(files[1]), "--against", str(against)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert answer.returncode == status, answer.stderr
        assert said in answer.stderr
    text = (tmp_path / "benchmarks.md").read_text()
    # One pair has no interval.
    assert (
        "- (b) named workloads: 2. Ours is a tie with XLA in the mean, 1.2x; median 1.2x," in text
    )
    assert "Faster on 1 of 1 pairs, a tie on 0, slower on 0." in text
    assert "| two | `f32[8{x}]` to `f32[8]` on x=2 | ours | wrong | device 0 |" in text
    assert "## Against 2026-01-01" in text


def test_workloads_are_what_they_say() -> None:
    named = real(1 << 20)
    assert len({w.name for w in named}) == len(named) >= 40
    for w in named:
        assert w.devices <= 16
        assert w.source
        assert w.src.size * w.src.itemsize >= 1 << 20
        rd.check(rd.plan(w.src, w.dst))
    small, large = (survey(12, 30, size) for size in (1, 64 << 20))
    for a, b in zip(small, large, strict=True):
        assert (a.src.dims, a.dst.dims) == (b.src.dims, b.dst.dims)
        assert 64 << 20 <= b.src.size * 4 < 128 << 20


if __name__ == "__main__":
    run_campaign(Path(sys.argv[1]), Path(sys.argv[2]))


def test_against_a_run_of_other_workloads_fails(tmp_path: Path) -> None:
    """A comparison of nothing is not one without regressions."""
    for name in ("old", "new"):
        text = json.dumps(results([row(name, XLA=1, ours=2)]) | {"missing": []})
        (tmp_path / f"{name}.json").write_text(text)
    options = ["--results", str(tmp_path / "new.json"), "--output", str(tmp_path)]
    command = [sys.executable, "-m", "bench", *options, "--against", str(tmp_path / "old.json")]
    answer = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 2, answer.stderr
    assert "nothing to compare: no workload of 2026-01-01 is in this run" in answer.stderr
