"""A plan: the typed steps between two types, with what they cost. Plain data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from redistrib.display import to_html, to_text, write_page
from redistrib.errors import LayoutError
from redistrib.synth.plan.bounds import lower_bound_elements
from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.price import StepTraffic, step_seconds, step_traffic
from redistrib.synth.plan.profile import DEFAULT_PROFILE, Profile
from redistrib.types.array_type import ArrayType
from redistrib.types.equivalence import on_mesh
from redistrib.types.padding import padded
from redistrib.types.refinement import Refinement, refine


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps from the type `src` to the type `dst`; `types` are before, between and after them.

    If `dst` is on another mesh, the last type may be the equivalent one on the mesh of `src`.
    `traffic` holds, per step, what its worst device receives and sends. Sizes are bytes per device;
    `memory_limit` is the one that was asked for, if any, and `profile` the one that `seconds` is
    an estimate under. Where `src` or `dst` is uneven and `padded_shape` is given, `types` and steps
    are those of the array padded to this shape, of whose tiles the real ones are the corners.
    """

    src: ArrayType
    dst: ArrayType
    strategy: str
    steps: tuple[Collective, ...]
    types: tuple[ArrayType, ...]
    traffic: tuple[StepTraffic, ...]
    seconds: float
    lower_bound_bytes: int
    memory_limit: int | None = None
    profile: Profile = DEFAULT_PROFILE
    padded_shape: tuple[int, ...] | None = None

    @property
    def received_bytes(self) -> int:
        """Sum over steps of what that step's worst device receives from others."""
        return sum(step.received_bytes for step in self.traffic)

    @property
    def sent_bytes(self) -> int:
        """Sum over steps of what that step's worst device sends to others."""
        return sum(step.sent_bytes for step in self.traffic)

    @property
    def peak_tile_bytes(self) -> int:
        """The largest tile of any type of the plan."""
        return max(t.tile_bytes for t in self.types)

    @property
    def live_bytes_per_step(self) -> tuple[int, ...]:
        """Per step, source + input of the step (if it is not the source) + output."""
        source = self.types[0].tile_bytes
        return tuple(
            source + (before.tile_bytes if at else 0) + after.tile_bytes
            for at, (before, after) in enumerate(zip(self.types, self.types[1:], strict=False))
        )

    @property
    def live_bytes(self) -> int:
        """The largest sum of tiles alive at once on a device; the source is kept."""
        return max(self.live_bytes_per_step, default=self.types[0].tile_bytes)

    @property
    def seconds_per_step(self) -> tuple[float, ...]:
        """Estimated seconds of each step, whose sum, in this order, is `seconds`."""
        return _step_seconds(self.steps, self.types, self.traffic, self.profile)

    @property
    def num_collectives(self) -> int:
        """Communicating steps."""
        return sum(step.communicates for step in self.steps)

    def to_json(self) -> str:
        """The plan as JSON text, the same for the same problem in every process."""
        from redistrib.synth.plan.json import plan_to_json

        return plan_to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan in a JSON text. Raises RedistribError for anything else."""
        from redistrib.synth.plan.json import plan_from_json

        return plan_from_json(text)

    def transpose(self) -> Plan:
        """The plan of the transposed linear map, from `dst` to `src`, step by step in reverse."""
        from redistrib.synth.plan.transpose import transpose

        return transpose(self)

    def to_html(self, path: str | Path) -> None:
        """Write the plan as a standalone HTML page. Raises OSError where that fails."""
        write_page(self, path)

    def _repr_html_(self) -> str:
        return to_html(self)

    def __str__(self) -> str:
        return to_text(self)


def check_even(plan: Plan, what: str) -> None:
    """Raise LayoutError, for `what` takes even types alone, where an end of a plan is uneven."""
    for t in (plan.src, plan.dst):
        if t.uneven:
            raise LayoutError(
                f"{what} takes even types, whose tiles have one shape; got {t}; uneven ones run on "
                f"the simulator and under MPI, or pad the dimension",
                type=t,
            )


def make_plan(
    src: ArrayType,
    dst: ArrayType,
    strategy: str,
    steps: Iterable[Collective],
    profile: Profile = DEFAULT_PROFILE,
    memory_limit: int | None = None,
    refinement: Refinement | None = None,
    padded_shape: tuple[int, ...] | None = None,
) -> Plan:
    """The plan of these steps, typed and priced. Raises LayoutError if they do not end in `dst`.

    `profile` is taken with its links on the mesh of the source. `refinement` is that of the two
    types, where it is known already.
    """
    steps = tuple(steps)
    start, end = src, dst
    if padded_shape is not None:
        start, end = padded(src, padded_shape), padded(dst, padded_shape)
    # The target of a plan within one mesh may be given on another mesh of the same devices.
    target = on_mesh(end, start.mesh) or end
    if target.mesh == start.mesh and not (start.uneven or end.uneven):
        refinement = refinement or refine(start, target)
    types = [start]
    for step in steps:
        types.append(step.apply(types[-1]))
    if types[-1] not in (target, end):
        raise LayoutError(f"the steps of a plan end in {end}; got {types[-1]}", src=src, dst=dst)
    traffic = tuple(
        step_traffic(step, before, after, refinement if len(steps) == 1 else None)
        for step, before, after in zip(steps, types, types[1:], strict=False)
    )
    seconds = 0.0
    for duration in _step_seconds(steps, types, traffic, profile):
        seconds += duration
    if padded_shape is not None:  # a bound is of real elements
        target, refinement = on_mesh(dst, src.mesh) or dst, None
    bound = lower_bound_elements(src, target, refinement) * src.itemsize
    figures = traffic, seconds, bound, memory_limit, profile, padded_shape
    return Plan(src, dst, strategy, steps, tuple(types), *figures)


def _step_seconds(
    steps: Sequence[Collective],
    types: Sequence[ArrayType],
    traffic: Sequence[StepTraffic],
    profile: Profile,
) -> tuple[float, ...]:
    links = profile.on(types[0].mesh)
    return tuple(
        step_seconds(step, before, moved, links)
        for step, before, moved in zip(steps, types, traffic, strict=False)
    )
