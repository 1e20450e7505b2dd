"""Bugs in `redistrib/types/`: canonical form, digits, positions, refinement, text."""

from tests.mutants.mutant import Mutant

ARRAY_TYPE = "redistrib/types/array_type.py"
DIGITS = "redistrib/types/digits.py"
EQUIVALENCE = "redistrib/types/equivalence.py"
MESH = "redistrib/types/mesh.py"
POSITIONS = "redistrib/types/positions.py"
REFINEMENT = "redistrib/types/refinement.py"
SYNTAX = "redistrib/types/notation.py"

MUTANTS = (
    Mutant(
        "a digit of a device is counted from the minor end of its axis",
        ARRAY_TYPE,
        "return coordinate // (axis_size // device.end) % device.size",
        "return coordinate // device.pre % device.size",
    ),
    Mutant(
        "a tile lists its local factors minor to major",
        ARRAY_TYPE,
        "indices = (indices[:, None] + np.arange(k) * stride).reshape(-1)",
        "indices = (indices + (np.arange(k) * stride)[:, None]).reshape(-1)",
    ),
    Mutant(
        "factors need not divide a dimension, only fit in it",
        ARRAY_TYPE,
        "    if n % split:\n",
        "    if n < split:\n",
    ),
    Mutant(
        "a dimension with one local factor only keeps it",
        ARRAY_TYPE,
        "if merged and isinstance(merged[-1], Local):",
        "if len(merged) > 1 and isinstance(merged[-1], Local):",
    ),
    Mutant(
        "an axis may be used twice",
        ARRAY_TYPE,
        "if b.pre < a.end and (a.pre == b.pre or b.pre % a.pre == 0):",
        "if b.pre < a.pre:",
    ),
    Mutant(
        "sub-axes of an axis need not be nested",
        ARRAY_TYPE,
        "        if not is_chain(bounds):\n",
        "        if bounds != sorted(bounds):\n",
    ),
    Mutant(
        "a partial axis may own something too",
        ARRAY_TYPE,
        "    for factor in t.partial:\n        used.setdefault(factor.axis, []).append(factor)\n",
        "",
    ),
    Mutant(
        "parts of a partial axis are not put in order",
        ARRAY_TYPE,
        "key=lambda d: (order[d.axis], d.pre))",
        "key=lambda d: order[d.axis])",
    ),
    Mutant(
        "local factors divide the tile too",
        ARRAY_TYPE,
        "return n // prod(factor.size for factor in factors if isinstance(factor, DeviceDigit))",
        "return n // prod(factor.size for factor in factors)",
    ),
    Mutant(
        "the local factor between two owned digits has the size of all before it",
        ARRAY_TYPE,
        "factors.append(Local(index.pre // end))",
        "factors.append(Local(index.pre))",
    ),
    Mutant(
        "owned digits are put in the order of their axes",
        ARRAY_TYPE,
        "entries.sort(key=lambda entry: entry[1].pre)",
        "entries.sort(key=lambda entry: entry[0])",
    ),
    Mutant(
        "numbers that rise are a divisibility chain",
        DIGITS,
        "return all(b % a == 0 for a, b in pairwise(cuts))",
        "return all(b >= a for a, b in pairwise(cuts))",
    ),
    Mutant(
        "the last prime of a number is lost",
        DIGITS,
        "return found + [n] * (n > 1)",
        "return found",
    ),
    Mutant(
        "a digit that begins inside another is a part of it",
        DIGITS,
        "fits = digit.pre % whole.pre == 0 and whole.end % digit.end == 0",
        "fits = digit.pre % whole.pre == 0 and digit.pre < whole.end",
    ),
    Mutant(
        "digits that do not overlap are independent, nested or not",
        DIGITS,
        "return b.pre % a.end == 0 or a.pre % b.end == 0 or object_of(a) != object_of(b)",
        "return b.pre >= a.end or a.pre >= b.end or object_of(a) != object_of(b)",
    ),
    Mutant(
        "a part of a digit owns what the whole begins with",
        DIGITS,
        "return IndexDigit(index.dim, index.pre * (device.pre // whole.pre), device.size)",
        "return IndexDigit(index.dim, index.pre, device.size)",
    ),
    Mutant(
        "taking a part out of a digit loses what is before it",
        DIGITS,
        "    if before > 1:\n        yield",
        "    if before > device.size:\n        yield",
    ),
    Mutant(
        "what is left after a part of a digit begins where the part does",
        DIGITS,
        "IndexDigit(index.dim, index.pre * before * device.size, after),",
        "IndexDigit(index.dim, index.pre * before, after),",
    ),
    Mutant(
        "a cut of a dimension is taken for one of the axis",
        DIGITS,
        "ends |= {device.pre * cut // index.pre for of, cut in cuts if of == index.dim}",
        "ends |= {cut for of, cut in cuts if of == index.dim}",
    ),
    Mutant(
        "minor-then-major parts of an axis merge as well",
        DIGITS,
        "if x == y and p * k == q:",
        "if x == y and (p * k == q or q * m == p):",
    ),
    Mutant(
        "local neighbours merge by adding their sizes",
        DIGITS,
        "merged[-1] = Local(a * b)",
        "merged[-1] = Local(a + b)",
    ),
    Mutant(
        "positions of a mesh are column-major",
        MESH,
        "for name, size in reversed(self.axes):",
        "for name, size in self.axes:",
    ),
    Mutant(
        "the order of devices is no part of a mesh",
        MESH,
        "            if ids == tuple(range(total)):\n",
        "            if sorted(ids) == list(range(total)):\n",
    ),
    Mutant(
        "an axis weighs the axes before it",
        POSITIONS,
        "prod(axis.size for axis in axes[at + 1 :])",
        "prod(axis.size for axis in axes[:at])",
    ),
    Mutant(
        "several digits are set in the wrong order",
        POSITIONS,
        "for digit in reversed(digits):",
        "for digit in digits:",
    ),
    Mutant(
        "the digits of another mesh are listed minor to major",
        EQUIVALENCE,
        "found.insert(0, DeviceDigit(",
        "found.append(DeviceDigit(",
    ),
    Mutant(
        "what a type does not use at the minor end of an axis is not free",
        ARRAY_TYPE,
        "            free.append(DeviceDigit(name, end, size // end))\n        return",
        "            pass\n        return",
    ),
    Mutant(
        "devices that sum different addends are alike",
        EQUIVALENCE,
        "            frozenset(groups[rests[position]]),\n",
        "            frozenset(),\n",
    ),
    Mutant(
        "the image of a cut forgets where its axis digit begins",
        REFINEMENT,
        "yield axis, pre * (cut // lo)",
        "yield axis, cut // lo",
    ),
    Mutant(
        "cuts propagate one step and no further",
        REFINEMENT,
        "                new.append((other, image))\n",
        "",
    ),
    Mutant(
        "partial axes make no cuts",
        REFINEMENT,
        "        for factor in t.partial:\n            orig[factor.axis] |= {factor.pre, factor.end}\n",
        "",
    ),
    Mutant(
        "one object with nested cuts makes a pair aligned",
        REFINEMENT,
        "aligned = all(is_chain(chain) for chain in cuts.values())",
        "aligned = any(is_chain(chain) for chain in cuts.values())",
    ),
    Mutant(
        "a component is aligned if either side of each use is one run",
        REFINEMENT,
        "whole[key] &= runs[a] == index and runs[b] == device",
        "whole[key] &= runs[a] == index or runs[b] == device",
    ),
    Mutant(
        "a digit that is local in the source counts as owned by another",
        REFINEMENT,
        "return int(all(owner.get(index, device) == device for device, index in component.dst))",
        "return int(all(owner.get(index) == device for device, index in component.dst))",
    ),
    Mutant(
        "all runs of a cycle have to agree, the first one too",
        REFINEMENT,
        "return Fraction(1, prod(run.size for run in component.dims[1:]))",
        "return Fraction(1, prod(run.size for run in component.dims))",
    ),
    Mutant(
        "in a misaligned component the target's digits are listed by device",
        REFINEMENT,
        "sorted(component.dst, key=lambda placement: placement[1])",
        "sorted(component.dst)",
    ),
    Mutant(
        "a part of an axis is written like the whole",
        SYNTAX,
        "case DeviceDigit(axis, 1, size) if size == mesh.axis_size(axis):",
        "case DeviceDigit(axis, 1, size):",
    ),
)
