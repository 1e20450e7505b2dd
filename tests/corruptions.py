"""Plans as data, and every way that the tests corrupt them."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import redistrib as rd
from redistrib.synth.plan import collectives as c
from redistrib.synth.plan.data import make_plan
from redistrib.synth.plan.tables import permute_table
from redistrib.synth.planner.problem import Strategy
from redistrib.types.digits import parse_device_digit as device
from redistrib.types.digits import parse_index_digit as index
from tests.problems import random_type
from tests.random_plans import random_mesh

XY = rd.Mesh(x=2, y=4)
MIXED = rd.Mesh(x=4, y=6, z=2)
Data = dict[str, Any]


def planned(mesh: rd.Mesh, src: str, dst: str, strategy: Strategy) -> Data:
    ends = (rd.ArrayType.parse(text, mesh) for text in (src, dst))
    data: Data = json.loads(rd.plan(*ends, strategy=strategy).to_json())
    return data


def by_hand(mesh: rd.Mesh, src: str, *steps: c.Collective) -> Data:
    before = after = rd.ArrayType.parse(src, mesh)
    for step in steps:
        after = step.apply(after)
    data: Data = json.loads(make_plan(before, after, "auto", steps).to_json())
    return data


def by_table(mesh: rd.Mesh, src: str, dst: str) -> Data:
    before, after = (rd.ArrayType.parse(text, mesh) for text in (src, dst))
    return by_hand(mesh, src, c.CollectivePermute((), permute_table(before, after)))


def crossing(src: str, dst: str) -> Data:
    """Between x=2,y=4 and a=4,b=2 on eight other devices."""
    onto = rd.Mesh({"a": 4, "b": 2}, devices=range(8, 16))
    ends = rd.ArrayType.parse(src, XY), rd.ArrayType.parse(dst, onto)
    data: Data = json.loads(rd.plan(*ends, strategy="direct").to_json())
    return data


PLANS: dict[str, Data] = {
    "permute and all_to_all": by_hand(
        XY,
        "f32[64{x}, 64{y}]",
        c.CollectivePermute(
            ((device("x:(1)2"), device("y:(1)2")), (device("y:(1)2"), device("x:(1)2")))
        ),
        c.AllToAll((c.Move(device("y:(2)2"), index("1:(2)2"), index("0:(2)2")),)),
    ),
    "slice, all_to_all, gather": by_hand(
        XY,
        "bf16[64{x}, 64]",
        c.DynamicSlice(((device("y:(1)2"), index("1:(1)2")), (device("y:(2)2"), index("1:(2)2")))),
        c.AllToAll((c.Move(device("x:(1)2"), index("0:(1)2"), index("1:(8)2")),)),
        c.AllGather(((device("y:(2)2"), index("1:(2)2")), (device("y:(1)2"), index("1:(1)2")))),
    ),
    "all about partial sums": by_hand(
        rd.Mesh(x=2, y=4, z=3),
        "f32[8{x}, 12] sum{y}",
        c.ReduceScatter(((device("y:(1)2"), index("1:(1)2")),)),
        c.AllReduce((device("y:(2)2"),)),
        c.ReplicatedToPartial((device("z:(1)3"),), "sum"),
        c.ShardedToPartial(((device("x:(1)2"), index("0:(1)2")),), "sum"),
        c.ReduceScatter(((device("x:(1)2"), index("0:(2)2")), (device("z:(1)3"), index("1:(2)3")))),
    ),
    "aligned exchange": planned(XY, "f32[8{x}, 8{y}]", "f32[8{y}, 8{x}]", "direct"),
    "aligned exchange between replicas": planned(
        rd.Mesh(x=2, y=2, z=4), "f32[8{x}, 8{z}]", "f32[8{y}, 8{x}]", "direct"
    ),
    "misaligned exchange": planned(MIXED, "f32[48{x}, 48{y}]", "f32[48{y}, 48{x}]", "direct"),
    "misaligned exchange between replicas": planned(
        MIXED, "f32[24{y}, 10{z}]", "f32[24{x}, 10]", "direct"
    ),
    "misaligned exchange between replicas of another number": planned(
        rd.Mesh(x=3, y=2), "f32[6{y}]", "f32[6{x}]", "direct"
    ),
    "exchange onto another mesh": crossing("f32[8{x}, 8]", "f32[8{a}, 8]"),
    "permute of three axes, one of them free": by_hand(
        rd.Mesh(x=2, y=2, z=2),
        "i8[8{x}, 8{y}]",
        c.CollectivePermute(
            (
                (device("x:(1)2"), device("y:(1)2")),
                (device("y:(1)2"), device("z:(1)2")),
                (device("z:(1)2"), device("x:(1)2")),
            )
        ),
    ),
    "table permute of replicated tiles": by_table(
        rd.Mesh(x=4, y=3), "f32[24{x}, 2]", "f32[24{x:(2)2,x:(1)2}, 2]"
    ),
    "table permute": by_table(rd.Mesh(x=4, y=6), "f32[48{x,y}, 2]", "f32[48{y,x}, 2]"),
}


Corruption = Callable[[Data], Iterator[Data]]
CORRUPTIONS: dict[str, Corruption] = {}


def corruption(make: Corruption) -> Corruption:
    """Register a function that yields corrupted copies of a plan; some plans may yield none."""
    CORRUPTIONS[make.__name__.replace("_", " ")] = make
    return make


def changed(data: Data, *path: Any, to: Any) -> Data:
    """A copy of nested data with one entry replaced."""
    result = copy.deepcopy(data)
    at = result
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = to
    return result


def with_steps(data: Data, steps: list[Any]) -> Data:
    """The plan with other steps, its totals adjusted so that only the steps are at fault."""
    local = ("dynamic_slice", "replicated_to_partial", "sharded_to_partial")
    return {
        **data,
        "steps": copy.deepcopy(steps),
        "received_bytes": sum(step["received_bytes"] for step in steps),
        "sent_bytes": sum(step["sent_bytes"] for step in steps),
        "num_collectives": sum(step["collective"] not in local for step in steps),
    }


@corruption
def dropped_step(data: Data) -> Iterator[Data]:
    for at in range(len(data["steps"])):
        yield with_steps(data, data["steps"][:at] + data["steps"][at + 1 :])


@corruption
def duplicated_step(data: Data) -> Iterator[Data]:
    for at in range(1, len(data["steps"]) + 1):
        yield with_steps(data, data["steps"][:at] + data["steps"][at - 1 :])


@corruption
def swapped_steps(data: Data) -> Iterator[Data]:
    steps = data["steps"]
    for at in range(len(steps) - 1):
        yield with_steps(data, [*steps[:at], steps[at + 1], steps[at], *steps[at + 2 :]])


@corruption
def wrong_type_text(data: Data) -> Iterator[Data]:
    texts = [data["src"], *(step["type"] for step in data["steps"]), "f32[7]", "f32[8", ""]
    for at, step in enumerate(data["steps"]):
        for text in texts:
            if text != step["type"]:
                yield changed(data, "steps", at, "type", to=text)


@corruption
def another_end(data: Data) -> Iterator[Data]:
    yield changed(data, "dst", to=data["src"])
    yield changed(data, "src", to=data["dst"])
    yield changed(data, "dst", to="u16" + data["dst"][data["dst"].index("[") :])
    yield changed(data, "src", to=data["src"].partition("]")[0] + ", 2]")


@corruption
def swapped_axes(data: Data) -> Iterator[Data]:
    axes = data["mesh"]["axes"]
    names = [name for name, _ in axes]
    turned = [[names[at - 1], size] for at, (_, size) in enumerate(axes)]
    if len({size for _, size in axes}) > 1:
        yield changed(data, "mesh", "axes", to=turned)
    for at, step in enumerate(data["steps"]):
        if step["axes"][::-1] != step["axes"]:
            yield changed(data, "steps", at, "axes", to=step["axes"][::-1])
        yield changed(data, "steps", at, "axes", to=[*step["axes"], names[0]])


@corruption
def wrong_figure_of_a_step(data: Data) -> Iterator[Data]:
    for at, step in enumerate(data["steps"]):
        for figure in ("received_bytes", "sent_bytes", "live_bytes"):
            for wrong in (step[figure] + 1, step[figure] * 2 + 4, -4, None, str(step[figure])):
                yield changed(data, "steps", at, figure, to=wrong)
        shape = step["local_shape"]
        for wrong in (shape[::-1] if shape[::-1] != shape else None, [*shape, 1], shape[:-1]):
            yield changed(data, "steps", at, "local_shape", to=wrong)


@corruption
def wrong_total(data: Data) -> Iterator[Data]:
    totals = ("received_bytes", "sent_bytes", "lower_bound_bytes", "peak_tile_bytes")
    for figure in (*totals, "live_bytes", "num_collectives"):
        for wrong in (data[figure] + 1, data[figure] - 1, data[figure] * 2 + 4, None):
            yield changed(data, figure, to=wrong)


@corruption
def wrong_received_everywhere(data: Data) -> Iterator[Data]:
    """The figure of a step and the total agree, and both are wrong."""
    for figure in ("received_bytes", "sent_bytes"):
        for at, step in enumerate(data["steps"]):
            wrong = changed(data, "steps", at, figure, to=step[figure] + 4)
            yield {**wrong, figure: data[figure] + 4}


@corruption
def wrong_digit(data: Data) -> Iterator[Data]:
    """Another group: a digit of a step is coarser, finer, of another axis or dimension."""
    for at, step in enumerate(data["steps"]):
        for key in ("placements", "moves", "digits"):
            for n, item in enumerate(step.get(key, ())):
                for m, text in enumerate([item] if key == "digits" else item):
                    of, pre, size = text.replace(")", ":(").split(":(")
                    others = dict(zip("xyzab", "yxxba", strict=True))
                    other = others.get(of, "1" if of == "0" else "0")  # a dimension
                    for wrong in (
                        f"{of}:({int(pre) * 2}){size}",
                        f"{of}:({pre}){int(size) * 2}",
                        f"{other}:({pre}){size}",
                        f"q:({pre}){size}",
                        f"{of}:({pre})",
                    ):
                        path = (key, n) if key == "digits" else (key, n, m)
                        yield changed(data, "steps", at, *path, to=wrong)


@corruption
def missing_or_repeated_digit(data: Data) -> Iterator[Data]:
    for at, step in enumerate(data["steps"]):
        for key in ("placements", "moves", "digits", "routes"):
            for n in range(len(step.get(key, ()))):
                items = step[key]
                yield changed(data, "steps", at, key, to=items[:n] + items[n + 1 :])
                yield changed(data, "steps", at, key, to=[*items, items[n]])


@corruption
def wrong_move(data: Data) -> Iterator[Data]:
    for at, step in enumerate(data["steps"]):
        for n, (digit, source, target) in enumerate(step.get("moves", ())):
            yield changed(data, "steps", at, "moves", n, to=[digit, target, source])
            yield changed(data, "steps", at, "moves", n, to=[digit, source, source])
            yield changed(data, "steps", at, "moves", n, to=[digit, source])


@corruption
def wrong_route(data: Data) -> Iterator[Data]:
    for at, step in enumerate(data["steps"]):
        routes = step.get("routes", [])
        for n, (old, new) in enumerate(routes):
            yield changed(data, "steps", at, "routes", n, to=[new, new])
            yield changed(data, "steps", at, "routes", n, to=[old, old])
        if routes:
            stay = [[old, old] for old, _ in routes]
            yield changed(data, "steps", at, "routes", to=stay)


@corruption
def wrong_table_source(data: Data) -> Iterator[Data]:
    for at, step in enumerate(data["steps"]):
        sources = step.get("table", {}).get("sources", [])
        for n in range(1, len(sources)):
            wrong = [*sources]
            wrong[n - 1], wrong[n] = wrong[n], wrong[n - 1]
            yield changed(data, "steps", at, "table", "sources", to=wrong)
            yield changed(data, "steps", at, "table", "sources", n, to=sources[n - 1])
            yield changed(data, "steps", at, "table", "sources", n, to=len(sources))
        if sources:
            yield changed(data, "steps", at, "table", "sources", to=sources[:-1])
            axes = step["table"]["axes"]
            for wrong_axes in (axes[:-1], [*axes, "q:(1)2"], [*axes, axes[0]], axes[::-1]):
                if wrong_axes != axes:
                    yield changed(data, "steps", at, "table", "axes", to=wrong_axes)
            placements = step["table"]["placements"]
            yield changed(data, "steps", at, "table", "placements", to=placements[:-1])


@corruption
def wrong_replica(data: Data) -> Iterator[Data]:
    for at, step in enumerate(data["steps"]):
        replicas = step.get("replicas", [])
        for n, (theirs, mine) in enumerate(replicas):
            yield changed(data, "steps", at, "replicas", to=replicas[:n] + replicas[n + 1 :])
            for wrong in ([theirs, theirs], [mine, theirs], [theirs], [theirs, "q:(1)2"]):
                yield changed(data, "steps", at, "replicas", n, to=wrong)


@corruption
def wrong_routing_row(data: Data) -> Iterator[Data]:
    for at, step in enumerate(data["steps"]):
        for n, table in enumerate(step.get("tables", ())):
            path = ("steps", at, "tables", n)
            rows = table["rows"]
            yield changed(data, *path, "rows", to=rows[:-1])
            yield changed(data, *path, "rows", to=[*rows[1:], rows[0]])
            yield changed(data, *path, "axes", to=table["axes"][:-1])
            for r in range(0, len(rows), 3):
                row = rows[r]
                for e, (value, sender) in enumerate(row):
                    yield changed(data, *path, "rows", r, to=row[:e] + row[e + 1 :])
                    yield changed(data, *path, "rows", r, e, to=[value, len(rows) + sender])
                    yield changed(data, *path, "rows", r, e, to=[value, sender - len(rows)])
                    other = next(s for v, s in rows[r] + rows[r - 1] if v != value)
                    yield changed(data, *path, "rows", r, e, to=[value, other])


@corruption
def wrong_reduction(data: Data) -> Iterator[Data]:
    for at, step in enumerate(data["steps"]):
        if "reduction" in step:
            for wrong in ("max", "mean", None):
                yield changed(data, "steps", at, "reduction", to=wrong)


@corruption
def another_collective(data: Data) -> Iterator[Data]:
    names = ("dynamic_slice", "all_gather", "all_to_all", "reduce_scatter", "all_reduce", "magic")
    for at, step in enumerate(data["steps"]):
        for name in (*names, "exchange", "sharded_to_partial", None):
            if name != step["collective"]:
                yield changed(data, "steps", at, "collective", to=name)


@corruption
def foreign_format(data: Data) -> Iterator[Data]:
    for wrong in ("redistrib-plan/3", "", None, 1):
        yield changed(data, "format", to=wrong)
    yield changed(data, "strategy", to="fastest")
    for seconds in (float("nan"), float("inf"), -1.0, "1", None):
        yield changed(data, "seconds", to=seconds)


@corruption
def missing_entry(data: Data) -> Iterator[Data]:
    for key in data:
        yield {name: value for name, value in data.items() if name != key}
    for at, step in enumerate(data["steps"]):
        for key in step:
            if key == "tables":
                continue
            less = {name: value for name, value in step.items() if name != key}
            yield changed(data, "steps", at, to=less)


@corruption
def entry_of_another_kind(data: Data) -> Iterator[Data]:
    for wrong in (None, 7, "text", [], {}, [None], {"a": 1}, -1):
        yield wrong  # type: ignore[misc]
        for key in ("mesh", "src", "steps", "format", "strategy"):
            yield changed(data, key, to=wrong)
        for at, step in enumerate(data["steps"]):
            yield changed(data, "steps", at, to=wrong)
            for key in step:
                # No replicas are no replicas, in a list or in anything else that is empty.
                if step[key] != wrong and not (key in ("tables", "replicas") and wrong in ([], {})):
                    yield changed(data, "steps", at, key, to=wrong)


def numbers_of(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Where the numbers of nested data are, with their values."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from numbers_of(value, (*path, key))
        elif isinstance(value, int | float):
            yield (*path, key), value


def objects_of(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the objects of nested data are, the outermost first."""
    if isinstance(data, dict):
        yield path
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from objects_of(value, (*path, key))


