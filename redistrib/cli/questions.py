"""`redistrib cost`: a server of one JSON object a line, for programs that ask for many prices.

    {"id": 1, "mesh": {"x": 2}, "src": "f32[8{x}]", "dst": "f32[8]"}
    {"id": 1, "seconds": 1.16e-06, "received_bytes": 16, "peak_tile_bytes": 32, ...}

Every line has one answer, in order. A line that is no question, or one without an answer, has an
error, and the next line is read as if nothing had happened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from redistrib.cli import values
from redistrib.errors import RedistribError
from redistrib.synth.oracle import Oracle

QUESTION = ("id", "mesh", "src", "dst", "shape", "dtype", "strategy", "memory_limit", "profile")


def answers(lines: Iterable[str]) -> Iterator[str]:
    """The answer to each line that is not blank, as text."""
    oracles = lru_cache(maxsize=16)(Oracle)  # they remember what was asked before
    for line in lines:
        if line.strip():
            yield json.dumps(_answer(line, oracles))


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
    if not isinstance(question, dict):
        raise RedistribError(f"a question is a JSON object; got {line.strip()[:80]!r}")
    return question


def _answer(line: str, oracles: Callable[..., Oracle]) -> dict[str, Any]:
    identity = None
    try:
        question = _question(line)
        identity = question.get("id")
        missing = [name for name in ("mesh", "src", "dst") if name not in question]
        unknown = [name for name in question if name not in QUESTION]
        if missing or unknown:
            raise RedistribError(
                "a question has mesh, src, dst and optionally shape, dtype, strategy, "
                f"memory_limit, profile, id; missing: {missing}, unknown: {unknown}"
            )
        if not isinstance(question["mesh"], dict | str):
            raise RedistribError(f"mesh is {{AXIS: SIZE, ...}}; got {question['mesh']!r}")
        for name in ("src", "dst", "dtype", "strategy", "profile"):
            if not isinstance(question.get(name, ""), str):
                raise RedistribError(f"{name} is a text; got {question[name]!r}")
        if not isinstance(question.get("shape", []), list | str):
            raise RedistribError(f"shape is a list of sizes; got {question['shape']!r}")
        (src, dst), options = values.stated_problem(
            **{k: question[k] for k in question if k != "id"}
        )
        oracle = oracles(src.mesh, options["profile"], options["memory_limit"])
        return {"id": identity, **asdict(oracle.cost(src, dst, strategy=options["strategy"]))}
    except RedistribError as error:
        return {"id": identity, "error": values.one_line(error)}
    except Exception as error:  # noqa: BLE001 - whatever a line does, the next one is answered
        name = type(error).__name__
        return {"id": identity, "error": f"this question cannot be answered: {name}: {error}"}
