"""The text of a type:  DTYPE[SIZE{FACTOR,...}:RULE, ...] REDUCTION{AXIS,...}.

    f32[4096{x}, 1024{y:(1)2,_4}] sum{z}        f32[32001{x}:ceil, 10{y,z}:sizes(3,3,4,0)]

A factor is an axis, a part of one `x:(m)k`, or a local factor `_k`. A rule is for sizes that the
factors need not divide (redistrib.types.uneven). Where a pattern may stand, the last factor of a
list may be a hole `?`. What is read is not yet a type: sizes and axes are checked
against a mesh when the type is made.

>>> text = read_type("f32[64{x,?}, 64] sum{?}", holes=True)
>>> text.shape, text.dims, text.holes, text.open_partial
((64, 64), (('x',), ()), (0,), True)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redistrib.text import AXIS_NAME, Scanner
from redistrib.types import dtypes
from redistrib.types.digits import DeviceDigit, Factor, Local
from redistrib.types.mesh import Mesh
from redistrib.types.reduction import REDUCTIONS
from redistrib.types.uneven import BY_NAME, RULES, Rule, Sizes

_FACTOR = re.compile(
    r"(?P<local>_\d+\b)|(?P<axis>NAME)(?:\s*:\s*\(\s*(?P<pre>\d+)\s*\)\s*(?P<size>\d+))?".replace(
        "NAME", AXIS_NAME.pattern
    ),
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class TypeText:
    """What the text of a type says: its fields, and where it has holes.

    `uneven` has the rule of each dimension that is given one. `holes` are the dimensions whose list
    of factors is open at its end, `open_partial` says so of the partial set.
    """

    dtype: str
    shape: tuple[int, ...]
    dims: tuple[tuple[str | Factor, ...], ...]
    partial: tuple[str | Factor, ...]
    reduction: str
    uneven: Mapping[int, Rule]
    holes: tuple[int, ...]
    open_partial: bool


def read_type(text: str, *, holes: bool = False) -> TypeText:
    """What the text of a type says; with `holes`, of a pattern.

    Raises TypeSyntaxError with the column (from 1) where the text departs from the syntax.
    """
    scanner = Scanner(text)
    column = scanner.column
    name = scanner.take(AXIS_NAME, "a dtype")
    dtype = scanner.legal(lambda: dtypes.dtype_name(name), column)
    scanner.expect("[")
    shape: list[int] = []
    dims: list[tuple[str | Factor, ...]] = []
    open_dims = []
    uneven: dict[int, Rule] = {}
    while not scanner.accept("]"):
        if shape and not scanner.accept(","):
            scanner.fail("',' or ']'")
        shape.append(scanner.integer("the size of a dimension"))
        factors, hole = _factors(scanner, holes) if scanner.accept("{") else ((), False)
        dims.append(factors)
        if factors and scanner.accept(":"):
            uneven[len(shape) - 1] = _rule(scanner)
        if hole:
            open_dims.append(len(shape) - 1)
    partial: tuple[str | Factor, ...] = ()
    reduction, open_partial = "sum", False
    if not scanner.at_end():
        column = scanner.column
        reduction = scanner.take(AXIS_NAME, f"one of {', '.join(REDUCTIONS)}, or the end")
        if reduction not in REDUCTIONS:
            scanner.fail(f"one of {', '.join(REDUCTIONS)}", column)
        scanner.expect("{")
        partial, open_partial = _factors(scanner, holes)
        scanner.end()
    layout = tuple(dims), partial, reduction, uneven
    return TypeText(dtype, tuple(shape), *layout, tuple(open_dims), open_partial)


def _factors(scanner: Scanner, holes: bool) -> tuple[tuple[str | Factor, ...], bool]:
    """The factors up to and including the closing brace, and whether a hole follows them."""
    factors: list[str | Factor] = []
    while not scanner.accept("}"):
        if factors and not scanner.accept(","):
            scanner.fail("',' or '}'")
        column = scanner.column
        if holes and scanner.accept("?"):
            if not scanner.accept("}"):
                scanner.fail("'}', as a hole is the last factor of a list")
            return tuple(factors), True
        match = scanner.maybe(_FACTOR)
        if match is None:
            if scanner.accept("?"):
                scanner.fail("a factor; a hole is for patterns, as `complete` takes them", column)
            scanner.fail("an axis, a sub-axis x:(m)k or a local factor _k")
        if match["local"]:
            factors.append(Local(scanner.number(match["local"][1:], match.start("local") + 1)))
        elif match["pre"]:
            pre, size = (
                scanner.number(match[part], match.start(part) + 1) for part in ("pre", "size")
            )
            factors.append(DeviceDigit(match["axis"], pre, size))
        else:
            factors.append(match["axis"])
    return tuple(factors), False


def _rule(scanner: Scanner) -> Rule:
    """The rule after a colon."""
    column = scanner.column
    name = scanner.take(AXIS_NAME, f"a rule: {RULES}")
    if name in BY_NAME:
        return BY_NAME[name]
    if name != "sizes":
        scanner.fail(f"a rule: {RULES}", column)
    scanner.expect("(")
    return Sizes(tuple(scanner.listed(lambda: scanner.integer("the size of a block"), ")")))


def format_factor(factor: Factor, mesh: Mesh) -> str:
    """The text of a factor: `x` for a whole axis, `x:(m)k` for a part, `_k` for a local factor."""
    match factor:
        case DeviceDigit(axis, 1, size) if size == mesh.axis_size(axis):
            return axis
        case DeviceDigit() | Local():
            return str(factor)


def format_factors(factors: Sequence[Factor], mesh: Mesh) -> str:
    """The text of a list of factors, without braces."""
    return ",".join([format_factor(factor, mesh) for factor in factors])


def format_type(
    mesh: Mesh,
    dtype: str,
    shape: Sequence[int],
    dims: Sequence[Sequence[Factor]],
    partial: Sequence[Factor],
    reduction: str | None,
    uneven: Mapping[int, Rule],
) -> str:
    """The text of a type with these fields, which reads back to an equal type."""
    sizes = [
        f"{n}{{{format_factors(factors, mesh)}}}" if factors else str(n)
        for n, factors in zip(shape, dims, strict=True)
    ]
    for dim, rule in uneven.items():
        sizes[dim] += f":{rule}"
    tail = f" {reduction}{{{format_factors(partial, mesh)}}}" if partial else ""
    return f"{dtype}[{', '.join(sizes)}]{tail}"
