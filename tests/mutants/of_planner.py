"""Bugs in the planner: aligned and misaligned pairs, reductions, exact search."""

from tests.mutants.mutant import Mutant

PLANNER = "redistrib/synth/planner/choose.py"
ALIGNED = "redistrib/synth/planner/three_phase.py"
CHAINS = "redistrib/synth/planner/chains.py"
MISALIGNED = "redistrib/synth/planner/halfway.py"
REDUCTIONS = "redistrib/synth/planner/reductions.py"
EXACT = "redistrib/synth/planner/exact.py"
PRIMES = "redistrib/synth/planner/prime_digits.py"
ACROSS = "redistrib/synth/planner/across.py"

MUTANTS = (
    Mutant(
        "a memory limit has to hold the smaller end only",
        PLANNER,
        "    least = max(src.tile_bytes, dst.tile_bytes)\n",
        "    least = min(src.tile_bytes, dst.tile_bytes)\n",
    ),
    Mutant(
        "tiles between aligned types may be as large as the larger end",
        PLANNER,
        "return min(sizes) if small else max(sizes)",
        "return max(sizes)",
    ),
    Mutant(
        "a memory limit in bytes is taken for one in elements",
        PLANNER,
        "return self.memory_limit // self.src.itemsize",
        "return self.memory_limit",
    ),
    Mutant(
        "auto never exchanges",
        PLANNER,
        "    if seconds <= total_seconds(direct_costs):\n",
        "    if seconds >= 0:\n",
    ),
    Mutant(
        "what becomes partial at the end does not",
        PLANNER,
        "return [*opening, *_between(start, end, problem), *closing]",
        "return [*opening, *_between(start, end, problem)]",
    ),
    Mutant(
        "an exact search is trusted beyond its bound",
        PLANNER,
        "        best = search.run() or best\n",
        "        best = search.run()\n",
    ),
    Mutant(
        "digits that stay where they are move too",
        CHAINS,
        "d for d in refinement.axes if (d in before or d in after) and before.get(d) != after.get(d)",
        "d for d in refinement.axes if (d in before or d in after)",
    ),
    Mutant(
        "the routes of a permute run against the chain",
        ALIGNED,
        "routes += [*zip(u[1:], u, strict=False), (u[0], u[-1])]",
        "routes += [*zip(u, u[1:], strict=False), (u[-1], u[0])]",
    ),
    Mutant(
        "a permute forgets the route back to the start of a ring",
        ALIGNED,
        "routes += [*zip(u[1:], u, strict=False), (u[0], u[-1])]",
        "routes += [*zip(u[1:], u, strict=False)]",
    ),
    Mutant(
        "the permute before the all_to_all is dropped",
        ALIGNED,
        "yield [CollectivePermute(tuple(routes)), *([AllToAll(tuple(last))] if last else [])]",
        "yield [AllToAll(tuple(last))] if last else [CollectivePermute(tuple(routes))]",
    ),
    Mutant(
        "after the permute the first digit of a path moves, not the last",
        ALIGNED,
        "last = [Move(u[-1], b[0], b[-1]) for u, b in paths]",
        "last = [Move(u[0], b[0], b[-1]) for u, b in paths]",
    ),
    Mutant(
        "the all_to_all that vacates a place goes second",
        ALIGNED,
        "    yield [AllToAll(tuple(vacate)), AllToAll(tuple(settle))]\n",
        "    yield [AllToAll(tuple(settle)), AllToAll(tuple(vacate))]\n",
    ),
    Mutant(
        "an early gather may exceed the limit",
        ALIGNED,
        " or ((early or late) and tile > limit):",
        ":",
    ),
    Mutant(
        "an early gather goes before the slices",
        ALIGNED,
        "        opening.append(AllGather(early))\n",
        "        opening.insert(0, AllGather(early))\n",
    ),
    Mutant(
        "an idle axis is sliced in where it is gathered, and the reverse",
        CHAINS,
        "        slices=((parts[0], last),),\n        gathers=((parts[-1], first),),\n",
        "        slices=((parts[0], first),),\n        gathers=((parts[-1], last),),\n",
    ),
    Mutant(
        "spare places may overlap",
        ALIGNED,
        "if run.size // used[run] % spare.size == 0:",
        "if run.size % spare.size == 0:",
    ),
    Mutant(
        "an idle axis may be used by two chains",
        ALIGNED,
        "    if taken and len(set(taken)) < len(taken):\n",
        "    if taken and len(taken) > len(choices):\n",
    ),
    Mutant(
        "a chain that is left to another one may be left by all",
        ALIGNED,
        "    if any(choice.leaves and choice.leaves not in taken for choice in choices):\n",
        "    if all(choice.leaves for choice in choices):\n",
    ),
    Mutant(
        "idle axes are never used",
        CHAINS,
        "        yield Choice(slices=(part,), gathers=(part,), takes=(digit,))\n",
        "        yield Choice(takes=(part[0],))\n",
    ),
    Mutant(
        "a partial axis is sliced instead of reduced",
        ALIGNED,
        "slices = tuple(p for p in placings if not roles.reduced(p[0]))",
        "slices = placings",
    ),
    Mutant(
        "the dearest combination is taken",
        ALIGNED,
        "            if priced is not None and priced[0] < best[0]:\n                best = priced\n",
        "            if priced is not None and priced[0] > best[0]:\n                best = priced\n",
    ),
    Mutant(
        "relaxed ends may exceed the limit",
        MISALIGNED,
        "        if meeting is not None and size <= limit:\n",
        "        if meeting is not None and size >= 0:\n",
    ),
    Mutant(
        "gather all, slice all may exceed the limit",
        MISALIGNED,
        "        size = src.size\n        if size <= limit:\n",
        "        size = src.size\n        if size >= limit:\n",
    ),
    Mutant(
        "the all_to_all from halfway runs from the end",
        MISALIGNED,
        "yield AllToAll(tuple(Move(d, halfway.owned[d], i) for d, i in halfway.moved))",
        "yield AllToAll(tuple(Move(d, i, halfway.owned[d]) for d, i in halfway.moved))",
    ),
    Mutant(
        "a halfway type forgets the partial axes",
        MISALIGNED,
        "        like.mesh, like.dtype, like.shape, placements, like.partial, like.reduction\n",
        "        like.mesh, like.dtype, like.shape, placements\n",
    ),
    Mutant(
        "the aligned and the misaligned components change places",
        MISALIGNED,
        "placed = [c.dst if c.aligned == aligned_first else c.src for c in components]",
        "placed = [c.dst if c.aligned != aligned_first else c.src for c in components]",
    ),
    Mutant(
        "joining two halfway types costs no permute",
        MISALIGNED,
        "    if join.permuted:\n        total +=",
        "    if not join.permuted:\n        total +=",
    ),
    Mutant(
        "partial axes count as free halfway",
        MISALIGNED,
        "[d for d in system if d not in owned and d not in kept]",
        "[d for d in system if d not in owned]",
    ),
    Mutant(
        "a maximum over the axes of a sum is kept",
        REDUCTIONS,
        "kept = before & after if src.reduction == dst.reduction else frozenset()",
        "kept = before & after",
    ),
    Mutant(
        "the rest of a reduced digit begins where its part does",
        REDUCTIONS,
        "whole = DeviceDigit(whole.axis, part.end, whole.size // size)",
        "whole = DeviceDigit(whole.axis, part.pre, whole.size // size)",
    ),
    Mutant(
        "reducing a part of a digit forgets the rest of it",
        REDUCTIONS,
        "                    left[at : at + 1] = split_off(whole, part)\n",
        "                    left[at : at + 1] = []\n",
    ),
    Mutant(
        "reductions find no place below what is owned",
        REDUCTIONS,
        "        if n > pre:\n",
        "        if n < pre:\n",
    ),
    Mutant(
        "an owner is spread over a partial axis twice",
        REDUCTIONS,
        "free = tuple(d for d in sorted(roles.produce) if d not in [d for d, _ in spread])",
        "free = tuple(sorted(roles.produce))",
    ),
    Mutant(
        "the estimate of the exact search ignores what is there already",
        EXACT,
        "missing = self._wanted - (overlap if overlap < tile else tile)",
        "missing = self._wanted",
    ),
    Mutant(
        "the exact search passes types above the limit",
        EXACT,
        "            if tile > self.limit and distance > 0:\n",
        "            if tile > 4 * self.limit and distance > 0:\n",
    ),
    Mutant(
        "the exact search takes a gather for an all_to_all",
        EXACT,
        "received = tile * (prod(d.size for d in devices) - 1)",
        "received = tile // prod(d.size for d in devices)",
    ),
    Mutant(
        "neighbours of an axis join across a gap in the dimension",
        PRIMES,
        "if (d.axis, d.end, i.dim, i.end) == (device.axis, device.pre, index.dim, index.pre):",
        "if (d.axis, d.end, i.dim) == (device.axis, device.pre, index.dim):",
    ),
    Mutant(
        "index digits that do not overlap are compatible, nested or not",
        PRIMES,
        "return apart and all(x % y == 0 or y % x == 0 for x in (a.pre, a.end) for y in (b.pre, b.end))",
        "return apart",
    ),
    Mutant(
        "an axis is cut with its smaller primes first, and in no other order",
        PRIMES,
        "for prime in sorted(set(primes(size)))",
        "for prime in primes(size)[:1]",
    ),
    Mutant(
        "replicas on another mesh do not gather what each of them received",
        ACROSS,
        "gather = [AllGather(tuple(gathered))] if gathered else []",
        "gather = [AllGather(tuple(gathered))] if not gathered else []",
    ),
    Mutant(
        "the rest of a spread digit begins where its part does",
        ACROSS,
        "rest = DeviceDigit(rest.axis, part.end, rest.size // size)",
        "rest = DeviceDigit(rest.axis, part.pre, rest.size // size)",
    ),
    Mutant(
        "what becomes partial on another mesh is gathered, too",
        ACROSS,
        "            if piece_of(part, device) is not None:\n",
        "            if piece_of(part, device) is None:\n",
    ),
)
