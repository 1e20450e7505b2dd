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
    facts = [*below(h, size), *below(m, k)]
    written = horner([(h, size), (m, k)])
    cases = {
        "a number is below the product of its sizes": (facts, z3.And(below(written, size * k))),
        "equal numbers have equal digits": (
            [*facts, *below(n, k), written == horner([(g, size), (n, k)])],
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
    delivery = _Delivery(view)
    claims = z3.And([*delivery.elements(), *delivery.addends()])
    facts = delivery.facts
    outcome = decide(facts, claims)
    if outcome.kind == "unknown":  # a model is easier to find where the sizes are given
        outcome = decide([*facts, *(size == 2 for size in delivery.symbols)], claims)
        require(outcome.kind == "counter-model", f"z3 decides the step: {outcome.reason}")
    if outcome.kind == "counter-model":
        raise CheckError(delivery.refutation(outcome.model))
    summary = "every element, from a device that holds it"
    if delivery.summed:
        summary = "every element, summed over each addend once"
    if delivery.produced:
        summary = f"every element, kept by one addend; {IDENTITY}"
    return "; ".join([*view.notes, f"{summary} ({outcome.seconds:.2f} s)"])


class _Delivery:
    """A step as integers of z3: a receiver, a position of its tile, and who sends that element.

    Of the all_to_all of x from rows to columns, f32[4{x}, 4] -> f32[4, 4{x}] on x=2: the `receiver`
    is {x: h}; the element that it is to have at a position has the column digit h and, for the
    rest, the `position`. The step makes x of `sender` the row digit of the position, which then is
    a position of the sender's tile with h for the column. To prove: the element that the sender has
    there (`source`) is the one that the receiver is to have (`element`).
    """

    def __init__(self, view: View) -> None:
        z3 = load_z3()
        self.view = view
        self.before, after = view.owns
        self.sizes: dict[IndexDigit, Term] = {}
        for digit in (digit for chain in view.chains for digit in chain):
            fixed = digit.size > 1 and digit in view.fixed
            self.sizes[digit] = digit.size if fixed else z3.Int(f"size of {digit}")
        self.symbols = [size for size in self.sizes.values() if not isinstance(size, int)]
        self.receiver: dict[DeviceDigit, Term] = {d: z3.Int(f"at {d}") for d in view.devices}
        self.facts: list[Any] = [size >= 1 for size in self.symbols]
        self.facts += [fact for d, value in self.receiver.items() for fact in below(value, d.size)]

        # At a position of the receiver's tile a digit of the element is the owner's, or its own.
        owned = {index: self.receiver[device] for device, index in after.items()}
        self.position = {i: z3.Int(f"digit {i}") for i in self.sizes if i not in owned}
        self.facts += [f for i, n in self.position.items() for f in below(n, self.sizes[i])]
        self.element: dict[IndexDigit, Term] = {**self.position, **owned}

        self.sender = dict(self.receiver)
        self.summed: set[DeviceDigit] = set()
        self.produced: set[DeviceDigit] = set()
        self._entered: dict[IndexDigit, Term] = {}
        for device, *partners in view.changes:
            self._change(device, *partners)
        self.at_sender = self._at_sender()
        held = {index: self.sender[device] for device, index in self.before.items()}
        self.source = {**self.at_sender, **held}

    def _change(self, device: DeviceDigit, *partners: Any) -> None:
        """What the collective does with a device digit and the digits that it names beside it."""
        match self.view.kind:
            case "dynamic_slice":
                self._enter(partners[0], self.receiver[device])
            case "all_gather":
                self.sender[device] = self._leave(partners[0])
            case "all_to_all":
                self.sender[device] = self._leave(partners[0])
                self._enter(partners[1], self.receiver[device])
            case "collective_permute":
                self.sender[device] = self.receiver[partners[0]]
            case "reduce_scatter":
                self._sum(device)
                self._enter(partners[0], self.receiver[device])
            case "all_reduce":
                self._sum(device)
            case "replicated_to_partial":
                require(device not in self.before, f"{device} is free before the step")
                self._make(device, 0)
            case "sharded_to_partial":
                self._make(device, self._leave(partners[0]))
            case "exchange":
                require(device not in self.before, f"{device} is free before the step")
                self.sender[device] = self.receiver[partners[0]]
            case other_kind:
                raise CheckError(f"does not hold: {other_kind} is a collective")

    def _leave(self, index: IndexDigit) -> Term:
        """Take out of the position a digit that the sender's tile does not have; its value."""
        require(index in self.position, f"{index} is local after the step")
        return self.position.pop(index)

    def _enter(self, index: IndexDigit, value: Term) -> None:
        """Add a digit of the sender's tile that the position does not have, with its value."""
        new = index not in self._entered and index not in self.before.values()
        require(new, f"{index} is local before")
        self._entered[index] = value

    def _sum(self, device: DeviceDigit) -> None:
        """Let the sender be any device along this digit: each of them has an addend."""
        self.summed.add(device)
        self.sender[device] = load_z3().Int(f"addend {device}")
        self.facts.extend(below(self.sender[device], device.size))

    def _make(self, device: DeviceDigit, value: Term) -> None:
        """One device along this digit keeps the element; the others hold the identity."""
        self.produced.add(device)
        self.facts.append(self.receiver[device] == value)

    def _at_sender(self) -> dict[IndexDigit, Term]:
        """The position in the sender's tile."""
        owned = {*self.before.values()}
        if self.view.kind == "exchange":
            self.sender |= {device: self.element[index] for device, index in self.before.items()}
            position = {index: self.element[index] for index in self.sizes if index not in owned}
        else:
            position = {**self.position, **self._entered}
        before, after = self.view.types
        complete = position.keys() == self.sizes.keys() - owned
        require(complete, f"a tile of {after} is made of parts of tiles of {before}")
        return position

    def elements(self) -> list[Any]:
        """The claims that the sender's element is the receiver's, and that there is a sender."""
        claims = []
        for chain in self.view.chains:
            sent, wanted = (
                horner((v[i], self.sizes[i]) for i in chain) for v in (self.source, self.element)
            )
            claims.append(sent == wanted)
        claims += [fact for d, value in self.sender.items() for fact in below(value, d.size)]
        return claims + [
            fact for i, value in self.at_sender.items() for fact in below(value, self.sizes[i])
        ]

    def addends(self) -> list[Any]:
        """The claims that what the receivers take is what there was, each addend once."""
        z3, view = load_z3(), self.view
        kept_before, kept_after = view.partial[0] - self.summed, view.partial[1] - self.produced
        fits = self.summed <= view.partial[0] and self.produced <= view.partial[1] - view.partial[0]
        fits = fits and prod(d.size for d in kept_before) == prod(d.size for d in kept_after)
        require(fits, f"the addends of {view.types[1]} are those of {view.types[0]}")
        names = {view.types[0].reduction, view.types[1].reduction, view.reduction} - {None}
        require(len(names) <= 1, f"a step has one reduction; got {sorted(map(str, names))}")
        named = not self.produced or view.reduction is not None
        require(named, "a step that makes addends has a reduction")
        # A second receiver, and who sends to it.
        receiver, second = self.receiver, {d: z3.Int(f"other {d}") for d in view.devices}
        self.facts += [fact for d, value in second.items() for fact in below(value, d.size)]
        renamed = [(receiver[d], second[d]) for d in receiver]
        other = {d: z3.substitute(v, *renamed) if receiver else v for d, v in self.sender.items()}
        same_addend = z3.And([receiver[d] == second[d] for d in sorted(kept_after)])
        claims = [same_addend == z3.And([self.sender[d] == other[d] for d in sorted(kept_before)])]
        if view.kind == "collective_permute":
            news = {new for _, new in view.changes}
            require(news == {old for old, _ in view.changes}, "the routes of a permute permute")
            same_sender = z3.And([self.sender[d] == other[d] for d in view.devices])
            claims.append(
                z3.Implies(same_sender, z3.And([receiver[d] == second[d] for d in view.devices]))
            )
        return claims

    def refutation(self, model: Any) -> str:
        """What a model says of one receiver."""
        number = numbers(model)
        wanted, sent = (
            [number(horner((v[i], self.sizes[i]) for i in chain)) for chain in self.view.chains]
            for v in (self.element, self.source)
        )
        where = ", ".join(f"{d}={number(value)}" for d, value in self.receiver.items())
        return (
            f"the device at {where or 'the only position'} must receive element {wanted}; it is "
            f"sent element {sent}, or that of a sender who is none, or an addend twice"
        )