def at_path(data: Any, path: tuple[Any, ...]) -> Any:
    """The entry at a path."""
    for key in path:
        data = data[key]
    return data


@corruption
def a_count_as_float(data: Data) -> Iterator[Data]:
    for path, value in numbers_of(data):
        if isinstance(value, int):
            yield changed(data, *path, to=float(value))


@corruption
def a_count_as_boolean(data: Data) -> Iterator[Data]:
    for path, value in numbers_of(data):
        if value in (0, 1):
            yield changed(data, *path, to=bool(value))


@corruption
def a_count_as_text(data: Data) -> Iterator[Data]:
    for path, value in numbers_of(data):
        yield changed(data, *path, to=str(value))


@corruption
def a_negative_count(data: Data) -> Iterator[Data]:
    for path, value in numbers_of(data):
        if value > 0:
            yield changed(data, *path, to=-value)


@corruption
def a_huge_count(data: Data) -> Iterator[Data]:
    for path, value in numbers_of(data):
        if path[0] != "profile":  # of a profile any finite number is right, at another price
            yield changed(data, *path, to=value + 10**30)


@corruption
def no_number(data: Data) -> Iterator[Data]:
    for path, _ in numbers_of(data):
        for wrong in (float("nan"), float("inf"), None):
            yield changed(data, *path, to=wrong)


