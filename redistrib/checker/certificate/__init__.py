"""Certificates: z3 proves one plan right for all global sizes that have the same digits.

Law: if each step takes every element from where the type before it says to where the type after it
says, and the last type is the target, then so does the whole plan. The types are read from the plan
as claims, and no typing rule is used: a step is what its collective does to tiles. Its digits are
cut until the step and both types share them. An index digit that a device digit owns has its size
from the mesh; every other index digit, the trailing one included, has a symbolic size, so the proof
holds for all sizes. The unknowns are the receiver's coordinate and the element's digits.

Where digits do not match, the routing is a table: a finite one, which is enumerated; whatever is
outside the table is proved as above. With the planner this module shares the types only.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from redistrib.checker.certificate.family import family
from redistrib.checker.certificate.solver import load_z3, require
from redistrib.checker.certificate.steps import lemmas, prove
from redistrib.checker.certificate.views import view_of
from redistrib.errors import CheckError, RedistribError
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was proved of a plan: the family of its ends, and one line per lemma and step."""

    family: str
    proved: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return "\n".join([f"proved by z3 {self.family}", *(f"  {line}" for line in self.proved)])


def certify(plan: Any) -> Certificate:
    """Prove a plan (a Plan, its JSON text, or the data in that text) for all sizes.

    Raises CheckError with the reason where that cannot be, and with a device and an element that
    go wrong if z3 finds them; its attribute `step` is the index of the step, None if the plan as a
    whole is at fault. Raises BackendError without z3.

    >>> import redistrib as rd
    >>> ends = (rd.ArrayType.parse(text, rd.Mesh(x=4)) for text in ("f32[8{x}]", "f32[8]"))
    >>> print(certify(rd.plan(*ends, strategy="collectives")).family)
    for all sizes a: f32[4*a{x}] -> f32[4*a] on x=4
    """
    load_z3()
    index: int | None = None
    start = time.perf_counter()
    try:
        text = plan.to_json() if hasattr(plan, "to_json") else plan
        data = json.loads(text) if isinstance(text, str) else text
        mesh = Mesh([(n, k) for n, k in data["mesh"]["axes"]], devices=data["mesh"]["devices"])
        require(data["dst_mesh"] is None, "a certificate is of a plan on one mesh")
        src, dst = (ArrayType.parse(data[end], mesh) for end in ("src", "dst"))
        types = [src, *(ArrayType.parse(step["type"], mesh) for step in data["steps"])]
        for t in (*types, dst):
            require((t.shape, t.dtype) == (src.shape, src.dtype), f"{t} is of the array of {src}")
            require(not t.uneven, f"a certificate is of even types; got {t}")
        if not src.size:
            return Certificate(f"{src} -> {dst}", ("without elements nothing moves",), 0)
        proved = lemmas()
        views = []
        for index, step in enumerate(data["steps"]):
            views.append(view_of(step, types[index], types[index + 1]))
            proved.append(f"step {index}, {step['collective']}: {prove(views[-1])}")
        index = None
        require(types[-1] == dst, f"the steps end in {dst}; they end in {types[-1]}")
        proved.append("so all steps together take every element to where the target type says")
        return Certificate(family(src, dst, views), tuple(proved), time.perf_counter() - start)
    except Exception as error:  # whatever it is, the plan was not proved
        where = "plan" if index is None else f"step {index}"
        kind = "" if isinstance(error, RedistribError) else f"malformed, {type(error).__name__}: "
        raise CheckError(f"{where}: {kind}{error}", step=index) from error
