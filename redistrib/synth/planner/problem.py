"""The problem that strategies solve: two types, a memory limit, a profile and an effort.

Example: mesh x=2,y=4, `f32[4096{x}, 4096{y}] -> f32[4096{y}, 4096{x}]` under the default profile.
`src` and `dst` are these types, `target` is `dst`; `common` has the digits that both are cut into,
`x:(1)2`, `y:(1)2`, `y:(2)2`; `limit(aligned=True)` is 2,097,152 elements, a tile of either end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import prod
from typing import Literal, get_args

from redistrib.errors import InfeasibleError, LayoutError, RedistribError
from redistrib.synth.plan.bounds import lower_bound_elements
from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.links import Link
from redistrib.synth.plan.price import StepCost, price_steps
from redistrib.synth.plan.profile import Profile, find_profile
from redistrib.synth.plan.routing import Traffic
from redistrib.synth.planner.work import Work
from redistrib.text import brief, parse_limit
from redistrib.types.array_type import ArrayType
from redistrib.types.equivalence import on_mesh
from redistrib.types.mesh import MAX_CROSSED, Mesh, check_enumerable
from redistrib.types.named_sharding import TypeLike, as_types
from redistrib.types.refinement import Refinement, check_array, refine

Strategy = Literal["auto", "collectives", "direct", "exact", "paper"]
Effort = Literal["fast", "best"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A pair of types, with the limit and the profile under which a strategy proposes steps.

    `dst` is the `target` asked for, on the mesh of the source where it has a type there. `common`
    is the refinement of the two, None between two meshes. `memory_limit` is in bytes per device;
    `links` is the `profile` asked for with its links on the mesh of the source.
    """

    src: ArrayType
    dst: ArrayType
    target: ArrayType
    memory_limit: int | None
    profile: Profile
    links: Profile
    effort: Effort
    common: Refinement | None
    work: Work = field(default_factory=Work, compare=False)

    @property
    def across(self) -> bool:
        """Whether nothing but an exchange leads from one mesh to the other."""
        return self.common is None and not self.uneven

    @property
    def uneven(self) -> bool:
        """Whether an end is uneven, so that there are no common digits."""
        return bool(self.src.uneven or self.dst.uneven)

    @property
    def refinement(self) -> Refinement:
        """The common refinement. Raises LayoutError between two meshes."""
        if self.common is None:
            raise LayoutError(
                f"only an exchange leads from mesh {self.src.mesh!r} to {self.dst.mesh!r}; "
                f"strategies that have it: auto, direct",
                src=self.src,
                dst=self.dst,
            )
        return self.common

    @property
    def partial(self) -> bool:
        """Whether an end is partial."""
        return bool(self.src.partial or self.dst.partial)

    @property
    def target_links(self) -> Profile:
        """The profile with its links on the mesh of the target."""
        return self.profile.on(self.dst.mesh)

    @property
    def fastest(self) -> Link:
        """No collective on the mesh of the source takes less than over this link."""
        return self.links.fastest(self.src.mesh)

    def refined(self, start: ArrayType, end: ArrayType) -> Refinement:
        """The refinement of two types on the way, which mostly are the ends."""
        if start is self.src and end == self.dst:
            return self.refinement
        return refine(start, end)

    def step_costs(
        self, steps: Sequence[Collective], traffic: Traffic | None = None
    ) -> tuple[StepCost, ...]:
        """What each step of a plan costs; `traffic` is that of its exchange, where known."""
        known = traffic or self.common
        target_links = self.target_links if self.common is None else None
        return price_steps(self.src, self.dst, steps, self.links, known, target_links)

    def limit(self, aligned: bool) -> int:
        """Elements that an intermediate tile may have.

        Without a memory limit none exceeds the larger end. Where digits match and no axis is slower
        than another it pays to stay below the smaller end, unless latencies dominate: only the
        effort "best" looks above it then.
        """
        if self.memory_limit is not None:
            return self.memory_limit // self.src.itemsize
        sizes = self.src.tile_size, self.dst.tile_size
        small = aligned and self.links.uniform and not self.partial and self.effort == "fast"
        return min(sizes) if small else max(sizes)

    def floor(self) -> float:
        """Seconds that no plan beats: one latency and the bytes that some device must receive."""
        if self.common is None:
            return 0.0
        received = lower_bound_elements(self.src, self.dst, self.common) * self.src.itemsize
        if not received:
            return 0.0
        return self.fastest.latency + received / self.fastest.bandwidth


def make_problem(
    src: TypeLike,
    dst: TypeLike,
    memory_limit: int | str | None = None,
    profile: Profile | str | None = None,
    effort: Effort = "fast",
) -> Problem:
    """The problem between two types; a memory limit may be a text, `"1GiB"`.

    Raises LayoutError where the types do not fit each other, InfeasibleError where an end exceeds
    the limit, RedistribError for an unknown profile or effort.
    """
    src, dst = as_types(src, dst)
    memory_limit = parse_limit(memory_limit)
    check_array(src, dst)
    check_name("effort", effort, get_args(Effort))
    least = max(src.tile_bytes, dst.tile_bytes)
    if memory_limit is not None and memory_limit < least:
        raise InfeasibleError(
            f"a plan holds the tiles of both ends, so it needs at least {least} bytes per device; "
            f"the memory limit is {memory_limit}",
            memory_limit=memory_limit,
            least_bytes=least,
        )
    profile = find_profile(profile)
    target = on_mesh(dst, src.mesh)
    _check_devices(src.mesh, dst.mesh, across=target is None)
    even = not (src.uneven or dst.uneven)
    common = refine(src, target) if even and target is not None else None
    if common is not None and not common.aligned:
        for component in common.components():
            if not component.aligned:
                check_enumerable(prod(axis.size for axis in component.axes))
    links = profile.on(src.mesh, (target or dst).mesh)
    return Problem(src, target or dst, dst, memory_limit, profile, links, effort, common)


def _check_devices(source: Mesh, target: Mesh, *, across: bool) -> None:
    """Raise LayoutError for more devices than are looked at one by one."""
    for mesh in (source, target):
        if mesh.devices is not None:
            check_enumerable(mesh.num_devices)
    most = max(source.num_devices, target.num_devices)
    if across and most > MAX_CROSSED:
        raise LayoutError(
            f"an array crosses between two meshes of at most {MAX_CROSSED} devices each, which are "
            f"compared one by one; got {source.num_devices} and {target.num_devices}",
            devices=most,
        )


def check_name(option: str, name: object, known: Sequence[str]) -> None:
    """Raise RedistribError, with the nearest legal spelling, for a name that is not known.

    >>> check_name("effort", "bst", ("fast", "best"))
    Traceback (most recent call last):
    redistrib.errors.RedistribError: unknown effort 'bst', did you mean 'best'? known: fast, best
    """
    if isinstance(name, str) and name in known:
        return
    near = get_close_matches(name, known, n=1) if isinstance(name, str) else []
    hint = f", did you mean {near[0]!r}?" if near else ";"
    raise RedistribError(
        f"unknown {option} {brief(name)}{hint} known: {', '.join(known)}", **{option: name}
    )


StrategyLike = Strategy | Callable[[Problem], Sequence[Collective]]
"""A strategy by name, or a function that gives the steps of a plan."""