@corruption
def an_unknown_key(data: Data) -> Iterator[Data]:
    for path in objects_of(data):
        inside = at_path(data, path)
        if path[-1:] != ("axes",) or path[:1] != ("profile",):
            yield changed(data, *path, "jitter", to=1) if path else {**inside, "jitter": 1}
            yield changed(data, *path, "Axes", to=[]) if path else {**inside, "": None}


@corruption
def onto_another_mesh(data: Data) -> Iterator[Data]:
    for at in range(len(data["steps"])):
        for onto in ("dst_mesh", "mesh", None, ""):
            if onto != data["steps"][at].get("onto", 0):
                yield changed(data, "steps", at, "onto", to=onto)
    one_device: Data = {"axes": [], "devices": None}
    meshes: list[Any] = [{}, [], False, 0, "", data["mesh"], one_device]
    for wrong in meshes:
        yield changed(data, "dst_mesh", to=wrong)


@corruption
def entries_that_nobody_asks_for(data: Data) -> Iterator[Data]:
    for at, step in enumerate(data["steps"]):
        for n, table in enumerate(step.get("tables", ())):
            rows = table["rows"]
            for r in (0, len(rows) - 1):
                path = ("steps", at, "tables", n, "rows", r)
                free = {*range(64)} - {value for value, _ in rows[r]}
                for extra in ([1_000_000, 0], [-1, 0], [min(free), 0], [min(free), -1]):
                    yield changed(data, *path, to=[*rows[r], extra])
                    yield changed(data, *path, to=[extra, *rows[r]])
                yield changed(data, *path, to=[*rows[r], rows[r][-1]])
                yield changed(data, *path, to=[])
            yield changed(data, "steps", at, "tables", n, "rows", to=[*rows, []])
            yield changed(data, "steps", at, "tables", n, "rows", to=[*rows, rows[0]])


