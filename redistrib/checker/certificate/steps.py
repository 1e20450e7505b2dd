"""What a step does to tiles, and the proof that its types say so."""

from __future__ import annotations

from math import prod
from typing import Any

from redistrib.checker.certificate.solver import (
    Term,
    below,
    decide,
    horner,
    load_z3,
    numbers,
    require,
)
from redistrib.checker.certificate.views import View
from redistrib.errors import CheckError
from redistrib.types.digits import DeviceDigit, IndexDigit

IDENTITY = "the others hold the identity"


def lemmas() -> list[str]:
    """What the steps rely on: a position and an index are written in digits in exactly one way.

    By induction on the number of digits: without digits there is only 0; this is one digit more.
    """
    z3 = load_z3()
    h, m, g, n, k, size = z3.Ints("h m g n k size")
    given = [*below(h, size), *below(m, k)]
    written = horner([(h, size), (m, k)])
    cases = {
        "a number is below the product of its sizes": (given, z3.And(below(written, size * k))),
        "equal numbers have equal digits": (
            [*given, *below(n, k), written == horner([(g, size), (n, k)])],
            z3.And(h == g, m == n),
        ),
        "every number below the product is written": (
            [k >= 1, size >= 1, *below(n, size * k)],
            z3.And(n == n / k * k + n % k, *below(n % k, k), *below(n / k, size)),
        ),
    }
    for name, (hypotheses, claim) in cases.items():
        outcome = decide(hypotheses, claim)
        require(outcome.kind == "proved", f"{name}; {outcome.kind} {outcome.reason}")
    return [f"digits: {'; '.join(cases)}"]


