"""The proofs hold, and the runner fails when they do not or when one is left out."""

from __future__ import annotations

import doctest
import importlib
import json
import random
import re
import shlex
from collections.abc import Sequence
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from types import ModuleType

import pytest

import proofs
import proofs.__main__ as runner
import redistrib as rd
from proofs import harness, transposition
from proofs.harness import Goal, false, proved, z3
from redistrib.checker import checker
from redistrib.checker.certificate.solver import Outcome
from redistrib.cli.values import problem_types
from redistrib.synth.planner.paper.calculus import (
    Gather,
    PaperType,
    Slice,
    Step,
    interpret,
    prime_system,
)
from redistrib.synth.planner.paper.normal_form import rewrite
from tests.corruptions import PLANS
from tests.paper.programs import random_program

THEORY = Path(__file__).parents[2] / "docs" / "theory.md"


OBLIGATIONS = [
    item
    for name in proofs.FAMILIES
    for item in harness.obligations(importlib.import_module(f"proofs.{name}"))
]
decided = cache(harness.run)


@pytest.fixture
def everything() -> list[harness.Result]:
    return [decided(item) for item in OBLIGATIONS]


@pytest.mark.parametrize("item", OBLIGATIONS, ids=lambda item: f"{item.family}.{item.name}")
def test_an_obligation_comes_out_as_it_should(item: harness.Obligation) -> None:
    result = decided(item)
    assert result.passed, runner.fault(item, result)


def test_the_last_line_counts_what_was_proved(everything: list[harness.Result]) -> None:
    assert re.fullmatch(r"\d{3,} proved, 0 counter-models, 0 unknown", runner.summary(everything))


def test_the_docs_state_how_many_are_proved() -> None:
    count = sum(item.kind == "proved" for item in OBLIGATIONS)
    assert f"every obligation, {count} in all" in THEORY.read_text(encoding="utf-8")


def test_every_obligation_is_stated_once_in_words(everything: list[harness.Result]) -> None:
    words = [result.obligation.words for result in everything]
    assert all(text.endswith((".", ":")) for text in words)
    assert len(set(words)) == len(words)
    for result in everything:
        assert result.obligation.words.startswith("FALSE: ") == (result.obligation.kind == "false")


def test_every_family_has_a_false_claim_with_a_runnable_counter_model(
    everything: list[harness.Result],
) -> None:
    shown = [result for result in everything if result.problem is not None]
    assert {result.obligation.family for result in shown} == {*proofs.FAMILIES}
    for result in shown:
        assert result.problem is not None
        program, command, option, mesh, src, dst = shlex.split(result.problem)
        assert (program, command, option) == ("redistrib", "plan", "--mesh")
        rd.check(rd.plan(*problem_types(mesh, src, dst)))


def test_no_file_of_obligations_is_left_out() -> None:
    assert runner.missing_families(Path(proofs.__file__).parent, proofs.FAMILIES) == []


def test_a_skipped_file_is_a_fault(tmp_path: Path) -> None:
    for name in ("__init__", "harness", "one", "two"):
        (tmp_path / f"{name}.py").touch()
    assert runner.missing_families(tmp_path, ["one", "three"]) == [
        "skipped: two.py is not in FAMILIES",
        "missing: three.py is in FAMILIES",
    ]


def test_the_run_fails_where_a_file_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(proofs, "FAMILIES", ("digits",))
    assert runner.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert "skipped: rules.py is not in FAMILIES" in lines
    assert re.fullmatch(r"\d+ proved, 0 counter-models, 0 unknown", lines[-1])


def test_the_run_of_some_families_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["digits"]) == 3
    out = capsys.readouterr().out
    assert "skipped: canonical, " in out
    assert re.search(r"\d\.\d\d s  proved  .*Step: equal numbers have equal last digits", out)
    assert runner.main(["nothing"]) == 2


# --- families with faults

n = z3.Int("n")


@proved
def holds() -> Goal:
    """A number is less than its successor."""
    return Goal([], n < n + 1)


@proved
def fails() -> Goal:
    """A number is positive."""
    return Goal([], n > 0)


@proved
def vacuous() -> Goal:
    """A number that is above its successor is 7."""
    return Goal([n > n + 1], n == 7)


@false
def refuted() -> Goal:
    """FALSE: a number is positive."""
    return Goal([], n > 0)


@false
def true_after_all() -> Goal:
    """FALSE: a number is less than its successor."""
    return Goal([], n < n + 1)


def family(*makers: object) -> ModuleType:
    module = ModuleType(__name__)
    for at, make in enumerate(makers):
        setattr(module, f"claim{at}", make)
    return module


def test_a_sound_family_has_no_fault() -> None:
    results, faults = runner.run_family(family(holds, refuted))
    assert faults == []
    assert runner.summary(results) == "1 proved, 0 counter-models, 0 unknown"


