"""`reshard_tree`: whole trees of arrays by one plan, in few programs and within a memory budget.

Of a tree {"layers": [{"q": f32[64, 64], "norm": f32[64]}, ...], "embed": f32[512, 64]}, each array
goes by its path, as `layers.0.q`. `plan_model` says in which order they move, what of a weight map
goes where, and how much memory that takes; `Batches` makes programs of it; this module has them run
one after the other, and gives up what is not needed any more. What a plan cannot say (random keys,
numbers, arrays of numpy) is left to `reshard`.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, SingleDeviceSharding

from redistrib.backends.jax import arrays
from redistrib.backends.jax.batches import Batch, Batches, Source
from redistrib.backends.jax.carriers import carrier
from redistrib.backends.jax.host_copies import Array
from redistrib.backends.jax.reshard import (
    give_up,
    is_deleted,
    reshard,
    resolved_target,
    sharing_buffers,
    targets_of,
)
from redistrib.errors import BackendError, LayoutError, RedistribError
from redistrib.models.model_plan import plan_model
from redistrib.models.weight_map import WeightMap
from redistrib.text import parse_limit
from redistrib.types.named_sharding import type_of

PartitionSpec: Any = jax.sharding.PartitionSpec  # typed in parts only
LOG = logging.getLogger("redistrib")
LONG = 2.0
"""Seconds after which a move says in the log how far it is."""
IN_FLIGHT = 2
"""Batches that are started before the first of them has ended, where no budget is to be kept."""
NAME = re.compile(r"[\w./-]+", re.ASCII)
"""A name of the weight map's."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a move of a tree is: arrays, and bytes on all devices together."""

    arrays: int
    of_arrays: int
    moved_bytes: int
    of_bytes: int
    seconds: float