@corruption
def rows_out_of_order(data: Data) -> Iterator[Data]:
    for at, step in enumerate(data["steps"]):
        for n, table in enumerate(step.get("tables", ())):
            for r, row in enumerate(table["rows"]):
                if len(row) > 1:
                    yield changed(data, "steps", at, "tables", n, "rows", r, to=row[::-1])


@corruption
def a_table_too_many(data: Data) -> Iterator[Data]:
    for at, step in enumerate(data["steps"]):
        if step["collective"] != "exchange":
            continue
        tables = step.get("tables", [])
        axis, size = data["mesh"]["axes"][0]
        useless = {"axes": [f"{axis}:(1){size}"], "owners": [], "rows": [[]] * size}
        yield changed(data, "steps", at, "tables", to=[*tables, useless])
        yield changed(data, "steps", at, "tables", to=[*tables, {**useless, "axes": []}])
        if tables:
            yield changed(data, "steps", at, "tables", to=[*tables, tables[0]])


@corruption
def a_limit_that_is_not_kept(data: Data) -> Iterator[Data]:
    wrong: tuple[Any, ...] = (1, 0, -5, float("nan"), float("inf"), True, False, [], {}, None)
    for limit in (*wrong, "64", "1GiB", 1e9, data["peak_tile_bytes"] - 1):
        yield {**data, "memory_limit": limit}