@pytest.mark.parametrize(
    ("makers", "fault", "last"),
    [
        ((fails, refuted), "fails|counter-model", "0 proved, 1 counter-models, 0 unknown"),
        ((vacuous, refuted), "no known model", "0 proved, 0 counter-models, 1 unknown"),
        ((holds, true_after_all), "is false; proved", "1 proved, 0 counter-models, 1 unknown"),
        ((holds,), "no false obligation", "1 proved, 0 counter-models, 0 unknown"),
        ((refuted,), "no proved obligation", "0 proved, 0 counter-models, 0 unknown"),
        ((), "no false obligation", "0 proved, 0 counter-models, 0 unknown"),
    ],
)
def test_a_fault_is_found(makers: tuple[object, ...], fault: str, last: str) -> None:
    results, faults = runner.run_family(family(*makers))
    assert any(re.search(fault, text) for text in faults)
    assert runner.summary(results) == last


def test_what_z3_does_not_decide_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = Outcome("unknown", 20.0, reason="timeout")
    monkeypatch.setattr(harness, "decide", lambda *_: unknown)
    results, faults = runner.run_family(family(holds, refuted))
    assert runner.summary(results) == "0 proved, 0 counter-models, 2 unknown"
    assert len(faults) == 2


def test_a_counter_model_is_a_legal_problem() -> None:
    with pytest.raises(rd.LayoutError, match="two types of one shape"):
        harness.command("x=2", "f32[2]", "f32[4]")


# --- what the proofs say of rules is what the code does


def test_the_rules_of_the_proofs_are_those_of_the_checker() -> None:
    names = {"free": transposition.FREE, "owner": transposition.OWNER}
    names["partial"] = transposition.PARTIAL
    rules = {
        name: (names[was], names[becomes]) for name, (was, becomes, _) in checker._CHANGES.items()
    }
    permute = {"collective_permute": transposition.RULES["collective_permute"]}
    assert rules | permute == transposition.RULES


def test_the_transposes_of_the_proofs_are_those_of_the_planner() -> None:
    seen = set()
    for data in PLANS.values():
        plan = rd.Plan.from_json(json.dumps(data))
        try:
            back = plan.transpose()
        except rd.LayoutError:
            continue
        for step, other in zip(plan.steps, reversed(back.steps), strict=True):
            if step.collective != "exchange":
                seen.add(step.collective)
                assert other.collective == transposition.TRANSPOSES[step.collective]
    assert seen == {*transposition.TRANSPOSES}


def measure(program: Sequence[Step]) -> tuple[int, int]:
    """Inversions and weight, as in `proofs/rewriting.py`."""
    ranks = [0 if isinstance(s, Slice) else 2 if isinstance(s, Gather) else 1 for s in program]
    inversions = sum(a == 2 and b == 0 for a, b in combinations(ranks, 2))
    weight = sum(
        4 ** (ranks[:at].count(2) + ranks[at:].count(0))
        for at, rank in enumerate(ranks)
        if rank == 1
    )
    return inversions, weight


def test_each_rewriting_of_the_planner_lowers_the_measure_of_the_proofs() -> None:
    start = rd.ArrayType.parse("f32[24{x,z}, 24{y}, 24]", rd.Mesh(x=2, y=2, z=3, w=2))
    t = PaperType.of(start, prime_system(start))
    rewritten = 0
    for seed in range(150):
        rng = random.Random(seed)
        program = list(random_program(rng, t, 8))
        rewriting = True
        while rewriting:
            rewriting = False
            types = interpret(t, program)
            for at, pair in enumerate(pairwise(program)):
                replacement = rewrite(types[at], *pair)
                if replacement is not None:
                    after = [*program[:at], *replacement, *program[at + 2 :]]
                    assert measure(after) < measure(program)
                    program, rewriting = after, True
                    rewritten += 1
                    break
    assert rewritten > 500


# --- the page of theory


def test_the_examples_of_the_theory_page_run() -> None:
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, tried = doctest.testfile(str(THEORY), module_relative=False, optionflags=flags)
    assert failed == 0
    assert tried >= 20


def test_the_theory_page_names_what_there_is(everything: list[harness.Result]) -> None:
    text = THEORY.read_text(encoding="utf-8")
    named = {f"{item.family}.{item.name}" for item in (r.obligation for r in everything)}
    for family_name, obligation in re.findall(r"`([a-z]+)\.([a-z_]+)`", text):
        if family_name in proofs.FAMILIES:
            assert f"{family_name}.{obligation}" in named
    for path in re.findall(r"`((?:tests|proofs|redistrib)/[\w/.]+)`", text):
        assert (THEORY.parents[1] / path).exists(), path
    for name in proofs.FAMILIES:
        assert f"`proofs/{name}.py`" in text
