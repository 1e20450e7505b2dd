"""Bugs in `redistrib/types/`: canonical form, digits, positions, refinement, text."""

from tests.mutants.mutant import Mutant

ARRAY_TYPE = "redistrib/types/array_type.py"
CANONICAL = "redistrib/types/canonical.py"
DIGITS = "redistrib/types/digits.py"
EQUIVALENCE = "redistrib/types/equivalence.py"
MESH = "redistrib/types/mesh.py"
OVERLAP = "redistrib/types/overlap.py"
REFINEMENT = "redistrib/types/refinement.py"
UNEVEN = "redistrib/types/uneven.py"
SYNTAX = "redistrib/types/notation.py"

MUTANTS = (
    Mutant(
        "a digit of a device is counted from the minor end of its axis",
        ARRAY_TYPE,
        "ArrayType.digit_coordinate",
        "axis_size // device.end",
        "device.pre",
    ),
    Mutant(
        "a tile lists its local factors minor to major",
        UNEVEN,
        "runs_held",
        "starts[:, None] + steps",
        "starts + steps[:, None]",
    ),
    Mutant(
        "factors need not divide a dimension, only fit in it",
        CANONICAL,
        "canonical_dim",
        "n % split",
        "n < split",
    ),
    Mutant(
        "a dimension with one local factor only keeps it",
        CANONICAL,
        "canonical_dim",
        "merged and isinstance(merged[-1], Local)",
        "len(merged) > 1 and isinstance(merged[-1], Local)",
    ),
    Mutant(
        "an axis may be used twice",
        CANONICAL,
        "check_uses",
        "b.pre < a.end and (a.pre == b.pre or b.pre % a.pre == 0)",
        "b.pre < a.pre",
    ),
    Mutant(
        "sub-axes of an axis need not be nested",
        CANONICAL,
        "check_uses",
        "not is_chain(bounds)",
        "bounds != sorted(bounds)",
    ),
    Mutant(
        "a partial axis may own something too",
        CANONICAL,
        "check_uses",
        "(*dims, partial)",
        "(*dims, ())",
    ),
    Mutant(
        "parts of a partial axis are not put in order",
        CANONICAL,
        "canonical_partial",
        "(order[d.axis], d.pre)",
        "order[d.axis]",
    ),
    Mutant(
        "local factors divide the tile too",
        ARRAY_TYPE,
        "_local_size",
        "[factor.size for factor in factors if isinstance(factor, DeviceDigit)]",
        "[factor.size for factor in factors]",
    ),
    Mutant(
        "the local factor between two owned digits has the size of all before it",
        ARRAY_TYPE,
        "_factors",
        "index.pre // end",
        "index.pre",
    ),
    Mutant(
        "owned digits are put in the order of their axes",
        ARRAY_TYPE,
        "_factors",
        "entry[1].pre",
        "entry[0]",
    ),
    Mutant(
        "numbers that rise are a divisibility chain",
        DIGITS,
        "is_chain",
        "b % a == 0",
        "b >= a",
    ),
    Mutant(
        "the last prime of a number is lost",
        DIGITS,
        "primes",
        "found + [n] * (n > 1)",
        "found",
    ),
    Mutant(
        "a composite that one base does not tell from a prime is one",
        DIGITS,
        "_is_prime",
        "(2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)",
        "(2,)",
    ),
    Mutant(
        "only one of two large primes is factored",
        DIGITS,
        "_large_primes",
        "_large_primes(factor) + _large_primes(n // factor)",
        "_large_primes(factor) + [n // factor]",
    ),
    Mutant(
        "a digit that begins inside another is a part of it",
        DIGITS,
        "inside",
        "whole.end % digit.end == 0",
        "digit.pre < whole.end",
    ),
    Mutant(
        "digits that do not overlap are independent, nested or not",
        DIGITS,
        "apart",
        "b.pre % a.end == 0 or a.pre % b.end == 0 or object_of(a) != object_of(b)",
        "b.pre >= a.end or a.pre >= b.end or object_of(a) != object_of(b)",
    ),
    Mutant(
        "a part of a digit owns what the whole begins with",
        DIGITS,
        "_owned_index",
        "index.pre * (device.pre // whole.pre)",
        "index.pre",
    ),
    Mutant(
        "taking a part out of a digit loses what is before it",
        DIGITS,
        "complement",
        "digit.pre // end",
        "1",
    ),
    Mutant(
        "what is left after a part of a digit begins where the part does",
        DIGITS,
        "complement",
        "end = digit.end",
        "end = digit.pre",
    ),
    Mutant(
        "a cut of a dimension is taken for one of the axis",
        DIGITS,
        "split_at",
        "{device.pre * end // index.pre for of, end in cuts if of == index.dim}",
        "{end for of, end in cuts if of == index.dim}",
    ),
    Mutant(
        "minor-then-major parts of an axis merge as well",
        DIGITS,
        "coalesce",
        """
match (last, factor):
    case [DeviceDigit(x, p, k), DeviceDigit(y, q, m)] if x == y and p * k == q:
        merged[-1] = DeviceDigit(x, p, k * m)
""",
        """
match (last, factor):
    case [DeviceDigit(x, p, k), DeviceDigit(y, q, m)] if x == y and (p * k == q or q * m == p):
        merged[-1] = DeviceDigit(x, p, k * m)
""",
    ),
    Mutant(
        "local neighbours merge by adding their sizes",
        DIGITS,
        "coalesce",
        "Local(a * b)",
        "Local(a + b)",
    ),
    Mutant(
        "positions of a mesh are column-major",
        MESH,
        "Mesh.coordinates",
        "reversed(self.axes)",
        "self.axes",
    ),
    Mutant(
        "the order of devices is no part of a mesh",
        MESH,
        "_ids",
        "whole == list(range(total))",
        "sorted(whole) == list(range(total))",
    ),
    Mutant(
        "an axis weighs the axes before it",
        DIGITS,
        "weight",
        "axes[at + 1 :]",
        "axes[:at]",
    ),
    Mutant(
        "several digits are set in the wrong order",
        DIGITS,
        "with_digits",
        "reversed(digits)",
        "digits",
    ),
    Mutant(
        "the digits of another mesh are listed minor to major",
        EQUIVALENCE,
        "_digits",
        "found.insert(0, DeviceDigit(axis.axis, room // size, size))",
        "found.append(DeviceDigit(axis.axis, room // size, size))",
    ),
    Mutant(
        "what a type does not use at the minor end of an axis is not free",
        DIGITS,
        "complement",
        "left.append(kind(of, end, whole.end // end))",
        "pass",
    ),
    Mutant(
        "where a dimension begins inside an axis, its major part walks like the minor one",
        DIGITS,
        "regrouped",
        "(wanted, stride * (size // wanted))",
        "(wanted, stride)",
    ),
    Mutant(
        "devices that sum different addends are alike",
        EQUIVALENCE,
        "_holdings",
        "frozenset(groups[rests[position]])",
        "frozenset()",
    ),
    Mutant(
        "the image of a cut forgets where its axis digit begins",
        REFINEMENT,
        "_images",
        """
if isinstance(obj, int):
    if lo < cut < hi and cut % lo == 0 and (hi % cut == 0):
        yield (axis, pre * (cut // lo))
else:
    ...
""",
        """
if isinstance(obj, int):
    if lo < cut < hi and cut % lo == 0 and (hi % cut == 0):
        yield (axis, cut // lo)
else:
    ...
""",
    ),
    Mutant(
        "cuts propagate one step and no further",
        REFINEMENT,
        "_propagate",
        "new.append((other, image))",
        "",
    ),
    Mutant(
        "partial axes make no cuts",
        REFINEMENT,
        "_own_cuts",
        """
for factor in t.partial:
    orig[factor.axis] |= {factor.pre, factor.end}
""",
        "",
    ),
    Mutant(
        "a joint of two runs that do not overlap is tried as well",
        REFINEMENT,
        "_joints",
        "low, high = lcm(a, b), gcd(a_next, b_next)",
        "low, high = lcm(a, b), gcd(a_next, b)",
    ),
    Mutant(
        "a cut stays though one of its images has gone",
        REFINEMENT,
        "_respected",
        "any(image not in allowed[other] for other, image in _images(obj, c, uses))",
        "False",
    ),
    Mutant(
        "one object with nested cuts makes a pair aligned",
        REFINEMENT,
        "refine",
        "all(is_chain(chain) for chain in cuts.values())",
        "any(is_chain(chain) for chain in cuts.values())",
    ),
    Mutant(
        "a component is aligned if either side of each use is one run",
        REFINEMENT,
        "Refinement._join",
        "runs[a] == index and runs[b] == device",
        "runs[a] == index or runs[b] == device",
    ),
    Mutant(
        "a digit that is local in the source counts as owned by another",
        OVERLAP,
        "min_overlap",
        "owner.get(index, device)",
        "owner.get(index)",
    ),
    Mutant(
        "all runs of a cycle have to agree, the first one too",
        OVERLAP,
        "held_fraction",
        "component.dims[1:]",
        "component.dims",
    ),
    Mutant(
        "of tiles that meet in several blocks only the first block counts",
        OVERLAP,
        "run_meetings",
        "np.add.reduceat(sizes[order], first)",
        "sizes[order][first]",
    ),
    Mutant(
        "a device that has nothing of its target tile is taken to have something",
        OVERLAP,
        "held_and_needed",
        "np.where(cells >= 0, met.sizes[cells], 0)",
        "met.sizes[cells]",
    ),
    Mutant(
        "a part of an axis is written like the whole",
        SYNTAX,
        "format_factor",
        """
match factor:
    case DeviceDigit(axis, 1, size) if size == mesh.axis_size(axis):
        return axis
""",
        """
match factor:
    case DeviceDigit(axis, 1, size):
        return axis
""",
    ),
)