@corruption
def wrong_device_ids(data: Data) -> Iterator[Data]:
    count = 1
    for _, size in data["mesh"]["axes"]:
        count *= size
    ids = list(range(count))
    for wrong in (0.5, "0", True, 10**30, -1, None, [0], ids[-1] - 1):
        yield changed(data, "mesh", "devices", to=[*ids[:-1], wrong])
    lists: list[Any] = [[], ids[:-1], [*ids, count], {}, "0:8", 8]
    for devices in lists:
        yield changed(data, "mesh", "devices", to=devices)


@corruption
def another_time(data: Data) -> Iterator[Data]:
    for wrong in (data["seconds"] + 1e-6, data["seconds"] * (1 + 2**-52) or 1e-300, 1e300):
        yield changed(data, "seconds", to=wrong)


@corruption
def another_profile(data: Data) -> Iterator[Data]:
    if data["num_collectives"]:
        yield changed(data, "profile", "latency", to=data["profile"]["latency"] * 2)
        yield changed(data, "profile", "latency", to=1)
    if data["received_bytes"]:
        yield changed(data, "profile", "bandwidth", to=data["profile"]["bandwidth"] / 2)
    others: list[Any] = [None, [], "default", {}, 1]
    for wrong in others:
        yield changed(data, "profile", to=wrong)


