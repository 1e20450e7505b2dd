"""What each command prints and returns when it is used as it should be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest

import redistrib as rd
from redistrib.cli import commands, running, values
from redistrib.text import parse_size

SRC, DST = "f32[64{x}, 32{y}]", "f32[64{y}, 32{x}]"
PROBLEM = ["--mesh", "x=2,y=4", SRC, DST]


def invoke(*arguments: str, stdin: str | None = None) -> click.testing.Result:
    result = click.testing.CliRunner().invoke(commands.program, arguments, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def done(*arguments: str, stdin: str | None = None) -> str:
    """The standard output of a command that succeeds and says nothing else."""
    result = invoke(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def expected() -> rd.Plan:
    mesh = rd.Mesh(x=2, y=4)
    return rd.plan(rd.ArrayType.parse(SRC, mesh), rd.ArrayType.parse(DST, mesh))


# --- plan and check


def test_plan_prints_the_plan() -> None:
    assert done("plan", *PROBLEM) == f"{expected()}\n"


def test_plan_as_json_prints_nothing_else() -> None:
    text = done("plan", *PROBLEM, "--format", "json")
    assert rd.Plan.from_json(text) == expected()
    assert json.loads(text)["format"] == "redistrib-plan/2"


@pytest.mark.parametrize("form", ["text", "json", "html", "sdy", "stablehlo", "jax"])
def test_plan_writes_a_file(form: str, tmp_path: Path) -> None:
    path = tmp_path / "plan"
    assert done("plan", *PROBLEM, "--format", form, "-o", str(path)) == ""
    assert path.read_text() == done("plan", *PROBLEM, "--format", form)


def test_a_program_is_one_of_collectives() -> None:
    assert "sdy.all_to_all" in done("plan", *PROBLEM, "--format", "sdy")
    assert '"stablehlo.all_to_all"' in done("plan", *PROBLEM, "--format", "stablehlo")
    assert "lax.all_to_all" in done("plan", *PROBLEM, "--format", "jax")
    result = invoke("plan", *PROBLEM, "--format", "sdy", "--strategy", "direct")
    assert result.exit_code == 2
    assert "Shardy has no word for an exchange" in result.stderr


def test_plan_takes_a_strategy_a_limit_and_a_profile(tmp_path: Path) -> None:
    profile = tmp_path / "slow.toml"
    profile.write_text("latency = 1.0\nbandwidth = 1e9\n")
    options = ["--strategy", "direct", "--memory-limit", "1GiB", "--profile", str(profile)]
    plan = json.loads(done("plan", *PROBLEM, *options, "--format", "json"))
    assert plan["strategy"] == "direct"
    assert plan["seconds"] >= 1.0


def test_the_same_mesh_may_be_given_twice() -> None:
    assert done("plan", *PROBLEM, "--dst-mesh", "x=2,y=4") == done("plan", *PROBLEM)


def test_check_accepts_what_plan_wrote(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    done("plan", *PROBLEM, "--format", "json", "-o", str(path))
    assert f"{SRC} -> {DST}: correct" in done("check", str(path))


def test_check_says_no_to_a_plan_with_a_step_dropped(tmp_path: Path) -> None:
    plan = json.loads(expected().to_json())
    plan["steps"].pop()
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    result = invoke("check", str(path))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1


def test_check_names_the_step_at_fault_in_one_line(tmp_path: Path) -> None:
    plan = json.loads(expected().to_json())
    path = tmp_path / "plan.json"
    for change in ({"jitter": 1}, {"axes": 7}, {"sent_bytes": 1.0}, {"collective": None}):
        steps = [*plan["steps"][:-1], {**plan["steps"][-1], **change}]
        path.write_text(json.dumps({**plan, "steps": steps}))
        result = invoke("check", str(path))
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"step {len(steps) - 1}: " in result.stderr
        assert result.stderr.count("\n") == 1


def test_check_says_no_to_wrong_figures(tmp_path: Path) -> None:
    plan = json.loads(expected().to_json())
    plan["received_bytes"] += 1
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    result = invoke("check", str(path))
    assert result.exit_code == 1
    assert "received_bytes" in result.stderr


def test_a_limit_below_the_least_possible_is_a_no() -> None:
    result = invoke("plan", *PROBLEM, "--memory-limit", "100B")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "1024" in result.stderr  # bytes of the tile at both ends, the least any plan needs


# --- run


@pytest.mark.parametrize(
    ("src", "dst"),
    [
        (SRC, DST),
        ("bf16[16{x}, 8]", "bf16[16, 8{y}]"),
        ("bool[16{x,y}]", "bool[16]"),
        ("i8[24{_3,y}]", "i8[24{x}]"),
        ("f32[16{x}] sum{y}", "f32[16{y}]"),
        ("f32[]", "f32[]"),
    ],
)
def test_run_verifies_on_the_simulator(src: str, dst: str) -> None:
    answer = json.loads(done("run", "--mesh", "x=2,y=4", src, dst, "--format", "json"))
    assert answer["verified"] is True
    assert answer["backend"] == "simulator"


def test_run_reads_and_writes_arrays(tmp_path: Path) -> None:
    array = np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    b = tmp_path / "b"
    text = done("run", *PROBLEM, "--input", str(tmp_path / "a.npy"), "--output", str(b))
    assert "every element is right" in text
    assert np.array_equal(np.load(b), array)


def test_run_reads_back_a_dtype_that_numpy_does_not_know(tmp_path: Path) -> None:
    a, b = tmp_path / "a.npy", tmp_path / "b.npy"
    problem = ["--mesh", "x=2", "bf16[8{x}]", "bf16[8]"]
    done("run", *problem, "--output", str(a))
    done("run", *problem, "--input", str(a), "--output", str(b))
    assert a.read_bytes() == b.read_bytes()


def test_run_repeats() -> None:
    answer = json.loads(done("run", *PROBLEM, "--repeat", "3", "--format", "json"))
    assert len(answer["seconds"]) == 3


@pytest.mark.parametrize(
    ("launcher", "backend"), [((), "jax"), (("mpiexec", "-n", "8"), "mpi")], ids=["jax", "mpi"]
)
def test_run_on_other_backends(launcher: tuple[str, ...], backend: str, tmp_path: Path) -> None:
    if launcher:
        launcher = (str(Path(sys.executable).with_name("mpiexec")), *launcher[1:])
    command = [*launcher, sys.executable, "-m", "redistrib", "run", *PROBLEM, "--backend", backend]
    output = tmp_path / "b.npy"
    used = subprocess.run(
        [*command, "--format", "json", "--output", str(output)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert used.returncode == 0, used.stderr
    answer = json.loads(used.stdout)  # of one rank: a second answer would not parse
    assert (answer["backend"], answer["verified"]) == (backend, True)
    assert np.array_equal(np.load(output), values.example_array(expected().src, summed=False))


def test_run_under_mpi_needs_a_rank_per_device() -> None:
    command = [sys.executable, "-m", "redistrib", "run", *PROBLEM, "--backend", "mpi"]
    used = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (used.returncode, used.stdout, used.stderr.count("\n")) == (2, "", 1)
    assert "1 rank" in used.stderr


def test_calibration_needs_two_ranks() -> None:
    command = [sys.executable, "-m", "redistrib", "calibrate", "--backend", "mpi"]
    used = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (used.returncode, used.stdout, used.stderr.count("\n")) == (2, "", 1)
    assert (
        "between two ranks or more, one for each position; got a mesh of 1 and 1 ranks"
        in used.stderr
    )


def test_a_run_without_an_mpi_says_what_to_install() -> None:
    """mpi4py comes without an MPI; where there is none it raises an error of its own."""
    command = [sys.executable, "-m", "redistrib", "run", *PROBLEM, "--backend", "mpi"]
    environment = {**os.environ, "MPI4PY_LIBMPI": "/no/libmpi.so"}
    used = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=environment
    )
    assert (used.returncode, used.stdout, used.stderr.count("\n")) == (2, "", 1)
    assert "pip install 'redistrib[mpi,mpich]'" in used.stderr
    assert "cannot load MPI library" in used.stderr


def test_a_large_run_says_first_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "LARGE", 1 << 10)
    result = invoke("run", *PROBLEM)
    assert result.exit_code == 0
    assert result.stderr.startswith("redistrib run: about ")
    assert "of memory: the array twice, and the tiles of 8 devices during the plan" in result.stderr


def test_the_estimate_of_memory_is_what_a_run_takes() -> None:
    texts = ("f32[1024{x}, 1024]", "f32[1024, 1024{x}]")
    src, dst = (rd.ArrayType.parse(text, rd.Mesh(x=4)) for text in texts)
    plan = rd.plan(src, dst)
    array = values.example_array(src, summed=False)
    tracemalloc.start()
    outcome = running.run(plan, "simulator", array, 1)
    peak = tracemalloc.get_traced_memory()[1] + array.nbytes
    tracemalloc.stop()
    assert outcome.array is not None
    assert peak / 1.5 <= running.needed_bytes(plan, "simulator") <= 1.5 * peak


def test_a_wrong_result_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        running, "run", lambda plan, backend, array, repeat: running.Run(array + 1, [1.0])
    )
    result = invoke("run", *PROBLEM)
    assert result.exit_code == 1
    assert "WRONG" in result.stdout


# --- cost


def ask(*questions: Any) -> list[dict[str, Any]]:
    lines = "\n".join(q if isinstance(q, str) else json.dumps(q) for q in questions)
    return [json.loads(line) for line in done("cost", stdin=lines + "\n").splitlines()]


def test_cost_answers_in_order_and_goes_on_after_errors() -> None:
    good = {"mesh": {"x": 2, "y": 4}, "src": SRC, "dst": DST}
    answers = ask(
        {**good, "id": "a"},
        "not json",
        {**good, "id": 2, "dst": "f32[64{q}, 32]"},
        {**good, "id": 3, "memory_limit": "1B"},
        {**good, "id": 4, "memory_limit": 2**30, "strategy": "direct"},
        [],
        {"id": 6, "mesh": {"x": 2}},
        {**good, "id": 7, "strategi": "direct"},
        {**good, "id": 8, "mesh": 3},
        {**good, "id": 9, "mesh": {"x": "two"}},
        {**good, "id": 10, "src": 5},
        {**good, "id": 11},
    )
    assert [answer["id"] for answer in answers] == ["a", None, 2, 3, 4, None, 6, 7, 8, 9, 10, 11]
    assert ["error" in answer for answer in answers] == [
        *(False, True, True, True, False, True),
        *(True, True, True, True, True, False),
    ]
    plan = expected()
    assert answers[0] == {
        "id": "a",
        "seconds": plan.seconds,
        "received_bytes": plan.received_bytes,
        "peak_tile_bytes": plan.peak_tile_bytes,
        "num_collectives": plan.num_collectives,
        "live_bytes": plan.live_bytes,
        "latencies": plan.latencies,
    }
    assert "'q'" in answers[2]["error"]
    assert "missing: ['src', 'dst']" in answers[6]["error"]
    assert "unknown: ['strategi']" in answers[7]["error"]


def test_cost_answers_batches_plans_and_explanations() -> None:
    mesh = {"x": 2, "y": 4}
    types = ["f32[64{x}, 32{y}]", "f32[64{y}, 32{x}]", "f32[64, 32]", "f32[64{x}, 32] sum{y}"]
    batch = {"mesh": mesh, "srcs": types, "dsts": types, "profile": "dgx-h100"}
    plan, vector, matrix, limited, found, chosen, across, short = ask(
        {"ask": "plan", "mesh": mesh, "src": SRC, "dst": DST},
        {"ask": "vector", **batch},
        {"ask": "matrix", **batch},
        {"ask": "matrix", **batch, "memory_limit": 4096},
        {"ask": "complete", "mesh": mesh, "src": "f32[64{x}, 32]", "dst": "f32[64, 32{?}]"},
        {"ask": "explain", "mesh": mesh, "src": SRC, "dst": DST},
        {"mesh": mesh, "dst_mesh": "z=8", "src": SRC, "dst": "f32[64{z}, 32]"},
        {"ask": "matrix", "mesh": mesh, "shape": [64, 32], "dtype": "f32", "srcs": [], "dsts": []},
    )
    assert rd.check(plan["plan"])
    on_mesh = [rd.ArrayType.parse(text, rd.Mesh(mesh)) for text in types]
    oracle = rd.Oracle(rd.Mesh(mesh), "dgx-h100")
    assert vector["seconds"] == oracle.cost_vector(on_mesh, on_mesh).tolist()
    assert matrix["seconds"] == oracle.cost_matrix(on_mesh, on_mesh).tolist()
    fits = [t.tile_bytes <= 4096 for t in on_mesh]
    assert [[s is not None for s in row] for row in limited["seconds"]] == [
        [a and b for b in fits] for a in fits
    ]
    source = rd.ArrayType.parse("f32[64{x}, 32]", rd.Mesh(mesh))
    assert found["dst"] == str(rd.complete(source, "f32[64, 32{?}]"))
    assert chosen["alternatives"][chosen["chosen"]]["seconds"] == expected().seconds
    assert across["seconds"] > 0
    assert short == {"id": None, "seconds": []}


@pytest.mark.parametrize(
    ("question", "kind", "words"),
    [
        ({"ask": "price"}, "RedistribError", "asks for cost, plan, explain"),
        ({"ask": "matrix"}, "RedistribError", "unknown: ['src', 'dst']"),
        ({"dst": "f32[64{q}, 32]"}, "LayoutError", "'q'"),
        ({"dst": "f32[64{q, 32]"}, "TypeSyntaxError", ""),
        ({"memory_limit": 1}, "InfeasibleError", "needs at least"),
        ({"ask": "complete", "dst_mesh": "z=8"}, "RedistribError", "on the mesh of the source"),
        ({"strategy": "bst"}, "RedistribError", "unknown strategy"),
    ],
)
def test_errors_of_cost_have_kinds(question: dict[str, Any], kind: str, words: str) -> None:
    (answer,) = ask({"mesh": {"x": 2, "y": 4}, "src": SRC, "dst": DST, **question})
    assert answer["kind"] == kind
    assert words in answer["error"]
    assert ("least_bytes" in answer) == (kind == "InfeasibleError")


def test_a_question_that_was_asked_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def cost(oracle: Any, *types: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        return original(oracle, *types, **options)

    original = rd.Oracle.cost
    monkeypatch.setattr(rd.Oracle, "cost", cost)
    question = {"mesh": {"x": 2, "y": 4}, "src": SRC, "dst": DST}
    answers = ask(*({**question, "id": n} for n in range(5)))
    assert [answer["id"] for answer in answers] == [*range(5)]
    assert len({answer["seconds"] for answer in answers}) == asked == 1


def test_cost_survives_bytes_that_are_no_text() -> None:
    command = [sys.executable, "-m", "redistrib", "cost"]
    question = b'{"mesh": {"x": 2}, "src": "f32[8{x}]", "dst": "f32[8]", "id": "b"}\n'
    used = subprocess.run(command, input=b"\xff\n" + question, capture_output=True, check=True)
    answers = [json.loads(line) for line in used.stdout.splitlines()]
    assert [sorted(answer)[0] for answer in answers] == ["error", "id"]
    assert [answer["id"] for answer in answers] == [None, "b"]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ('{"mesh": {"x": ' + "9" * 5000 + "}}", "too many digits"),
        ('{"mesh": {"x": 2}, "id": NaN}', "JSON has no NaN"),
        ('{"mesh": {"x": 2}, "memory_limit": -Infinity}', "JSON has no -Infinity"),
        ("[" * 100_000, "recursion"),
        ('{"mesh": {"x": 2}, "src": "' + "8" * 1_000_000 + '", "dst": "f32[8]"}', "column 1: "),
        ('{"mesh": {"\\ud800": 2}, "src": "f32[8]", "dst": "f32[8]"}', "an axis name is"),
        (
            '{"dst": "f32[@]", "src": "f32[@{x}]", "mesh": {"x": 3}}'.replace("@", "9" * 600),
            "at most 9223372036854775807, got '99999999... of 600 digits'",
        ),
        (
            '{"mesh": {"x": 2}, "src": "f32[8]", "dst": "f32[8]", "profile": "\\u0000"}',
            "a profile is",
        ),
        ('{"mesh": {"x": 2}, "src": "f32[8]", "dst": "f32[8]", "profile": "/"}', "a profile is"),
        ('{"mesh": {"x": 1e999}, "src": "f32[8]", "dst": "f32[8]"}', "inf"),
        ('{"mesh": {"x": 2}, "src": "f32[8]", "dst": "f32[8]", "memory_limit": 1e999}', "inf"),
        (
            '{"memory_limit": 5, "dst": "f32[@]", "src": "f32[@]", "mesh": {"x": 3}}'.replace(
                "@", ",".join(["9" * 18] * 16)
            ),
            "an array at most 2**240 elements",
        ),
    ],
    ids=lambda text: text[:24],
)
def test_cost_goes_on_after_any_line(bad: str, expected: str) -> None:
    good = '{"mesh": {"x": 2}, "src": "f32[8{x}]", "dst": "f32[8]", "id": 1}'
    spoilt, answer = ask(f"{bad}\n{good}")
    assert sorted(spoilt) == ["error", "id", "kind"]
    assert expected in spoilt["error"]
    assert answer["received_bytes"] == 16


@pytest.mark.parametrize("kind", [OverflowError, MemoryError, RecursionError, ValueError, KeyError])
def test_cost_goes_on_after_any_error(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("too much")

    monkeypatch.setattr(rd.Oracle, "cost", fail)
    question = '{"mesh": {"x": 2}, "src": "f32[8{x}]", "dst": "f32[8]", "id": 1}'
    answers = ask(question, question)
    assert [answer["id"] for answer in answers] == [1, 1]
    assert all(f"{kind.__name__}: " in answer["error"] for answer in answers)


def test_cost_ends_when_nobody_reads_on() -> None:
    command = [sys.executable, "-m", "redistrib", "cost"]
    question = b'{"mesh": {"x": 2}, "src": "f32[8{x}]", "dst": "f32[8]"}\n'
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(question)
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        with suppress(BrokenPipeError):  # if it has ended before all is written
            process.stdin.write(question * 10_000)
            process.stdin.close()
        assert process.wait(timeout=60) == 1
        assert process.stderr.read() == b""


def test_cost_answers_a_line_before_the_next_is_asked() -> None:
    question = json.dumps({"mesh": {"x": 2}, "src": "f32[8{x}]", "dst": "f32[8]"}) + "\n"
    command = [sys.executable, "-m", "redistrib", "cost"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdin.write(question)
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["received_bytes"] == 16
        process.stdin.close()
        assert process.wait(timeout=60) == 0


# --- the others


def test_info_names_versions_and_backends() -> None:
    facts = json.loads(done("info", "--format", "json"))
    assert facts["redistrib"] == rd.__version__
    assert facts["numpy"] == np.__version__
    assert facts["backends"][0] == "simulator"
    text = done("info")
    assert all(name in text for name in facts)


def test_version() -> None:
    assert done("--version") == f"redistrib {rd.__version__}\n"


def test_help_lists_the_commands() -> None:
    text = done("--help")
    for name in ("plan", "run", "check", "cost", "demo", "info", "calibrate", "prove", "bench"):
        assert name in text


def test_the_program_alone_prints_help() -> None:
    assert done() == done("--help")


@pytest.mark.parametrize("name", ["prove", "bench"])
def test_prove_and_bench_need_a_checkout(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rd, "__file__", str(tmp_path / "redistrib/__init__.py"))
    result = invoke(name)
    assert result.exit_code == 2
    wanted = "needs a source checkout of redistrib; this is an installed package"
    assert result.stderr == f"redistrib {name}: {wanted}\n"


@pytest.mark.parametrize(("name", "package"), [("prove", "proofs"), ("bench", "bench")])
def test_prove_and_bench_run_the_checkout_and_pass_on_options(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "setup.cfg").touch()
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    (tmp_path / package / "__main__.py").write_text(
        "import os, sys; sys.exit(0 if sys.argv[1:] == ['--quick', os.getcwd()] else 1)"
    )
    monkeypatch.setattr(rd, "__file__", str(tmp_path / "redistrib/__init__.py"))
    # Paths among the options are those of the user's directory.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert invoke(name, "--quick", str(Path.cwd())).exit_code == 0
    assert invoke(name).exit_code == 1


def test_who_ends_the_command_ends_what_it_runs(tmp_path: Path) -> None:
    (tmp_path / "setup.cfg").touch()
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/__init__.py").touch()
    (tmp_path / "bench/__main__.py").write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('ended', flush=True), sys.exit(143)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    code = (
        f"import redistrib as rd; rd.__file__ = {str(tmp_path / 'redistrib/__init__.py')!r}\n"
        "from redistrib.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "bench"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None
        assert bench.stdout.readline() == "ready\n"
        bench.terminate()
        assert bench.stdout.readline() == "ended\n"
        assert bench.wait(timeout=30) == 143


@pytest.mark.parametrize("command", [("redistrib",), (sys.executable, "-m", "redistrib")])
def test_the_entry_points(command: tuple[str, ...]) -> None:
    if command == ("redistrib",):
        command = (str(Path(sys.executable).with_name("redistrib")),)
    used = subprocess.run([*command, "plan", *PROBLEM], capture_output=True, text=True, check=True)
    assert used.stdout == f"{expected()}\n"
    assert used.stderr == ""


# --- values


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("123", 123),
        ("7B", 7),
        ("1kB", 1000),
        ("1KB", 1000),
        ("1KiB", 1024),
        (" 2 mib ", 2 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("1TB", 10**12),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("name", ["bool", "i8", "u8", "f8e4m3fn", "f8e5m2", "bf16", "f16", "c128"])
def test_example_arrays_are_exact_small_integers(name: str) -> None:
    t = rd.ArrayType.parse(f"{name}[16, 64]", rd.Mesh())
    array = values.example_array(t, summed=False)
    assert array.dtype == t.numpy_dtype
    integers = array.astype(np.complex128)
    assert np.array_equal(integers.real, np.round(integers.real))
    assert len(set(integers.reshape(-1).tolist())) >= 2
    assert np.array_equal(array, values.example_array(t, summed=False))


def test_equality_sees_every_bit() -> None:
    zero, minus = np.zeros(3, np.float32), np.full(3, -0.0, np.float32)
    nan = np.full(3, np.nan)
    assert not values.equal(zero, minus, summed=False)
    assert values.equal(zero, minus, summed=True)
    assert values.equal(nan, nan, summed=True)
    assert not values.equal(zero, zero.astype(np.int32), summed=True)
    assert not values.equal(zero, zero[:2], summed=True)