def prove(view: View) -> str:
    """Prove that a step takes every element from where one type says to where the next one says."""
    z3 = load_z3()
    named = [device for device, *_ in view.changes]
    require(len(set(named)) == len(named), "a step names each digit once")
    before, after = view.owns
    owner_before = {index: device for device, index in before.items()}
    owner_after = {index: device for device, index in after.items()}
    sizes: dict[IndexDigit, Term] = {}
    for digit in (digit for chain in view.chains for digit in chain):
        fixed = digit.size > 1 and digit in view.fixed
        sizes[digit] = digit.size if fixed else z3.Int(f"size of {digit}")
    symbols = [size for size in sizes.values() if not isinstance(size, int)]
    here = {d: z3.Int(f"at {d}") for d in view.devices}
    given = [size >= 1 for size in symbols]
    given += [fact for d, value in here.items() for fact in below(value, d.size)]

    # The element at a position of the receiver's tile: a digit is the owner's, or the position's.
    element = {i: z3.Int(f"digit {i}") for i in sizes if i not in owner_after}
    given += [fact for digit, value in element.items() for fact in below(value, sizes[digit])]
    position: dict[IndexDigit, Term] = dict(element)
    element |= {index: here[device] for index, device in owner_after.items()}

    sender: dict[DeviceDigit, Term] = dict(here)
    summed: set[DeviceDigit] = set()
    made: set[DeviceDigit] = set()
    claims: list[Any] = []
    taken: dict[IndexDigit, Term] = {}

    def leave(index: IndexDigit) -> Term:
        require(index in position, f"{index} is local after the step")
        return position.pop(index)

    def enter(index: IndexDigit, value: Term) -> None:
        require(index not in taken and index not in owner_before, f"{index} is local before")
        taken[index] = value

    def addend(device: DeviceDigit) -> None:
        summed.add(device)
        sender[device] = z3.Int(f"addend {device}")
        given.extend(below(sender[device], device.size))

    def only(device: DeviceDigit, value: Term) -> None:
        # One device along this digit keeps the element; the others hold the identity.
        made.add(device)
        given.append(here[device] == value)

    for device, *rest in view.changes:
        match view.kind:
            case "dynamic_slice":
                enter(rest[0], here[device])
            case "all_gather":
                sender[device] = leave(rest[0])
            case "all_to_all":
                sender[device] = leave(rest[0])
                enter(rest[1], here[device])
            case "collective_permute":
                sender[device] = here[rest[0]]
            case "reduce_scatter":
                addend(device)
                enter(rest[0], here[device])
            case "all_reduce":
                addend(device)
            case "replicated_to_partial":
                require(device not in before, f"{device} is free before the step")
                only(device, 0)
            case "sharded_to_partial":
                only(device, leave(rest[0]))
            case "exchange":
                require(device not in before, f"{device} is free before the step")
                sender[device] = here[rest[0]]
            case other_kind:
                raise CheckError(f"does not hold: {other_kind} is a collective")
    position |= taken
    if view.kind == "exchange":
        sender |= {device: element[index] for device, index in before.items()}
        position = {index: element[index] for index in sizes if index not in owner_before}
    require(
        position.keys() == sizes.keys() - owner_before.keys(),
        f"a tile of {view.types[1]} is made of parts of tiles of {view.types[0]}",
    )
    source = {**position, **{index: sender[device] for index, device in owner_before.items()}}

    for chain in view.chains:
        sent, wanted = (horner((v[i], sizes[i]) for i in chain) for v in (source, element))
        claims.append(sent == wanted)
    claims += [fact for d, value in sender.items() for fact in below(value, d.size)]
    claims += [fact for i, value in position.items() for fact in below(value, sizes[i])]

    # Addends: what the receivers take is what there was, each once.
    kept, left = view.partial[0] - summed, view.partial[1] - made
    fits = summed <= view.partial[0] and made <= view.partial[1] - view.partial[0]
    fits = fits and prod(d.size for d in kept) == prod(d.size for d in left)
    require(fits, f"the addends of {view.types[1]} are those of {view.types[0]}")
    names = {view.types[0].reduction, view.types[1].reduction, view.reduction} - {None}
    require(len(names) <= 1, f"a step has one reduction; got {sorted(map(str, names))}")
    require(not made or view.reduction is not None, "a step that makes addends has a reduction")
    there = {d: z3.Int(f"other {d}") for d in view.devices}
    given += [fact for d, value in there.items() for fact in below(value, d.size)]
    other = {
        d: z3.substitute(v, *((here[e], there[e]) for e in here)) if here else v
        for d, v in sender.items()
    }
    same_left = z3.And([here[d] == there[d] for d in sorted(left)])
    claims.append(same_left == z3.And([sender[d] == other[d] for d in sorted(kept)]))
    if view.kind == "collective_permute":
        news = {new for _, new in view.changes}
        require(news == {old for old, _ in view.changes}, "the routes of a permute permute")
        one = z3.And([sender[d] == other[d] for d in view.devices])
        claims.append(z3.Implies(one, z3.And([here[d] == there[d] for d in view.devices])))

    outcome = decide(given, z3.And(claims))
    if outcome.kind == "unknown":  # a model is easier to find where the sizes are given
        outcome = decide([*given, *(size == 2 for size in symbols)], z3.And(claims))
        require(outcome.kind == "counter-model", f"z3 decides the step: {outcome.reason}")
    if outcome.kind == "counter-model":
        number = numbers(outcome.model)
        wanted, sent = (
            [number(horner((v[i], sizes[i]) for i in chain)) for chain in view.chains]
            for v in (element, source)
        )
        where = ", ".join(f"{d}={number(value)}" for d, value in here.items())
        raise CheckError(
            f"the device at {where or 'the only position'} must receive element {wanted}; it is "
            f"sent element {sent}, or that of a sender who is none, or an addend twice"
        )
    what = "every element, from a device that holds it"
    if summed:
        what = "every element, summed over each addend once"
    if made:
        what = f"every element, kept by one addend; {IDENTITY}"
    return "; ".join([*view.notes, f"{what} ({outcome.seconds:.2f} s)"])