@corruption
def a_malformed_profile(data: Data) -> Iterator[Data]:
    link = {"latency": 1e-6, "bandwidth": 1e9}
    level = {"devices": 2, **link}
    for key, values in {
        "exchange": ("calls", "", None, 1, ["call"]),
        "bandwidth": (0, -1.0, "fast", None),
        "latency": (-1.0, -0.5, "none", None),
        "name": (None, 1, ["default"]),
        "source": (None, 1),
        "axes": ([], {"x": 1}, {"x": {"latency": 1.0}}, {"x": {**link, "devices": 2}}),
        "levels": ({}, [link], [level, level], [{**level, "devices": 0}], [1]),
        "efficiency": ([], {"gather": 1.0}, {"all_gather": 0}, {"exchange": 2}, {"x": True}),
    }.items():
        for wrong in values:
            yield changed(data, "profile", key, to=wrong)


@corruption
def an_ill_written_digit(data: Data) -> Iterator[Data]:
    def texts(at: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        for n, value in enumerate(at):
            if isinstance(value, list):
                yield from texts(value, (*path, n))
            elif isinstance(value, str):
                yield (*path, n)

    for at, step in enumerate(data["steps"]):
        for key in ("placements", "moves", "routes", "replicas", "digits", "axes"):
            for path in texts(step.get(key, ()), ("steps", at, key)):
                text = at_path(data, path)
                for wrong in (f" {text}", f"{text} ", text + "0", "q:(1)2", "", "9:(1)2", "x:(0)2"):
                    yield changed(data, *path, to=wrong)


@corruption
def a_deeper_list(data: Data) -> Iterator[Data]:
    for at, step in enumerate(data["steps"]):
        for key, value in step.items():
            if isinstance(value, list):
                yield changed(data, "steps", at, key, to=[value])
                yield changed(data, "steps", at, key, to=[*value, []])
                yield changed(data, "steps", at, key, to={"0": value})


@corruption
def a_step_too_many(data: Data) -> Iterator[Data]:
    axis, size = data["mesh"]["axes"][0]
    idle = {**data["steps"][-1], "collective": "collective_permute", "routes": []}
    yield changed(data, "steps", to=[*data["steps"], idle])
    yield changed(data, "steps", to=[*data["steps"], {}])
    yield changed(data, "steps", to=[{"collective": "all_gather"}, *data["steps"]])
    yield changed(data, "steps", to=data["steps"] * 300)
    yield changed(data, "mesh", "axes", to=[*data["mesh"]["axes"], [axis, size]])


@corruption
def another_label(data: Data) -> Iterator[Data]:
    for wrong in ("", "Auto", None, 1, ["auto"], "fastest"):
        yield changed(data, "strategy", to=wrong)
    exchanges = any(step["collective"] == "exchange" for step in data["steps"])
    if exchanges:
        for label in ("collectives", "exact", "paper"):
            yield changed(data, "strategy", to=label)
    partial = any("] " in data[end] for end in ("src", "dst"))
    if data["received_bytes"] > data["lower_bound_bytes"] and not partial:
        yield changed(data, "strategy", to="direct")


@corruption
def another_array(data: Data) -> Iterator[Data]:
    # A sum over an axis of one is no other array.
    axis = next((name for name, size in data["mesh"]["axes"] if size > 1), "q")
    for end in ("src", "dst"):
        text = data[end]
        for wrong in (
            text.replace("[", "[7, ", 1),
            text.replace("[", "[0, ", 1),
            f"{text} max{{{axis}}}",
        ):
            yield changed(data, end, to=wrong)
        yield changed(data, end, to=text.replace("[", "[" + "9" * 600 + ", ", 1))
        yield changed(data, end, to="f32[" + "2, " * 100_000 + "2]")


def change_somewhere(rng: random.Random, data: Any) -> None:
    """Change one entry, somewhere in nested data, to another one like it."""
    places: list[tuple[Any, Any]] = []

    def collect(at: Any) -> None:
        for key, value in at.items() if isinstance(at, dict) else enumerate(at):
            places.append((at, key))
            if isinstance(value, dict | list):
                collect(value)

    collect(data)
    at, key = rng.choice(places)
    like = [value for value in (place[k] for place, k in places) if type(value) is type(at[key])]
    match at[key]:
        case int() as number:
            at[key] = number + rng.choice((-1, 1, number))
        case str() | dict():
            at[key] = copy.deepcopy(rng.choice(like))
        case list() as items if items and rng.random() < 0.5:
            rng.shuffle(items)
        case list() as items if items:
            items.pop(rng.randrange(len(items)))


def accepted_plans(devices: int, count: int) -> Iterator[rd.Plan]:
    """Plans on the first so many devices, an entry or two changed, which the checker accepts."""
    written = [data for data in PLANS.values() if devices_of(data) == devices]
    seed = found = 0
    while found < count:
        rng = random.Random(seed)
        seed += 1
        if written and seed % 4 == 0:
            data = copy.deepcopy(rng.choice(written))
        else:
            mesh, dtype = random_mesh(rng, devices), rng.choice(("f32", "i32", "bf16"))
            shape = rng.choice(((24,), (12, 24), (48, 6), (8, 12, 6)))
            src, dst = (random_type(rng, mesh, shape, dtype) for _ in range(2))
            strategies: tuple[Strategy, ...] = ("auto", "direct")
            plan = rd.plan(src, dst, strategy=rng.choice(strategies))
            data = json.loads(plan.to_json())
        right = json.dumps(data)
        for _ in range(rng.choice((1, 1, 2))):
            change_somewhere(rng, data)
        text = json.dumps(data)
        try:
            rd.check(text)
        except rd.CheckError:
            continue
        plan = rd.Plan.from_json(text)
        if text != right and max(*plan.src.mesh.ids, *plan.dst.mesh.ids) < devices:
            found += 1
            yield plan


def devices_of(data: Data) -> int:
    """The devices of the mesh of a plan."""
    return prod(size for _, size in data["mesh"]["axes"])
