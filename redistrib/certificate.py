"""Certificates: z3 proves one plan right for all global sizes that have the same digits.

Law: if each step takes every element from where the type before it says to where the type after it
says, and the last type is the target, then so does the whole plan. The types are read from the plan
as claims, and no typing rule is used: a step is what its collective does to tiles. Its digits are
cut until the step and both types share them. An index digit that a device digit owns has its size
from the mesh; every other index digit, the trailing one included, has a symbolic size, so the proof
holds for all sizes. The unknowns are the receiver's coordinate and the element's digits.

Where digits do not match, the routing is a table: a finite one, which is enumerated; whatever is
outside the table is proved as above. With the planner this module shares the types only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import gcd, lcm, prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import BackendError, CheckError, RedistribError
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    Placement,
    apart,
    inside,
    is_chain,
    object_of,
    piece_of,
    split_at,
)
from redistrib.types.digits import parse_device_digit as device_digit
from redistrib.types.digits import parse_index_digit as index_digit
from redistrib.types.mesh import Mesh
from redistrib.types.positions import digit_values
from redistrib.types.syntax import format_factor

TIMEOUT_SECONDS = 20
MAX_ENUMERATED = 1 << 24  # coordinates times elements of one table
IDENTITY = "the others hold the identity"

_Object = str | int
_Part = DeviceDigit | IndexDigit
_Cuts = dict[_Object, set[int]]
_Term = Any  # an integer, of z3 or of Python


@dataclass(frozen=True, slots=True)
class Outcome:
    """What z3 found: the claim is proved, a model refutes it, or neither within the time."""

    kind: Literal["proved", "counter-model", "unknown"]
    seconds: float
    model: Any = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was proved of a plan: the family of its ends, and one line per lemma and step."""

    family: str
    proved: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return "\n".join([f"proved by z3 {self.family}", *(f"  {line}" for line in self.proved)])


def load_z3() -> Any:
    """The module z3. Raises BackendError where it is not installed."""
    try:
        import z3  # type: ignore[import-untyped]
    except ImportError as error:
        raise BackendError(
            f"proofs need the extra z3: pip install 'redistrib[z3]' ({error})", backend="z3"
        ) from error
    return z3


def decide(given: Iterable[Any], claim: Any, seconds: float = TIMEOUT_SECONDS) -> Outcome:
    """Whether the claim follows from what is given; all in z3's one main context."""
    z3 = load_z3()
    solver = z3.Solver()
    solver.set("timeout", int(seconds * 1000))
    solver.add(*given)
    solver.add(z3.Not(claim))
    start = time.perf_counter()
    found = solver.check()
    took = time.perf_counter() - start
    if found == z3.unsat:
        return Outcome("proved", took)
    if found == z3.sat:
        return Outcome("counter-model", took, solver.model())
    return Outcome("unknown", took, reason=solver.reason_unknown())


def horner(digits: Iterable[tuple[_Term, _Term]]) -> _Term:
    """The number that (value, size) digits write, major to minor.

    >>> horner([(1, 2), (0, 3), (4, 5)])
    19
    """
    total: _Term = 0
    for value, size in digits:
        total = total * size + value
    return total


def below(value: _Term, size: _Term) -> list[Any]:
    """That a digit lies in its range."""
    return [value >= 0, value < size]


