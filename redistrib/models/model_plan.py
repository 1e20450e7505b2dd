"""Planning of whole models: from the types of all arrays and a weight map to moves in order.

    >>> on_two, on_four = Mesh(x=2), Mesh({"x": 4}, devices=range(2, 6))
    >>> source = {name: ("f32[8{x}]", on_two) for name in ("a", "b")}
    >>> weights = WeightMap.parse("t = concat(0, a, b)")
    >>> plan = plan_model(source, {"t": ("f32[16{x}]", on_four)}, weights=weights)
    >>> [(move.target, move.sources) for move in plan.moves], plan.received_bytes
    ([('t', (('a', 0), ('b', 0)))], 16)
    >>> [(t.source, t.sender, t.view.size) for t in plan.schedule(2)]
    [('a', 0, 4)]

For each target: its normal form (atoms), the copies of each atom under the layouts of the two
sides, and what an earlier target has brought to the same devices already. Then the order, by what
each array needs of memory.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from redistrib.display import to_html, write_page
from redistrib.errors import (
    InfeasibleError,
    LayoutError,
    RedistribError,
    TypeSyntaxError,
    WeightMapError,
)
from redistrib.models.copies import copies
from redistrib.models.figures import ModelFigures
from redistrib.models.interpret import Shape
from redistrib.models.memory import ordered
from redistrib.models.model_data import (
    check_data,
    check_figures,
    moves_data,
    parse_meshes,
    parse_types,
)
from redistrib.models.moves import LEAST_PART, Move, Step
from redistrib.models.normal_form import NormalForm, NormalForms
from redistrib.models.relabel import best_labels, relabelled
from redistrib.models.reuse import made_once
from redistrib.models.segments import AnyType, SegmentedType, cuts_of, parse_any, parts_of
from redistrib.models.weight_map import WeightMap
from redistrib.synth.plan.collectives import AllReduce
from redistrib.synth.plan.data import Plan, make_plan
from redistrib.synth.plan.profile import Profile, find_profile
from redistrib.synth.planner.reductions import partial_roles, reduce_partial
from redistrib.text import as_integer, brief, is_kind, parse_limit
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh
from redistrib.types.named_sharding import TypeLike, as_type

TypeOfArray = TypeLike | SegmentedType | tuple[str, Mesh]


@dataclass(frozen=True)
class ModelPlan(ModelFigures):
    """A plan for all arrays of a model; `plan_model` makes it. Bytes are those of the worst device.

    src, dst: the types of all arrays by name; weights: the map between them.
    moves: how each target is made, in order. schedule(device): what one device sends, receives and
        copies, which is all that a transport needs.
    received_bytes, sent_bytes, lower_bound_bytes: over the whole move.
    peak_bytes: sources not yet released, targets and scratch; least_budget_bytes: the least
        `memory_budget` with which planning succeeds.
    seconds: an estimate under `profile`.
    device_of: with `relabel`, the device that got the tiles asked of a device, by id.
    """

    def to_json(self) -> str:
        """The plan as JSON text, the same for the same plan in every process."""
        return json.dumps(moves_data(self))

    def to_html(self, path: str | Path) -> None:
        """Write the plan as a self-contained HTML page. Raises OSError where that fails."""
        write_page(self, path)

    def _repr_html_(self) -> str:
        return to_html(self)

    @classmethod
    def from_json(cls, text: str) -> ModelPlan:
        """The plan in a JSON text, which is planned anew.

        Raises RedistribError if it is no such text, or its figures are not those of the plan.
        """
        data = check_data(text)
        meshes = parse_meshes(data["meshes"])
        plan = plan_model(
            parse_types(data["src"], meshes),
            parse_types(data["dst"], meshes),
            weights=WeightMap.parse(data["weights"]),
            memory_budget=data["memory_budget"],
            profile=Profile.from_data(data["profile"]),
            keep_sources=data["keep_sources"] is True,
            into_targets=data["into_targets"] is True,
            least_part=data["least_part"],
            device_of=dict(data["device_of"]),
        )
        check_figures(data, plan)
        return plan


def plan_model(
    src: Mapping[str, TypeOfArray],
    dst: Mapping[str, TypeOfArray],
    *,
    weights: WeightMap | None = None,
    memory_budget: int | str | None = None,
    profile: Profile | str | None = None,
    relabel: bool = False,
    keep_sources: bool = True,
    into_targets: bool = False,
    least_part: int = LEAST_PART,
    device_of: Mapping[int, int] | None = None,
) -> ModelPlan:
    """A plan that makes all arrays of `dst` from those of `src`.

    `src` and `dst` give a type for each array by name: an ArrayType, a SegmentedType, a
    (text, mesh) pair, or (shape, dtype, NamedSharding). Meshes may differ from array to array, and
    the devices of the two sides may be the same, overlap or be others; devices are told by id.

    `weights` says how each target is made (docs/models.md); a target without a rule is the source
    of its name. Partial sums are reduced on their own mesh first, in their own dtype.

    `memory_budget`, bytes per device or a text such as "60GiB", bounds sources not yet released,
    targets and scratch. `keep_sources=False`: a source is released after its last use.
    `into_targets=True`: the targets exist already, and count from the start. Where
    replicas share the sending, pieces are cut down to `least_part` bytes. `profile`, as for
    `redistrib.plan`, prices `seconds` alone. `device_of` is kept as the plan's own: the labels of
    an earlier plan, whose targets are on relabelled meshes already.

    `relabel=True` leaves open which device gets which target tiles: those that have most of them
    already; `device_of` of the plan says which, and its `dst` has the meshes of these devices.

    Raises LayoutError for types that do not fit the map, WeightMapError for a map that does not
    fit the sources, InfeasibleError, with `least_bytes`, for too small a budget.
    """
    sources, targets = as_array_types("src", src), as_array_types("dst", dst)
    budget, profile = parse_limit(memory_budget), find_profile(profile)
    weights = weights if weights is not None else WeightMap()
    labels = {} if device_of is None else device_of
    _check_options(weights, least_part, labels)
    _check_flags(relabel=relabel, keep_sources=keep_sources, into_targets=into_targets)
    reductions = {
        name: plan
        for name, t in sources.items()
        if isinstance(t, ArrayType) and t.partial
        for plan in [_reduction(t)]
    }
    reduced = {**sources, **{name: plan.dst for name, plan in reductions.items()}}
    moves = _moves(reduced, targets, weights)
    if relabel:
        labels = best_labels(made_once(moves, reduced, targets), reduced, targets)
        targets = {name: relabelled(t, labels) for name, t in targets.items()}
        moves = _moves(reduced, targets, weights)
    order = ordered(
        sources, targets, reductions, moves, keep=keep_sources, into_targets=into_targets
    )
    plan = ModelPlan(
        sources,
        targets,
        weights,
        reductions,
        tuple(made_once((moves[n] for n in order.items), reduced, targets)),
        profile,
        keep_sources=keep_sources,
        into_targets=into_targets,
        memory_budget=budget,
        least_part=least_part,
        device_of=dict(labels),
        order_bound_bytes=order.least,
    )
    _ = plan.crossings  # who serves whom is planned here, and read by the schedules
    if budget is not None and plan.least_budget_bytes > budget:
        raise InfeasibleError(
            f"the model moves with at least {plan.least_budget_bytes} bytes per device in the "
            f"order found, and no order needs less than {plan.order_bound_bytes}; the memory "
            f"budget is {budget}",
            memory_limit=budget,
            least_bytes=plan.least_budget_bytes,
        )
    return plan


def as_array_types(side: str, arrays: Mapping[str, TypeOfArray]) -> dict[str, AnyType]:
    """The types of the arrays of one side, `src` or `dst`, by name; equal ones are one object."""
    if not is_kind(arrays, Mapping) or not all(isinstance(name, str) for name in arrays):
        raise LayoutError(
            f"{side} is a mapping from names of arrays to types; got {brief(arrays)}", given=arrays
        )
    types = ((name, as_array_type(name, t)) for name, t in arrays.items())
    first: dict[AnyType, AnyType] = {}
    return {name: first.setdefault(t, t) for name, t in types}


def _check_options(weights: object, least_part: object, device_of: object) -> None:
    if not isinstance(weights, WeightMap):
        raise WeightMapError(
            f"weights is a WeightMap, as WeightMap.parse reads one; got {brief(weights)}",
            weights=weights,
        )
    number = as_integer(least_part)
    if number is None or number < 1:
        raise LayoutError(
            f"least_part is a number of bytes, at least 1; got {brief(least_part)}",
            least_part=least_part,
        )
    labels = device_of.items() if isinstance(device_of, Mapping) else None
    ids = [] if labels is None else [as_integer(n) for pair in labels for n in pair]
    if labels is None or None in ids or len(set(ids[1::2])) < len(labels):
        raise LayoutError(
            f"device_of gives each device another, by id; got {brief(device_of)}",
            device_of=device_of,
        )


def _check_flags(**flags: object) -> None:
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise RedistribError(f"{name} is True or False; got {brief(value)}", given=value)


def as_array_type(name: str, layout: TypeOfArray) -> AnyType:
    """The type of an array that is given in one of the forms of `plan_model`."""
    if isinstance(layout, SegmentedType):
        return layout
    try:
        if isinstance(layout, tuple) and len(layout) == 2 and isinstance(layout[0], str):
            text, mesh = layout
            return parse_any(text, mesh)
        return as_type(layout)
    except (LayoutError, TypeSyntaxError) as error:
        raise type(error)(f"array {name}: {error}", **vars(error)) from error


def _reduction(t: ArrayType) -> Plan:
    """How a partial array is reduced: scattered over local digits where there are any."""
    summed = t.replace(partial=())
    if t.uneven:  # has no digits to scatter the sum over
        return make_plan(t, summed, "collectives", [AllReduce(t.partial)])
    steps, end = reduce_partial(t, summed, partial_roles(t, summed))
    return make_plan(t, end, "collectives", steps)


def _moves(
    src: Mapping[str, AnyType], dst: Mapping[str, AnyType], weights: WeightMap
) -> list[Move]:
    shapes = {name: Shape(t.shape, t.dtype) for name, t in src.items()}
    targets = weights.targets(shapes)
    forms = NormalForms(shapes, {name: cuts_of(t) for name, t in src.items()})
    copied: dict[object, tuple[Step, ...]] = {}
    known: dict[AnyType, object] = {}

    def layout(t: AnyType) -> object:
        if t not in known:
            known[t] = _layout(t)
        return known[t]

    moves = []
    for name, t in dst.items():
        target = targets.get(name)
        if target is None and name not in src:
            raise WeightMapError(
                f"nothing makes the target {name}: no rule of the map does, and there is no source "
                f"of that name",
                target=name,
            )
        cuts = cuts_of(t)
        form = forms.of(target, cuts) if target is not None else forms.same(name, cuts)
        _check_fits(name, t, form)
        # Copies depend on layouts alone: stages of a pipeline share them.
        layouts = tuple((layout(src[source]), part) for source, part in form.sources)
        key = id(form.parts), layouts, layout(t)
        if key not in copied:
            types = [(src[source], part) for source, part in form.sources]
            copied[key] = tuple(_steps(form, types, t))
        moves.append(Move(name, form.sources, copied[key]))
    return _widest_first(moves, dst)


def _widest_first(moves: Sequence[Move], dst: Mapping[str, AnyType]) -> list[Move]:
    """The moves so that one can be made of what another has brought: where memory allows it.

    What is not cast comes before what is cast further, and of targets that share a source those of
    which a device has most.
    """
    times = Counter(source for move in moves for source in move.sources)

    def place(move: Move) -> tuple[int, int]:
        chain = max((len(step.copy.dtypes) for step in move.steps), default=0)
        shares = any(times[source] > 1 for source in move.sources)
        return chain, -dst[move.target].tile_bytes if shares else 0

    return sorted(moves, key=place)


def _layout(t: AnyType) -> object:
    """All of a type but the devices of its mesh."""
    return tuple(
        (t.mesh.axes, t.shape, t.dims, t.uneven, t.partial, part.start)
        for part in parts_of(t)
        for t in [part.type]
    )


def _check_fits(name: str, t: AnyType, form: NormalForm) -> None:
    """Raise LayoutError unless the map makes an array of the type's shape and dtype."""
    shape, dtype = form.shape, form.parts[0].dtype
    if shape != t.shape:
        raise LayoutError(
            f"the target {name} has the shape {list(t.shape)}; the map makes {list(shape)}",
            target=name,
            shape=shape,
        )
    if dtype != t.dtype:
        raise LayoutError(
            f"the target {name} has dtype {t.dtype}; the map makes {dtype}, and a change of dtype "
            f"needs a cast",
            target=name,
            dtype=dtype,
        )


def _steps(form: NormalForm, types: Sequence[tuple[AnyType, int]], t: AnyType) -> Iterator[Step]:
    sources = [parts_of(source)[part] for source, part in types]
    for number, (part, array) in enumerate(zip(parts_of(t), form.parts, strict=True)):
        for atom in array.atoms:
            source = None if atom.source is None else sources[atom.source]
            cuts = copies(atom, part, source)
            for cut, copy in cuts:
                yield Step(number, copy, len(cuts) > 1, cut)