def reshard_tree(
    tree: Any,
    shardings: Any,
    *,
    weights: WeightMap | str | None = None,
    memory_budget: int | str | None = None,
    donate: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Any:
    """All arrays of a tree in other layouts, on the same or on other devices, by one plan.

    As `reshard` of each array, but with few programs: arrays of one shape and layout share one, and
    small ones a collective. An array that is twice in the tree (tied weights) moves once, and is
    twice in the result.

    `shardings` is one NamedSharding or PartitionSpec for all arrays, or a tree that the arrays'
    tree begins with. With `weights`, a map or its text (docs/models.md), it is the tree of the
    results, of NamedShardings; arrays go by their paths, as `layers.0.q`.

    `memory_budget`, in bytes per device or a text as "60GiB", bounds at any moment what is alive
    of the tree and of the results, and what the programs that move them allocate beside; arrays
    move in an order, in batches, and in chunks that keep it. `donate` gives arrays up one after the
    other, each after its last use; without it all of them count to the end.

    `progress` is called when a batch has moved. A move of more than 2 s also says so in the log
    "redistrib". Inside jit all of this is one `reshard`, and there is no budget.

    Raises InfeasibleError, with `least_bytes`, where the budget is too small, WeightMapError for a
    map that does not fit, and what `reshard` raises, with the path of the array; all of these
    before anything moves.
    """
    budget = parse_limit(memory_budget)
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    if any(isinstance(x, jax.core.Tracer) for _, x in leaves):
        if weights is not None or budget is not None or donate:
            raise BackendError(
                "inside jit a tree moves as by `reshard`: no weights, memory_budget or donate"
            )
        return reshard(tree, shardings)
    if donate:
        for path, x in leaves:
            if isinstance(x, jax.Array) and is_deleted(x):
                raise BackendError(
                    f"at {_shown(path)}: an array of a donated tree has its data; this one is "
                    f"deleted"
                )
    if weights is not None:
        rules = WeightMap.parse(weights) if isinstance(weights, str) else weights
        return _by_rules(leaves, shardings, rules, budget, donate, progress)
    targets = targets_of(tree, shardings)
    names = _names(path for path, _ in leaves)
    arrays: dict[str, jax.Array] = {}
    ends: dict[str, NamedSharding] = {}
    sources: dict[str, Source] = {}
    first: dict[object, str] = {}  # of an array and its target
    of_leaf, others = [], {}
    for (path, x), target, name in zip(leaves, targets, names, strict=True):
        used = first.setdefault((id(x), target), name)
        of_leaf.append(used)
        if used != name:
            continue
        source = _located(path, _source, x, target)
        if source is None:
            others[name] = (path, x, target)
        else:
            arrays[name], (sources[name], ends[name]) = x, source
    moved = _run(arrays, sources, ends, None, budget, donate, progress)
    for name, (path, x, target) in others.items():
        moved[name] = _located(path, partial(reshard, donate=donate), x, target)
    return jax.tree.unflatten(structure, [moved[name] for name in of_leaf])


def _source(x: Any, target: Any) -> tuple[Source, NamedSharding] | None:
    """What is known of an array, and where it goes; None where a plan cannot say it.

    Raises LayoutError for ends that no type can say.
    """
    if not isinstance(x, jax.Array) or jnp.issubdtype(x.dtype, jax.dtypes.extended):
        return None
    target = resolved_target(x, target)
    held: Any = x.sharding
    if isinstance(held, SingleDeviceSharding):
        if not target.is_fully_addressable:
            return None  # every process has a copy
        held = NamedSharding(jax.sharding.Mesh([*held.device_set], "device"), PartitionSpec())
    _check(x.shape, x.dtype, held, target)
    return Source(x.shape, x.dtype, x.weak_type, held), target


@lru_cache(maxsize=4096)
def _check(shape: tuple[int, ...], dtype: Any, *ends: NamedSharding) -> None:
    """Raise LayoutError for ends that no type can say, or in unlike memory."""
    arrays.check_ends(*ends)
    for end in ends:
        type_of(shape, carrier(dtype), end)


def _by_rules(
    leaves: Sequence[Any],
    shardings: Any,
    weights: WeightMap,
    budget: int | None,
    donate: bool,
    progress: Callable[[Progress], None] | None,
) -> Any:
    """A tree of the structure of `shardings`, made from the leaves of another by a weight map."""
    arrays: dict[str, jax.Array] = {}
    sources: dict[str, Source] = {}
    for path, x in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        held = getattr(x, "sharding", None)
        entry = _source(x, held) if isinstance(held, NamedSharding) else None
        if entry is None or carrier(x.dtype) != x.dtype:
            raise LayoutError(
                f"at {_shown(path)}: a weight map takes arrays with a NamedSharding, of dtypes "
                f"that types have; got {type(x).__name__}"
            )
        arrays[name], (sources[name], _) = x, entry
    wanted, structure = jax.tree_util.tree_flatten_with_path(
        shardings, is_leaf=lambda end: isinstance(end, (NamedSharding, PartitionSpec))
    )
    ends: dict[str, NamedSharding] = {}
    for path, end in wanted:
        if not isinstance(end, NamedSharding):
            raise LayoutError(f"at {_shown(path)}: a result of a weight map has a NamedSharding")
        ends[jax.tree_util.keystr(path, simple=True, separator=".")] = end
    moved = _run(arrays, sources, ends, weights, budget, donate, progress)
    return jax.tree.unflatten(structure, [moved[name] for name in ends])


@lru_cache(maxsize=64)
def _prepared(
    sources: tuple[tuple[str, Source], ...],
    targets: tuple[tuple[str, NamedSharding], ...],
    weights: WeightMap | None,
    budget: int | None,
    donate: bool,
) -> tuple[Batch, ...]:
    """The batches of a tree, which are kept, with their programs, for trees of the same arrays."""
    src = {name: type_of(x.shape, carrier(x.dtype), x.sharding) for name, x in sources}
    source_shapes = {name: (t.shape, t.dtype) for name, t in src.items()}
    target_shapes = weights.shapes(source_shapes) if weights is not None else {}
    dst = {}
    for name, end in targets:
        if name not in target_shapes and name not in source_shapes:
            continue  # an error of the plan's, which has all names
        shape, dtype = target_shapes.get(name) or source_shapes[name]
        dst[name] = type_of(shape, dtype, end)
    missing = [name for name, _ in targets if name not in dst]
    if missing:
        raise LayoutError(
            f"a target is made by a rule of the map, or is the source of its name; {missing[0]} is "
            f"neither",
            target=missing[0],
        )
    plan = plan_model(src, dst, weights=weights, keep_sources=not donate)
    return tuple(Batches(plan, dict(sources), dict(targets), budget).all())


def _run(
    arrays: Mapping[str, jax.Array],
    sources: Mapping[str, Source],
    targets: Mapping[str, NamedSharding],
    weights: WeightMap | None,
    budget: int | None,
    donate: bool,
    progress: Callable[[Progress], None] | None,
) -> dict[str, jax.Array]:
    """All targets by name. The sources that are given up are deleted, each after its last use."""
    batches = _prepared((*sources.items(),), (*targets.items(),), weights, budget, donate)
    held = [*arrays.values()]
    shared = {id(held[n]) for n in sharing_buffers(held)} if donate else set()
    alive = {Array(name, is_target=False): x for name, x in arrays.items()}
    moved: dict[str, jax.Array] = {}
    flight: deque[Sequence[jax.Array]] = deque()
    report = _Report(batches, progress)
    for batch in batches:
        results = batch.run(alive)
        for name, x in zip(batch.targets, results, strict=True):
            moved[name] = alive[Array(name, is_target=True)] = x
        flight.append(results)
        while len(flight) > (IN_FLIGHT if budget is None else 0):
            jax.block_until_ready(flight.popleft())
        if donate:
            for name in batch.released:
                x = alive.pop(Array(name, is_target=False))
                if id(x) not in shared:
                    x.delete()
        report.moved(batch)
    if shared:
        give_up([x for x in held if id(x) in shared], moved.values())
    return moved


class _Report:
    """Reports how far a move is: to the caller's function and, of a long move, in the log."""

    def __init__(
        self, batches: Sequence[Batch], progress: Callable[[Progress], None] | None
    ) -> None:
        self.progress, self.start = progress, time.monotonic()
        self.logged = self.start
        self.of_arrays = sum(len(batch.targets) for batch in batches)
        self.of_bytes = sum(batch.bytes for batch in batches)
        self.arrays = self.bytes = 0

    def moved(self, batch: Batch) -> None:
        """One more batch has moved."""
        self.arrays += len(batch.targets)
        self.bytes += batch.bytes
        now = time.monotonic()
        if self.progress is not None:
            self.progress(
                Progress(self.arrays, self.of_arrays, self.bytes, self.of_bytes, now - self.start)
            )
        if now - self.logged > LONG:
            self.logged = now
            LOG.info(
                "%d of %d arrays, %d of %d bytes moved in %.1f s",
                self.arrays,
                self.of_arrays,
                self.bytes,
                self.of_bytes,
                now - self.start,
            )


def _names(paths: Iterator[Any]) -> list[str]:
    """Names of arrays by their paths; numbers where a path is none, or two are one text."""
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
    right = len(set(names)) == len(names) and all(map(NAME.fullmatch, names))
    return names if right else [f"leaf.{n}" for n in range(len(names))]


def _located(path: Any, call: Callable[..., Any], *args: Any) -> Any:
    """What a call gives; its errors name a path."""
    try:
        return call(*args)
    except RedistribError as error:
        raise type(error)(f"at {_shown(path)}: {error}", **vars(error)) from error


def _shown(path: Any) -> str:
    return jax.tree_util.keystr(path) or "the tree"