def certify(plan: Any) -> Certificate:
    """Prove a plan (a Plan, its JSON text, or the data in that text) for all sizes.

    Raises CheckError with the reason where that cannot be, and with a device and an element that
    go wrong if z3 finds them; its attribute `step` is the index of the step, None if the plan as a
    whole is at fault. Raises BackendError without z3.

    >>> import redistrib as rd
    >>> ends = (rd.ArrayType.parse(text, rd.Mesh(x=4)) for text in ("f32[8{x}]", "f32[8]"))
    >>> print(certify(rd.plan(*ends, strategy="collectives")).family)
    for all sizes a: f32[4*a{x}] -> f32[4*a] on x=4
    """
    load_z3()
    at: int | None = None
    start = time.perf_counter()
    try:
        text = plan.to_json() if hasattr(plan, "to_json") else plan
        data = json.loads(text) if isinstance(text, str) else text
        mesh = Mesh([(n, k) for n, k in data["mesh"]["axes"]], devices=data["mesh"]["devices"])
        _require(data["dst_mesh"] is None, "a certificate is of a plan on one mesh")
        src, dst = (ArrayType.parse(data[end], mesh) for end in ("src", "dst"))
        types = [src, *(ArrayType.parse(step["type"], mesh) for step in data["steps"])]
        for t in (*types, dst):
            _require((t.shape, t.dtype) == (src.shape, src.dtype), f"{t} is of the array of {src}")
        if not src.size:
            return Certificate(f"{src} -> {dst}", ("without elements nothing moves",), 0)
        proved = _lemmas()
        views = []
        for at, step in enumerate(data["steps"]):
            views.append(_view(step, types[at], types[at + 1]))
            proved.append(f"step {at}, {step['collective']}: {_prove(views[-1])}")
        at = None
        _require(types[-1] == dst, f"the steps end in {dst}; they end in {types[-1]}")
        proved.append("so all steps together take every element to where the target type says")
        return Certificate(_family(src, dst, views), tuple(proved), time.perf_counter() - start)
    except Exception as error:  # whatever it is, the plan was not proved
        where = "plan" if at is None else f"step {at}"
        kind = "" if isinstance(error, RedistribError) else f"malformed, {type(error).__name__}: "
        raise CheckError(f"{where}: {kind}{error}", step=at) from error


def _lemmas() -> list[str]:
    """What the steps rely on: a position and an index are written in digits in exactly one way.

    By induction on the number of digits: without digits there is only 0; this is one digit more.
    """
    z3 = load_z3()
    h, m, g, n, k, size = z3.Ints("h m g n k size")
    given = [*below(h, size), *below(m, k)]
    written = horner([(h, size), (m, k)])
    cases = {
        "a number is below the product of its sizes": (given, z3.And(below(written, size * k))),
        "equal numbers have equal digits": (
            [*given, *below(n, k), written == horner([(g, size), (n, k)])],
            z3.And(h == g, m == n),
        ),
        "every number below the product is written": (
            [k >= 1, size >= 1, *below(n, size * k)],
            z3.And(n == n / k * k + n % k, *below(n % k, k), *below(n / k, size)),
        ),
    }
    for name, (hypotheses, claim) in cases.items():
        outcome = decide(hypotheses, claim)
        _require(outcome.kind == "proved", f"{name}; {outcome.kind} {outcome.reason}")
    return [f"digits: {'; '.join(cases)}"]


# --- tables: finite, enumerated


