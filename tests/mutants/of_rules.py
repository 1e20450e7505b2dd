"""Bugs in the typing rules, in tables and routing, and in what is made of a plan."""

from tests.mutants.mutant import Mutant

COLLECTIVES = "redistrib/synth/plan/collectives.py"
TABLES = "redistrib/synth/plan/tables.py"
ROUTING = "redistrib/synth/plan/routing.py"
COST = "redistrib/synth/plan/price.py"
PROFILE = "redistrib/synth/plan/profile.py"
PLAN = "redistrib/synth/plan/data.py"
PLAN_JSON = "redistrib/synth/plan/json.py"
TRANSPOSE = "redistrib/synth/plan/transpose.py"

MUTANTS = (
    Mutant(
        "an owner takes an index digit that another one owns",
        COLLECTIVES,
        "        self.check_local(index)\n        self.placements.append",
        "        self.placements.append",
    ),
    Mutant(
        "an owner need not be free before",
        COLLECTIVES,
        "        self.check_free(device)\n        self.check_local(index)\n",
        "        self.check_local(index)\n",
    ),
    Mutant(
        "an owner need not have the size of what it owns",
        COLLECTIVES,
        "        if device.size != index.size:\n",
        "        if device.size > index.size:\n",
    ),
    Mutant(
        "what is sliced need not divide the dimension",
        COLLECTIVES,
        " or self.type.shape[index.dim] % index.end:",
        ":",
    ),
    Mutant(
        "a gather names any index digit, owned by the device or not",
        COLLECTIVES,
        "            _check_owned(layout.release(device), device, index, t)\n        return layout.done()",
        "            layout.release(device)\n        return layout.done()",
    ),
    Mutant(
        "an all_to_all may move to what an earlier move of it leaves",
        COLLECTIVES,
        "            layout.check_local(move.target)\n",
        "            pass\n",
    ),
    Mutant(
        "an all_to_all moves from the target to the source",
        COLLECTIVES,
        "            layout.own(move.device, move.target)",
        "            layout.own(move.device, move.source)",
    ),
    Mutant(
        "a permute leaves owners where they were",
        COLLECTIVES,
        "owners.append((new, layout.release(old)))",
        "owners.append((old, layout.release(old)))",
    ),
    Mutant(
        "a permute leaves partial digits where they were",
        COLLECTIVES,
        "                partial.append(new)\n",
        "                partial.append(old)\n",
    ),
    Mutant(
        "a permute may join digits of two sizes",
        COLLECTIVES,
        "            if old.size != new.size:\n",
        "            if old.axis == new.axis and old.size != new.size:\n",
    ),
    Mutant(
        "two routes of a permute may lead to one digit",
        COLLECTIVES,
        "        if olds != {new for _, new in self.routes} or len(olds) != len(self.routes):\n",
        "        if not olds >= {new for _, new in self.routes} or len(olds) != len(self.routes):\n",
    ),
    Mutant(
        "reducing a part of a partial digit reduces all of it",
        COLLECTIVES,
        "        self.partial[at : at + 1] = [d for d, _ in left]\n",
        "        self.partial[at : at + 1] = []\n",
    ),
    Mutant(
        "a sum may go on as a maximum",
        COLLECTIVES,
        "    if t.partial and t.reduction != reduction:\n",
        "    if not t.partial and t.reduction == reduction:\n",
    ),
    Mutant(
        "an axis that owns something may become partial",
        COLLECTIVES,
        "            layout.check_free(device)\n            layout.partial.append(device)\n",
        "            layout.partial.append(device)\n",
    ),
    Mutant(
        "an exchange forgets the partial axes",
        COLLECTIVES,
        "self.mesh or t.mesh, t.dtype, t.shape, self.placements, t.partial, t.reduction",
        "self.mesh or t.mesh, t.dtype, t.shape, self.placements",
    ),
    Mutant(
        "a partial array goes to another mesh",
        COLLECTIVES,
        "        if self.mesh is not None and t.partial:\n",
        "        if self.mesh == t.mesh and t.partial:\n",
    ),
    Mutant(
        "a table permute may bring a device another tile than it wants",
        TABLES,
        "        if not np.array_equal(offsets_after, offsets_before[list(self.sources)]):\n",
        "        if sorted(offsets_after.tolist()) != sorted(offsets_before.tolist()):\n",
    ),
    Mutant(
        "the inverse of a table is the table",
        TABLES,
        "sources = tuple(self.sources.index(a) for a in range(len(self.sources)))",
        "sources = self.sources",
    ),
    Mutant(
        "a table moves tiles that are where they should be",
        TABLES,
        "        if a in holders.get(key, ()):\n",
        "        if sources[a] >= 0:\n",
    ),
    Mutant(
        "runs of owned digits join across a gap",
        TABLES,
        "runs[-1][2] == index.pre:",
        "runs[-1][2] <= index.pre:",
    ),
    Mutant(
        "offsets of tiles count a digit from the minor end",
        TABLES,
        "digit = values // (axis.end // device.end) % device.size",
        "digit = values // (device.pre // axis.pre) % device.size",
    ),
    Mutant(
        "a receiver takes its coordinate for the number of what it owns",
        TABLES,
        "        if own is not None and held[own] == value:\n",
        "        if own is not None and own == value:\n",
    ),
    Mutant(
        "the first replica serves all",
        TABLES,
        "sender = min(replicas[value], key=lambda b: (served[b], b))",
        "sender = min(replicas[value])",
    ),
    Mutant(
        "the digits of sender and receiver are swapped in a choice of replicas",
        ROUTING,
        "            pairs.append((first, last))\n",
        "            pairs.append((last, first))\n",
    ),
    Mutant(
        "the lower bound forgets what is local on both sides",
        ROUTING,
        "    return outside * prod(min_overlap(component) for component in components)\n",
        "    return prod(min_overlap(component) for component in components)\n",
    ),
    Mutant(
        "the worst sender sends to itself as well",
        ROUTING,
        "    sent = max(a - b for a, b in loads)\n",
        "    sent = max(a for a, _ in loads)\n",
    ),
    Mutant(
        "an all_gather receives the own tile too",
        COST,
        "            return tile * (k - 1), tile * k\n",
        "            return tile * k, tile * k\n",
    ),
    Mutant(
        "an all_to_all receives a whole tile",
        COST,
        "            return tile // k * (k - 1), tile\n",
        "            return tile, tile\n",
    ),
    Mutant(
        "an all_reduce forgets that chunks are rounded up",
        COST,
        "return tile + (k - 2) * ceil(tile / k)",
        "return 2 * (k - 1) * (tile // k)",
    ),
    Mutant(
        "a collective over several axes takes the fastest of them",
        PROFILE,
        "bandwidth = min(link.bandwidth for link in used)",
        "bandwidth = max(link.bandwidth for link in used)",
    ),
    Mutant(
        "the plan pays one latency for an all_reduce, the planner two",
        COST,
        "return StepTraffic(received, received, 2 if isinstance(step, AllReduce) else 1)",
        "return StepTraffic(received, received, 1)",
    ),
    Mutant(
        "the planner does not see that a gather makes the tile larger",
        COST,
        "            return tile * (k - 1), tile * k\n",
        "            return tile * (k - 1), tile\n",
    ),
    Mutant(
        "the bound of a reduction counts one addend too many",
        PLAN,
        "more = (addends - 1 - held)",
        "more = (addends - held)",
    ),
    Mutant(
        "the source counts twice in the memory of the first step",
        PLAN,
        "source + (before.tile_bytes if at else 0) + after.tile_bytes",
        "source + before.tile_bytes + after.tile_bytes",
    ),
    Mutant(
        "the steps of a plan may end anywhere",
        PLAN,
        "    if types[-1] not in (target, dst):\n",
        "    if types[-1].shape != dst.shape:\n",
    ),
    Mutant(
        "slices count as collectives",
        PLAN,
        "return sum(not isinstance(step, LOCAL) for step in self.steps)",
        "return len(self.steps)",
    ),
    Mutant(
        "source and target of a move are swapped in JSON",
        PLAN_JSON,
        "(m.device, m.source, m.target) for m in step.moves",
        "(m.device, m.target, m.source) for m in step.moves",
    ),
    Mutant(
        "a plan forgets its memory limit in JSON",
        PLAN_JSON,
        'str(data["strategy"]), steps, memory_limit=limit)',
        'str(data["strategy"]), steps)',
    ),
    Mutant(
        "a plan from JSON has the seconds of the default profile",
        PLAN_JSON,
        '        plan = replace(plan, seconds=float(data["seconds"]))\n',
        '        plan = replace(plan, seconds=plan.seconds + 0 * float(data["seconds"]))\n',
    ),
    Mutant(
        "every conversion to partial is a sum in JSON",
        PLAN_JSON,
        'return ShardedToPartial(_placements(data["placements"]), data["reduction"])',
        'return ShardedToPartial(_placements(data["placements"]), "sum")',
    ),
    Mutant(
        "the transpose of a gather is a gather",
        TRANSPOSE,
        "            return ReduceScatter(placements)\n",
        "            return AllGather(placements)\n",
    ),
    Mutant(
        "the transpose of an all_to_all is not inverted",
        TRANSPOSE,
        "Move(m.device, m.target, m.source)",
        "Move(m.device, m.source, m.target)",
    ),
    Mutant(
        "the transpose of a permute is not inverted",
        TRANSPOSE,
        "tuple((new, old) for old, new in routes)",
        "tuple((old, new) for old, new in routes)",
    ),
    Mutant(
        "the transposed steps run forwards",
        TRANSPOSE,
        "plan.strategy, reversed(steps))",
        "plan.strategy, steps)",
    ),
)
