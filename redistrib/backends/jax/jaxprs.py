"""Walks over jaxprs, and which equations keep their layouts.

XLA's partitioner lays out the arrays of a windowed reduction of several one by one; where they
differ it raises, or takes the process down. jax writes `select_and_gather_add`, the derivative of a
maximum over windows, as such a one. Where plain jax compiles, its layouts are alike; so what leads
to such an equation is to be laid out as it is in plain jax. Of

    a = sharding_constraint x;  b = sin a;  c = select_and_gather_add b y;  d = cos c
    e = sharding_constraint d

`sin` takes `a` itself, whoever else may lay it out anew, and nothing is freed before `e`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core

CONSTRAINTS = ("sharding_constraint", "reshard")


def equations_in(jaxpr: Any) -> Iterator[Any]:
    """All equations of a jaxpr, each before those of the jaxprs inside it."""
    for eqn in jaxpr.eqns:
        yield eqn
        yield from _inside(eqn)


def _inside(eqn: Any) -> Iterator[Any]:
    for value in jax.tree.leaves(
        list(eqn.params.values()),
        is_leaf=lambda v: isinstance(v, (core.Jaxpr, core.ClosedJaxpr)),
    ):
        if isinstance(value, core.ClosedJaxpr):
            yield from equations_in(value.jaxpr)
        elif isinstance(value, core.Jaxpr):
            yield from equations_in(value)


def _reduces_several(eqn: Any) -> bool:
    name, count = eqn.primitive.name, len(eqn.invars)
    return name == "select_and_gather_add" or (name == "reduce_window" and count > 2)


def as_in_plain_jax(jaxpr: Any) -> list[bool]:
    """Per equation, whether it takes what it is given in the layouts that plain jax has there.

    Those do from the constraints before a windowed reduction of several to the ones after it.
    """
    stays = [_reduces_several(e) or any(map(_reduces_several, _inside(e))) for e in jaxpr.eqns]
    if not any(stays):
        return stays
    before: set[Any] = set()
    after: set[Any] = set()
    for n, eqn in reversed([*enumerate(jaxpr.eqns)]):
        leads = not before.isdisjoint(eqn.outvars) and eqn.primitive.name not in CONSTRAINTS
        if stays[n]:
            after.update(eqn.outvars)
        if stays[n] or leads:
            stays[n] = True
            before.update(v for v in eqn.invars if isinstance(v, core.Var))
    for n, eqn in enumerate(jaxpr.eqns):
        if any(isinstance(v, core.Var) and v in after for v in eqn.invars):
            if eqn.primitive.name in CONSTRAINTS:
                stays[n] = True
            else:
                after.update(eqn.outvars)
    return stays
