"""The steps of a plan, with their types and what they cost. Plain data.

    >>> from redistrib.synth.plan.collectives import AllGather
    >>> from redistrib.synth.plan.data import make_plan
    >>> from redistrib.types.digits import DeviceDigit, IndexDigit
    >>> from redistrib.types.mesh import Mesh
    >>> src, dst = (ArrayType.parse(text, Mesh(x=2)) for text in ("f32[8{x}]", "f32[8]"))
    >>> gather = AllGather(((DeviceDigit("x", 1, 2), IndexDigit(0, 1, 2)),))
    >>> steps = make_plan(src, dst, "collectives", [gather])
    >>> [str(t) for t in steps.types], steps.received_bytes, steps.live_bytes_per_step
    (['f32[8{x}]', 'f32[8]'], 16, (48,))

What reads steps (`json`, `transpose`, the report) is above this module, and `Plan` above them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.price import StepTraffic, Term, onto, step_seconds
from redistrib.synth.plan.profile import DEFAULT_PROFILE, Profile, find_profile
from redistrib.types.array_type import ArrayType


@dataclass(frozen=True, slots=True)
class PricedSteps:
    """The fields of a plan, which `Plan` explains, and the figures that follow from them."""

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
            source + (before.tile_bytes if number else 0) + after.tile_bytes
            for number, (before, after) in enumerate(zip(self.types, self.types[1:], strict=False))
        )

    @property
    def live_bytes(self) -> int:
        """The largest sum of tiles alive at once on a device; the source is kept."""
        return max(self.live_bytes_per_step, default=self.types[0].tile_bytes)

    @property
    def seconds_per_step(self) -> tuple[float, ...]:
        """Estimated seconds of each step, whose sum, in this order, is `seconds`."""
        return seconds_of(self.steps, self.types, self.traffic, self.profile)

    @property
    def terms(self) -> tuple[Term, ...]:
        """What the communicating steps take whatever the links, in their order."""
        steps = zip(self.steps, self.types, self.types[1:], self.traffic, strict=False)
        return tuple(
            Term(
                step.collective,
                step.crossed(before),
                moved.latencies,
                moved.timed_bytes(step),
                before.mesh,
                after.mesh if onto(step) else None,
            )
            for step, before, after, moved in steps
            if step.communicates
        )

    def seconds_under(self, profile: Profile | str) -> float:
        """Estimated seconds of these steps under another profile: nothing is planned again."""
        links = find_profile(profile)
        seconds = 0.0
        for term in self.terms:
            seconds += term.seconds(links)
        return seconds

    @property
    def latencies(self) -> int:
        """The rounds of all communicating steps, each with a latency."""
        return sum(term.latencies for term in self.terms)

    @property
    def num_collectives(self) -> int:
        """Communicating steps."""
        return sum(step.communicates for step in self.steps)


def seconds_of(
    steps: Sequence[Collective],
    types: Sequence[ArrayType],
    traffic: Sequence[StepTraffic],
    profile: Profile,
) -> tuple[float, ...]:
    """Estimated seconds of each step."""
    mesh, links, seconds = types[0].mesh, profile.on(types[0].mesh, types[-1].mesh), []
    for step, before, moved in zip(steps, types, traffic, strict=False):
        if before.mesh != mesh:
            mesh, links = before.mesh, profile.on(before.mesh)
        seconds.append(step_seconds(step, before, moved, links))
    return tuple(seconds)