class _Table:
    """A table, found right by enumeration; `runs` are the index digits that its axes decide.

    To the rest of the step it is one more owner of each run, with one value: that of the element.
    """

    def __init__(self, table: Any, kind: str, before: ArrayType, after: ArrayType) -> None:
        self.axes = [device_digit(axis) for axis in table["axes"]]
        self.count = prod(axis.size for axis in self.axes)
        fits = all(before.mesh.axis_size(a.axis) % a.end == 0 for a in self.axes)
        _require(fits, "the axes of a table are parts of axes of the mesh")
        nested = all(apart(a, b) for a, b in combinations(self.axes, 2))
        _require(nested, "the axes of a table are disjoint")
        ends = {(a.axis, end) for a in self.axes for end in (a.pre, a.end)}
        self.old, self.new = (
            [p for p in split_at(t.placements, ends) if self.has(p[0])] for t in (before, after)
        )
        for device in (*(d for d, _ in (*self.old, *self.new)), *before.partial, *after.partial):
            whole = any(inside(device, axis) for axis in self.axes)
            _require(whole or not self.has(device), f"{device} is inside an axis of the table")
        _require(not any(map(self.has, before.partial)), "a table routes no partial axis")
        runs = {index for _, index in (*self.old, *self.new)}
        while clash := next((p for p in combinations(sorted(runs), 2) if not apart(*p)), None):
            low, high = gcd(*(i.pre for i in clash)), lcm(*(i.end for i in clash))
            runs = runs - {*clash} | {IndexDigit(clash[0].dim, low, high // low)}
        self.runs = sorted(runs)
        size = prod(run.size for run in self.runs)
        _require(self.count * size <= MAX_ENUMERATED, "a table can be enumerated")
        if kind == "exchange":
            self.note = self._exchange(table)
        else:
            self.note = self._permute(table)

    def has(self, device: DeviceDigit) -> bool:
        return not all(apart(device, axis) for axis in self.axes)

    @property
    def stand_ins(self) -> list[Placement]:
        return [(DeviceDigit(f"(table {run})", 1, run.size), run) for run in self.runs]

    def _mask(self, run: IndexDigit, placements: Sequence[Placement]) -> NDArray[np.bool_]:
        """Which indices of a run [coordinate, index] belong to a coordinate over the axes."""
        at, indices = np.arange(self.count)[:, None], np.arange(run.size)
        mask = np.ones((self.count, run.size), bool)
        for device, index in (p for p in placements if inside(p[1], run)):
            stride = run.end // index.end
            mask &= indices // stride % index.size == digit_values([device], at, self.axes)
        return mask

    def _permute(self, table: Any) -> str:
        """Each coordinate receives a whole tile, and it is the one that it wants."""
        sources = list(table["sources"])
        right = sorted(sources) == [*range(self.count)]
        _require(right, "the sources of a table are a permutation")
        for run in self.runs:
            held, wanted = self._mask(run, self.old)[sources], self._mask(run, self.new)
            wrong = np.argwhere((held != wanted).any(axis=1))
            _require(
                not len(wrong),
                f"every coordinate receives the tile that it wants; {run} is wrong at coordinate "
                f"{wrong.flatten()[:1]} of {[str(axis) for axis in self.axes]}",
            )
        return f"by a table, all {self.count} coordinates enumerated"

    def _exchange(self, table: Any) -> str:
        """Each wanted element is asked of a coordinate that holds it."""
        owners = [device_digit(owner) for owner in table["owners"]]
        wanted = np.ones(self.count, bool)
        for run in self.runs:
            mask = self._mask(run, self.new)
            wanted = wanted[..., None] & mask.reshape(-1, *(1,) * (wanted.ndim - 1), run.size)
        receiver, *indices = np.nonzero(wanted)
        value = np.zeros_like(receiver)
        held = []
        for owner in owners:
            index = next((i for p in self.old if (i := piece_of(p, owner)) is not None), None)
            _require(index is not None, f"{owner} owns something in the source")
            assert index is not None
            at, run = next((n, r) for n, r in enumerate(self.runs) if inside(index, r))
            held.append(indices[at] // (run.end // index.end) % index.size)
            value = value * owner.size + held[-1]
        owned = prod(owner.size for owner in owners)
        _require(owned == prod(d.size for d, _ in self.old), "the owners of a table are all")
        senders = np.full((self.count, owned), -1)
        for a, row in enumerate(table["rows"]):
            for b, sender in row:
                senders[a, b] = sender
        sender = senders[receiver, value]
        right = (sender >= 0) & (sender < self.count)
        for owner, digit in zip(owners, held, strict=True):
            right &= digit_values([owner], sender, self.axes) == digit
        wrong = receiver[~right][:1]
        _require(
            not len(wrong),
            f"every element is asked of a device that holds it; not so for receiver {wrong} over "
            f"{[str(axis) for axis in self.axes]}",
        )
        return f"by a table, all {len(receiver)} elements at {self.count} coordinates enumerated"


# --- the digits of a step: cut finely enough for both types and the step itself


@dataclass(frozen=True, slots=True)
class _View:
    """A step on common digits; a table is one more owner, of all the runs that it decides.

    `owns` and `partial` are of the type before and the type after; `chains` has every index digit
    of each dimension, those that nobody owns too, and a last one of size 1 for what trails.
    """

    kind: str
    reduction: str | None
    types: tuple[ArrayType, ArrayType]
    owns: list[dict[DeviceDigit, IndexDigit]]
    partial: list[set[DeviceDigit]]
    changes: list[tuple[Any, ...]]  # a device digit, then index or device digits
    devices: list[DeviceDigit]
    chains: list[list[IndexDigit]]
    notes: list[str]

    @property
    def fixed(self) -> set[IndexDigit]:
        """The index digits whose sizes the mesh gives."""
        named = {i for change in self.changes for i in change if isinstance(i, IndexDigit)}
        return named.union(*(owns.values() for owns in self.owns))


def _view(step: Any, before: ArrayType, after: ArrayType) -> _View:
    kind = step["collective"]
    tables: list[_Table] = []
    if kind == "exchange" or "table" in step:
        given_tables = [step["table"]] if "table" in step else step.get("tables", ())
        tables = [_Table(table, kind, before, after) for table in given_tables]
        data = step.get("table", step)["placements"]
        wanted = [(device_digit(d), index_digit(i)) for d, i in data]
        if kind != "exchange":
            wanted += [p for p in before.placements if not tables[0].has(p[0])]
        given = before.mesh, before.dtype, before.shape, wanted, before.partial, before.reduction
        claimed = ArrayType.from_placements(*given)
        _require(claimed == after, f"the placements of the step give {claimed}, not {after}")
    _require(
        all(apart(a, b) for a, b in combinations([a for t in tables for a in t.axes], 2)),
        "tables have no axis in common",
    )
    entries = _entries(step)
    ends = {(a.axis, end) for table in tables for a in table.axes for end in (a.pre, a.end)}
    sides = [
        [p for p in split_at(t.placements, ends) if not any(x.has(p[0]) for x in tables)]
        + [pair for table in tables for pair in table.stand_ins]
        for t in (before, after)
    ]
    partial = [[(d,) for d in t.partial] for t in (before, after)]
    cuts = _cut([*entries, *sides[0], *sides[1], *partial[0], *partial[1]], before)
    return _View(
        kind,
        step.get("reduction"),
        (before, after),
        [{d: i for p in side for d, i in _pieces(p, cuts)} for side in sides],
        [{p[0] for d in side for p in _pieces(d, cuts)} for side in partial],
        [piece for entry in entries for piece in _pieces(entry, cuts)],
        [
            DeviceDigit(name, a, b // a)
            for name, found in cuts.items()
            if isinstance(name, str)
            for a, b in pairwise(sorted(found))
        ],
        [
            [IndexDigit(dim, a, b // a) for a, b in pairwise([*sorted(cuts[dim]), max(cuts[dim])])]
            for dim in range(len(before.shape))
        ],
        [table.note for table in tables],
    )


def _entries(step: Any) -> list[tuple[_Part, ...]]:
    """The digits that a step names: a device digit, and the digits that go with it."""
    match step["collective"]:
        case "all_to_all":
            return [(device_digit(d), index_digit(a), index_digit(b)) for d, a, b in step["moves"]]
        case "all_reduce" | "replicated_to_partial":
            return [(device_digit(d),) for d in step["digits"]]
        case "exchange":
            return [(device_digit(a), device_digit(b)) for a, b in step["replicas"]]
        case "collective_permute":
            return [(device_digit(a), device_digit(b)) for a, b in step.get("routes", ())]
        case "dynamic_slice" | "all_gather" | "reduce_scatter" | "sharded_to_partial":
            return [(device_digit(d), index_digit(i)) for d, i in step["placements"]]
        case other:
            raise CheckError(f"does not hold: {other} is a collective")


def _cut(entries: Sequence[tuple[_Part, ...]], t: ArrayType) -> _Cuts:
    """Cuts of axes and dimensions: at the ends of all digits, and where a partner is cut."""
    cuts: _Cuts = {name: {1, size} for name, size in t.mesh.axes}
    cuts |= {dim: {1} for dim in range(len(t.shape))}
    wholes: dict[_Object, int] = dict(t.mesh.axes)
    wholes |= dict(enumerate(t.shape))
    for entry in entries:
        for part in entry:
            obj = object_of(part)
            known = obj in cuts or str(obj).startswith("(table")
            fits = known and wholes.get(obj, part.end) % part.end == 0
            _require(fits and part.size == entry[0].size, f"{part} is a digit of its size in {t}")
            cuts.setdefault(obj, {1}).update((part.pre, part.end))
    links = [pair for entry in entries for pair in combinations(entry, 2)]
    links += [(b, a) for a, b in links]
    count = 0
    while count != (count := sum(map(len, cuts.values()))):
        for a, b in links:
            for cut in [c for c in cuts[object_of(a)] if a.pre < c < a.end]:
                _require(cut % a.pre == 0, f"digits are nested; a cut at {cut} is not, in {a}")
                cuts[object_of(b)].add(b.pre * (cut // a.pre))
    for obj, found in cuts.items():
        chain = sorted(found)
        _require(is_chain(chain), f"digits are nested; those of {obj} end at {chain}")
    return cuts


def _pieces(parts: Sequence[_Part], cuts: _Cuts) -> Iterator[tuple[Any, ...]]:
    """Digits of one size, cut alike."""
    first = parts[0]
    ends = sorted(c for c in cuts[object_of(first)] if first.pre <= c <= first.end)
    for a, b in pairwise(ends):
        yield tuple(
            DeviceDigit(part.axis, part.pre * (a // first.pre), b // a)
            if isinstance(part, DeviceDigit)
            else IndexDigit(part.dim, part.pre * (a // first.pre), b // a)
            for part in parts
        )


# --- what a step does, and what is proved of it


def _prove(view: _View) -> str:
    """Prove that a step takes every element from where one type says to where the next one says."""
    z3 = load_z3()
    named = [device for device, *_ in view.changes]
    _require(len(set(named)) == len(named), "a step names each digit once")
    before, after = view.owns
    owner_before = {index: device for device, index in before.items()}
    owner_after = {index: device for device, index in after.items()}
    sizes: dict[IndexDigit, _Term] = {}
    for digit in (digit for chain in view.chains for digit in chain):
        fixed = digit.size > 1 and digit in view.fixed
        sizes[digit] = digit.size if fixed else z3.Int(f"size of {digit}")
    symbols = [size for size in sizes.values() if not isinstance(size, int)]
    here = {d: z3.Int(f"at {d}") for d in view.devices}
    given = [size >= 1 for size in symbols]
    given += [fact for d, value in here.items() for fact in below(value, d.size)]

    # The element at a position of the receiver's tile: a digit is the owner's, or the position's.
    element = {i: z3.Int(f"digit {i}") for i in sizes if i not in owner_after}
    given += [fact for digit, value in element.items() for fact in below(value, sizes[digit])]
    position: dict[IndexDigit, _Term] = dict(element)
    element |= {index: here[device] for index, device in owner_after.items()}

    sender: dict[DeviceDigit, _Term] = dict(here)
    summed: set[DeviceDigit] = set()
    made: set[DeviceDigit] = set()
    claims: list[Any] = []
    taken: dict[IndexDigit, _Term] = {}

    def leave(index: IndexDigit) -> _Term:
        _require(index in position, f"{index} is local after the step")
        return position.pop(index)

    def enter(index: IndexDigit, value: _Term) -> None:
        _require(index not in taken and index not in owner_before, f"{index} is local before")
        taken[index] = value

    def addend(device: DeviceDigit) -> None:
        summed.add(device)
        sender[device] = z3.Int(f"addend {device}")
        given.extend(below(sender[device], device.size))

    def only(device: DeviceDigit, value: _Term) -> None:
        # One device along this digit keeps the element; the others hold the identity.
        made.add(device)
        given.append(here[device] == value)

    for device, *rest in view.changes:
        match view.kind:
            case "dynamic_slice":
                enter(rest[0], here[device])
            case "all_gather":
                sender[device] = leave(rest[0])
            case "all_to_all":
                sender[device] = leave(rest[0])
                enter(rest[1], here[device])
            case "collective_permute":
                sender[device] = here[rest[0]]
            case "reduce_scatter":
                addend(device)
                enter(rest[0], here[device])
            case "all_reduce":
                addend(device)
            case "replicated_to_partial":
                _require(device not in before, f"{device} is free before the step")
                only(device, 0)
            case "sharded_to_partial":
                only(device, leave(rest[0]))
            case "exchange":
                _require(device not in before, f"{device} is free before the step")
                sender[device] = here[rest[0]]
            case other_kind:
                raise CheckError(f"does not hold: {other_kind} is a collective")
    position |= taken
    if view.kind == "exchange":
        sender |= {device: element[index] for device, index in before.items()}
        position = {index: element[index] for index in sizes if index not in owner_before}
    _require(
        position.keys() == sizes.keys() - owner_before.keys(),
        f"a tile of {view.types[1]} is made of parts of tiles of {view.types[0]}",
    )
    source = {**position, **{index: sender[device] for index, device in owner_before.items()}}

    for chain in view.chains:
        sent, wanted = (horner((v[i], sizes[i]) for i in chain) for v in (source, element))
        claims.append(sent == wanted)
    claims += [fact for d, value in sender.items() for fact in below(value, d.size)]
    claims += [fact for i, value in position.items() for fact in below(value, sizes[i])]

    # Addends: what the receivers take is what there was, each once.
    kept, left = view.partial[0] - summed, view.partial[1] - made
    fits = summed <= view.partial[0] and made <= view.partial[1] - view.partial[0]
    fits = fits and prod(d.size for d in kept) == prod(d.size for d in left)
    _require(fits, f"the addends of {view.types[1]} are those of {view.types[0]}")
    names = {view.types[0].reduction, view.types[1].reduction, view.reduction} - {None}
    _require(len(names) <= 1, f"a step has one reduction; got {sorted(map(str, names))}")
    _require(not made or view.reduction is not None, "a step that makes addends has a reduction")
    there = {d: z3.Int(f"other {d}") for d in view.devices}
    given += [fact for d, value in there.items() for fact in below(value, d.size)]
    other = {
        d: z3.substitute(v, *((here[e], there[e]) for e in here)) if here else v
        for d, v in sender.items()
    }
    same_left = z3.And([here[d] == there[d] for d in sorted(left)])
    claims.append(same_left == z3.And([sender[d] == other[d] for d in sorted(kept)]))
    if view.kind == "collective_permute":
        news = {new for _, new in view.changes}
        _require(news == {old for old, _ in view.changes}, "the routes of a permute permute")
        one = z3.And([sender[d] == other[d] for d in view.devices])
        claims.append(z3.Implies(one, z3.And([here[d] == there[d] for d in view.devices])))

    outcome = decide(given, z3.And(claims))
    if outcome.kind == "unknown":  # a model is easier to find where the sizes are given
        outcome = decide([*given, *(size == 2 for size in symbols)], z3.And(claims))
        _require(outcome.kind == "counter-model", f"z3 decides the step: {outcome.reason}")
    if outcome.kind == "counter-model":
        number = _numbers(outcome.model)
        wanted, sent = (
            [number(horner((v[i], sizes[i]) for i in chain)) for chain in view.chains]
            for v in (element, source)
        )
        where = ", ".join(f"{d}={number(value)}" for d, value in here.items())
        raise CheckError(
            f"the device at {where or 'the only position'} must receive element {wanted}; it is "
            f"sent element {sent}, or that of a sender who is none, or an addend twice"
        )
    what = "every element, from a device that holds it"
    if summed:
        what = "every element, summed over each addend once"
    if made:
        what = f"every element, kept by one addend; {IDENTITY}"
    return "; ".join([*view.notes, f"{what} ({outcome.seconds:.2f} s)"])


def _numbers(model: Any) -> Callable[[_Term], int]:
    """What a term is in a model."""

    def number(term: _Term) -> int:
        return term if isinstance(term, int) else int(model.eval(term, True).as_long())

    return number


def _family(src: ArrayType, dst: ArrayType, views: Sequence[_View]) -> str:
    """The ends of a plan, with names for the sizes that are arbitrary.

    Where the digits of a dimension are not nested over all steps, only what trails is arbitrary.
    """
    names = _names(src.mesh)
    used: list[str] = []
    ends: list[list[str]] = [[], []]
    for dim in range(len(src.shape)):
        owned = {i for view in views for i in view.fixed if i.dim == dim and i.size > 1}
        owned |= {i for t in (src, dst) for _, i in t.placements if i.dim == dim}
        cuts = sorted({1, *(end for i in owned for end in (i.pre, i.end))})
        sizes: dict[IndexDigit, str] = {}
        for low, high in pairwise(cuts if is_chain(cuts) else (1, lcm(*cuts))):
            digit = IndexDigit(dim, low, high // low)
            fixed = not is_chain(cuts) or any(inside(digit, i) for i in owned)
            sizes[digit] = str(digit.size) if fixed else next(names)
        factor_sizes = [*sizes.values(), next(names)]  # the last one trails
        used += [size for size in factor_sizes if not size.isdecimal()]
        for t, texts in zip((src, dst), ends, strict=True):
            factors, pre = [], 1
            for factor in t.dims[dim]:
                part = IndexDigit(dim, pre, factor.size)
                inner = [size for digit, size in sizes.items() if inside(digit, part)]
                if isinstance(factor, DeviceDigit) or not inner:
                    factors.append(format_factor(factor, t.mesh))
                else:
                    factors.append(f"_{_product(inner)}")
                pre = part.end
            text = f"{{{','.join(factors)}}}" if factors else ""
            texts.append(_product(factor_sizes) + text)
    both = []
    for t, texts in zip((src, dst), ends, strict=True):
        partial = ",".join(format_factor(d, t.mesh) for d in t.partial)
        tail = f" {t.reduction}{{{partial}}}" if partial else ""
        both.append(f"{t.dtype}[{', '.join(texts)}]{tail}")
    sizes_text = f"for all sizes {', '.join(used)}: " if used else ""
    return f"{sizes_text}{both[0]} -> {both[1]} on {src.mesh}"


def _names(mesh: Mesh) -> Iterator[str]:
    """Names of sizes: letters, then n22, n23, ..., without the names of axes."""
    letters = "abcdefghijklmnopqrstuvw"
    at = 0
    while True:
        name = letters[at] if at < len(letters) else f"n{at}"
        if name not in mesh.sizes:
            yield name
        at += 1


def _product(sizes: Sequence[str]) -> str:
    """A product of numbers and names, the number first.

    >>> _product(["2", "a", "4", "b"]), _product([])
    ('8*a*b', '1')
    """
    number = prod(int(size) for size in sizes if size.isdecimal())
    named = [size for size in sizes if not size.isdecimal()]
    return "*".join(([str(number)] if number > 1 or not named else []) + named)


def _require(holds: bool, claim: str) -> None:
    if not holds:
        raise CheckError(f"does not hold: {claim}")
