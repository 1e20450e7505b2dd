"""`redistrib cost`: a server of one JSON object a line, for programs that ask for many prices.

    {"id": 1, "mesh": {"x": 2}, "src": "f32[8{x}]", "dst": "f32[8]"}
    {"id": 1, "seconds": 1.00016e-06, "received_bytes": 16, "peak_tile_bytes": 32, ...}

A question says what it asks for as `ask`; without it, "cost":

    "cost", "plan", "explain"    src and dst: the figures, the plan, what there was to choose from
    "complete"                   src and a dst with holes: the cheapest type, and what it costs
    "vector"                     srcs and dsts, as many: seconds of each pair
    "matrix"                     srcs and dsts: seconds from each to each, closed over all of them

Every line has one answer, in order; null are seconds where nothing fits the limit. A line that is
no question, or one without an answer, has an error with its `kind`, and the next line is read as if
nothing had happened. An answer is remembered, so that the same question is not planned again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from math import isfinite
from typing import Any

import redistrib as rd
from redistrib.cli import values
from redistrib.errors import InfeasibleError, RedistribError
from redistrib.interop.notations import read_any, states_array
from redistrib.synth.oracle import Oracle
from redistrib.text import parse_size
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

REMEMBERED = 1 << 16
"""Answers that are remembered, by the question but its id."""
TEXTS = ("src", "dst", "dst_mesh", "dtype", "strategy", "profile", "ask")
LISTS = ("srcs", "dsts")
KEYS = ("id", "mesh", *TEXTS, *LISTS, "shape", "memory_limit")

Answer = dict[str, Any]


def answers(lines: Iterable[str]) -> Iterator[str]:
    """The answer to each line that is not blank, as text."""
    oracles = lru_cache(maxsize=16)(Oracle)  # they remember what was asked before

    @lru_cache(maxsize=REMEMBERED)
    def remembered(question: str) -> str:
        return json.dumps(_answered(json.loads(question), oracles))[1:]

    for line in lines:
        if line.strip():
            identity = None
            try:
                question = _question(line)
                identity = question.pop("id", None)
                answer = remembered(json.dumps(question))
            except RedistribError as error:
                answer = json.dumps(_error(error))[1:]
            yield f'{{"id": {json.dumps(identity)}, {answer}'


def _no_constant(name: str) -> None:
    raise RedistribError(f"JSON has no {name}")


def _question(line: str) -> dict[str, Any]:
    try:
        question = json.loads(line, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise RedistribError(
            f"a question is one line of JSON; column {error.colno}: {error.msg}"
        ) from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise RedistribError("a number of a question has too many digits to be read") from None
    except RecursionError:
        raise RedistribError("a question is nested too deeply: a recursion") from None
    if not isinstance(question, dict):
        raise RedistribError(f"a question is a JSON object; got {line.strip()[:80]!r}")
    return question


def _answered(question: dict[str, Any], oracles: Callable[..., Oracle]) -> Answer:
    """The answer to a question, an error included."""
    try:
        ask = question.get("ask", "cost")
        if not isinstance(ask, str) or ask not in ASKED:
            raise RedistribError(f"a question asks for {', '.join(ASKED)}; got {ask!r}")
        _check(question, LISTS if ask in ("vector", "matrix") else ("src", "dst"))
        asked = {key: value for key, value in question.items() if key != "ask"}
        return ASKED[ask](asked, oracles)
    except RedistribError as error:
        return _error(error)
    except Exception as error:  # noqa: BLE001 - whatever a line does, the next one is answered
        name = type(error).__name__
        return {"error": f"this question cannot be answered: {name}: {error}", "kind": name}


def _error(error: RedistribError) -> Answer:
    """What an error says, its class, and for an InfeasibleError the least limit that does."""
    answer = {"error": values.one_line(error), "kind": type(error).__name__}
    if isinstance(error, InfeasibleError) and "least_bytes" in vars(error):
        answer["least_bytes"] = vars(error)["least_bytes"]
    return answer


def _check(question: dict[str, Any], ends: Sequence[str]) -> None:
    """Raise RedistribError for a key that is missing, unknown, or of another kind."""
    missing = [name for name in ("mesh", *ends) if name not in question]
    unknown = [name for name in question if name not in KEYS]
    unknown += [name for name in ("src", "dst", *LISTS) if name in question and name not in ends]
    if missing or unknown:
        raise RedistribError(
            f"a question has mesh, {ends[0]}, {ends[1]} and optionally ask, dst_mesh, shape, "
            f"dtype, strategy, memory_limit, profile, id; missing: {missing}, unknown: {unknown}"
        )
    if not isinstance(question["mesh"], dict | str):
        raise RedistribError(f"mesh is {{AXIS: SIZE, ...}}; got {question['mesh']!r}")
    for name in TEXTS:
        if not isinstance(question.get(name, ""), str):
            raise RedistribError(f"{name} is a text; got {question[name]!r}")
    for name in LISTS:
        texts = question.get(name, [])
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise RedistribError(f"{name} is a list of texts; got {str(texts)[:80]}")
    if not isinstance(question.get("shape", []), list | str):
        raise RedistribError(f"shape is a list of sizes; got {question['shape']!r}")


def _cost(question: dict[str, Any], oracles: Callable[..., Oracle]) -> Answer:
    (src, dst), options = values.stated_problem(**question)
    if dst.mesh != src.mesh:
        return asdict(rd.cost(src, dst, effort="best", **options))
    oracle = oracles(src.mesh, options["profile"], options["memory_limit"])
    return asdict(oracle.cost(src, dst, strategy=options["strategy"]))


def _plan(question: dict[str, Any], oracles: Callable[..., Oracle]) -> Answer:
    del oracles
    (src, dst), options = values.stated_problem(**question)
    return {"plan": json.loads(rd.plan(src, dst, effort="best", **options).to_json())}


def _explain(question: dict[str, Any], oracles: Callable[..., Oracle]) -> Answer:
    del oracles
    (src, dst), options = values.stated_problem(**question)
    if options.pop("strategy") != "auto":
        raise RedistribError("what there was to choose from is that of the strategy auto")
    choice = rd.explain(src, dst, effort="best", **options)
    alternatives = [
        {"name": name, "reason": plan}
        if isinstance(plan, str)
        else {
            "name": name,
            "seconds": plan.seconds,
            "received_bytes": plan.received_bytes,
            "peak_tile_bytes": plan.peak_tile_bytes,
            "steps": [step.collective for step in plan.steps],
        }
        for name, plan in choice.alternatives
    ]
    return {"chosen": choice.chosen, "alternatives": alternatives}


def _complete(question: dict[str, Any], oracles: Callable[..., Oracle]) -> Answer:
    if "dst_mesh" in question:
        raise RedistribError("a type with holes is completed on the mesh of the source")
    pattern = question.pop("dst")
    (src, _), options = values.stated_problem(dst=question["src"], **question)
    dst = rd.complete(src, pattern, **options)
    oracle = oracles(src.mesh, options["profile"], options["memory_limit"])
    return {"dst": str(dst), **asdict(oracle.cost(src, dst, strategy=options["strategy"]))}


def _vector(question: dict[str, Any], oracles: Callable[..., Oracle]) -> Answer:
    srcs, dsts, oracle, strategy = _batch(question, oracles)
    return {"seconds": _numbers(oracle.cost_vector(srcs, dsts, strategy=strategy).tolist())}


def _matrix(question: dict[str, Any], oracles: Callable[..., Oracle]) -> Answer:
    srcs, dsts, oracle, strategy = _batch(question, oracles)
    rows = oracle.cost_matrix(srcs, dsts, strategy=strategy).tolist()
    return {"seconds": [_numbers(row) for row in rows]}


def _batch(
    question: dict[str, Any], oracles: Callable[..., Oracle]
) -> tuple[list[ArrayType], list[ArrayType], Oracle, Any]:
    """Sources, targets, who prices them and how. One of them has to state shape and dtype."""
    if "dst_mesh" in question:
        raise RedistribError("the types of a batch are on one mesh; a cost may have a dst_mesh")
    axes = question["mesh"]
    mesh = Mesh.parse(axes) if isinstance(axes, str) else Mesh(axes)
    texts = [*question["srcs"], *question["dsts"]]
    sizes, dtype = values.parse_shape(question.get("shape")), question.get("dtype")
    whole = next((text for text in texts if states_array(text)), None)
    if whole is not None and sizes is None:
        like = read_any(whole, mesh)
        sizes, dtype = like.shape, like.dtype
    types = [
        read_any(text, mesh) if states_array(text) else read_any(text, mesh, sizes, dtype)
        for text in texts
    ]
    limit = question.get("memory_limit")
    options = (question.get("profile"), None if limit is None else parse_size(limit))
    count = len(question["srcs"])
    return types[:count], types[count:], oracles(mesh, *options), question.get("strategy", "auto")


def _numbers(seconds: list[float]) -> list[float | None]:
    return [value if isfinite(value) else None for value in seconds]


ASKED: dict[str, Callable[[dict[str, Any], Callable[..., Oracle]], Answer]] = {
    "cost": _cost,
    "plan": _plan,
    "explain": _explain,
    "complete": _complete,
    "vector": _vector,
    "matrix": _matrix,
}
"""What a question may ask for."""
