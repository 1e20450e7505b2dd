"""Bugs in what finds bugs: the checker, the certificates, the simulator and its delivery."""

from tests.mutants.mutant import Mutant

CHECKER = "redistrib/checker/checker.py"
CERTIFICATE = "redistrib/checker/certificate/__init__.py"
SOLVER = "redistrib/checker/certificate/solver.py"
STEPS = "redistrib/checker/certificate/steps.py"
CERTIFIED_TABLES = "redistrib/checker/certificate/tables.py"
DELIVERY = "redistrib/backends/delivery.py"
SIMULATOR = "redistrib/backends/simulator.py"
REDUCTION = "redistrib/types/reduction.py"
TABLES = "redistrib/synth/plan/tables.py"
TILE = "redistrib/types/tile.py"

MUTANTS = (
    Mutant(
        "the checker has a gather receive the own tile too",
        CHECKER,
        "lambda tile, k: tile * (k - 1)),",
        "lambda tile, k: tile * k),",
    ),
    Mutant(
        "the checker thinks that a reduce_scatter takes free digits",
        CHECKER,
        '"reduce_scatter": ("partial", "owner",',
        '"reduce_scatter": ("free", "owner",',
    ),
    Mutant(
        "the checker does not look where the steps end",
        CHECKER,
        '    _require(equivalent(current, dst), f"the',
        '    _require(current.shape == dst.shape, f"the',
    ),
    Mutant(
        "the checker lets any tile pass",
        CHECKER,
        "    _require(max(tiles) <= limit,",
        "    _require(min(tiles) <= limit,",
    ),
    Mutant(
        "the checker believes the totals of a plan",
        CHECKER,
        "    _same(figures, data)\n",
        "    _same({}, data)\n",
    ),
    Mutant(
        "the checker does not ask whether an index digit is local",
        CHECKER,
        "            _require(fits and local,",
        "            _require(fits or local,",
    ),
    Mutant(
        "the checker takes any sources of a table for a permutation",
        CHECKER,
        "right = len(sources) == _size(axes) and sorted(sources) == [*range(len(sources))]",
        "right = len(sources) == _size(axes) and {*sources} <= {*range(len(sources))}",
    ),
    Mutant(
        "the checker does not see that a table brings the wrong tile",
        CHECKER,
        "right = not edges and np.array_equal(starts[0][:, sources], starts[1])",
        "right = not edges",
    ),
    Mutant(
        "the checker lets a device ask others for what it holds",
        CHECKER,
        '        _require(np.array_equal(own, sender == home), "a device keeps what it already holds")\n',
        "",
    ),
    Mutant(
        "the checker lets a device send what it lacks",
        CHECKER,
        '        _require(all(right), "who sends an element holds it")\n',
        '        _require(any(right), "who sends an element holds it")\n',
    ),
    Mutant(
        "the checker lets some replicas serve more than others",
        CHECKER,
        '            _require(len(senders) == len(self.spans), "all replicas serve the same amount")\n',
        "",
    ),
    Mutant(
        "the checker lets a digit that owns something name a replica",
        CHECKER,
        "        _require_free(a, [owner for owner, _ in t.placements], t)\n",
        "",
    ),
    Mutant(
        "the checker counts one addend too many in the bound",
        CHECKER,
        "more = _size(src.partial) - 1 -",
        "more = _size(src.partial) -",
    ),
    Mutant(
        "the checker counts what a device sends to itself",
        CHECKER,
        "max(a - b for a, b in loads)",
        "max(a for a, _ in loads)",
    ),
    Mutant(
        "the checker lets a sum go on as a maximum",
        CHECKER,
        "    _require(not t.partial or t.reduction == reduction,",
        "    _require(not t.partial or reduction is not None,",
    ),
    Mutant(
        "the checker lets a step name one digit twice",
        CHECKER,
        "fits = fits and all(apart(a, b) for a, b in combinations(named, 2)) and bool(named)",
        "fits = fits and bool(named)",
    ),
    Mutant(
        "z3 is asked whether the claim can hold, not whether it can fail",
        SOLVER,
        "    solver.add(z3.Not(claim))\n",
        "    solver.add(claim)\n",
    ),
    Mutant(
        "numbers are written with their digits added up",
        SOLVER,
        "        total = total * size + value\n",
        "        total = total + value * size\n",
    ),
    Mutant(
        "the certificate does not compare elements",
        STEPS,
        "        claims.append(sent == wanted)\n",
        "        claims.append(sent >= 0)\n",
    ),
    Mutant(
        "the certificate does not compare addends",
        STEPS,
        "    claims.append(same_left == z3.And([sender[d] == other[d] for d in sorted(kept)]))\n",
        "",
    ),
    Mutant(
        "the certificate has a gather take all parts from the receiver",
        STEPS,
        '            case "all_gather":\n                sender[device] = leave(rest[0])',
        '            case "all_gather":\n                leave(rest[0])',
    ),
    Mutant(
        "the certificate has every device slice out part 0",
        STEPS,
        '            case "dynamic_slice":\n                enter(rest[0], here[device])',
        '            case "dynamic_slice":\n                enter(rest[0], 0)',
    ),
    Mutant(
        "the certificate does not look where the steps end",
        CERTIFICATE,
        '        require(types[-1] == dst, f"the steps',
        '        require(types[-1].shape == dst.shape, f"the steps',
    ),
    Mutant(
        "the certificate passes a table with wrong tiles",
        CERTIFIED_TABLES,
        "wrong = np.argwhere((held != wanted).any(axis=1))",
        "wrong = np.argwhere((held != wanted).all(axis=1))",
    ),
    Mutant(
        "the certificate lets a table ask who lacks the element",
        CERTIFIED_TABLES,
        "            right &= digit_values([owner], sender, self.axes) == digit\n",
        "            right &= digit >= 0\n",
    ),
    Mutant(
        "the certificate lets a step reduce by sum and by maximum",
        STEPS,
        "    require(len(names) <= 1,",
        "    require(len(names) <= 2,",
    ),
    Mutant(
        "a gather delivers to each device its own part only",
        DELIVERY,
        "                result[device] = 0\n                result[index] = source[device]\n",
        "                result[index] = source[device]\n",
    ),
    Mutant(
        "a permute runs backwards",
        DELIVERY,
        "                result[new_digit] = source[old_digit]\n",
        "                result[old_digit] = source[new_digit]\n",
    ),
    Mutant(
        "a slice walks the tile and not the devices",
        DELIVERY,
        "                result[device] = source[device] + source[index]\n",
        "                result[device] = source[index]\n",
    ),
    Mutant(
        "the identities of maximum and minimum are swapped",
        REDUCTION,
        '    lowest = reduction == "max"\n',
        '    lowest = reduction == "min"\n',
    ),
    Mutant(
        "the identity of a sum is +0.0",
        REDUCTION,
        '        return dtype.type(complex(-0.0, -0.0) if dtype.kind == "c" else -0.0)\n',
        "        return dtype.type(0)\n",
    ),
    Mutant(
        "a table sends where it should receive",
        TABLES,
        "wanted = np.array(table.sources, np.intp)[digit_values(table.axes, here, axes)]",
        "wanted = np.argsort(np.array(table.sources, np.intp))[digit_values(table.axes, here, axes)]",
    ),
    Mutant(
        "a place in a tile counts what is owned, not what lies between",
        DELIVERY,
        "result = result * gap + blocks // (n // index.pre) % gap",
        "result = result * gap + blocks // (n // index.end) % gap",
    ),
    Mutant(
        "a sender that lacks an element sends another one",
        DELIVERY,
        "    if not held.all():\n",
        "    if not held.any():\n",
    ),
    Mutant(
        "the sharded to partial conversion writes every part to place 0",
        DELIVERY,
        "                target[device] += target[index]\n",
        "                target[device] += 0\n",
    ),
    Mutant(
        "the measurement gives all chunks of an all_reduce one size",
        SIMULATOR,
        "chunk = np.array([tile // group + (c < tile % group) for c in range(group)])",
        "chunk = np.array([tile // group for c in range(group)])",
    ),
    Mutant(
        "the measurement counts the source twice",
        SIMULATOR,
        "live.append(source + (held if live else 0) + made)",
        "live.append(source + held + made)",
    ),
    Mutant(
        "replicas may disagree",
        SIMULATOR,
        "    if differ.any():\n",
        "    if differ.all():\n",
    ),
    Mutant(
        "every addend of a scattered array holds the data",
        SIMULATOR,
        "tiles[~first_of(type.mesh, type.partial)] = identity",
        "tiles[:0] = identity",
    ),
    Mutant(
        "pieces are put back in the order that brought them to the front",
        TILE,
        "inverse = sorted(range(len(self.order)), key=self.order.__getitem__)",
        "inverse = self.order",
    ),
    Mutant(
        "the devices of a group are in the order of their positions",
        TILE,
        "order = np.lexsort((numbers(mesh, digits), first))",
        'order = np.argsort(first, kind="stable")',
    ),
)
