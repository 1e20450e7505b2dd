"""A transformer layer as a graph, for alpa.py, automap.py, partir.py and propagation.py.

    from transformer import layer  # beside examples/transformer.py

Letters: b batch, s and t positions, e hidden, g groups of heads, r heads of one, d of a head, f
of the MLP.
Grouped-query attention and a gated MLP, each after a norm and before a residual sum.
"""

from __future__ import annotations

from redistrib.partition import Graph, Operator


def layer(
    batch: int = 16,
    positions: int = 2048,
    hidden: int = 4096,
    groups: int = 8,
    heads: int = 4,
    head: int = 128,
    inner: int = 14336,
) -> Graph:
    """One layer, from what comes in to what goes out; sizes are those of Llama 3 8B."""
    tensors = {
        "x": (batch, positions, hidden),
        "wq": (hidden, groups, heads, head),
        "wk": (hidden, groups, head),
        "wv": (hidden, groups, head),
        "wo": (groups, heads, head, hidden),
        "gate": (hidden, inner),
        "up": (hidden, inner),
        "down": (inner, hidden),
    }
    elementwise = {"linear": False, "work": 4.0}
    operators = [
        Operator("n1", "bse->bse", ("x",), whole="e", **elementwise),
        Operator("q", "bse,egrd->bsgrd", ("n1", "wq"), whole="rd"),
        Operator("k", "bte,egd->btgd", ("n1", "wk"), whole="d"),
        Operator("v", "bte,egd->btgd", ("n1", "wv"), whole="d"),
        Operator(
            "attend",
            "bsgrd,btgd,btgd->bsgrd",
            ("q", "k", "v"),
            whole="trd",
            linear=False,
            work=2.0,
        ),
        Operator("o", "bsgrd,grde->bse", ("attend", "wo"), whole="rd"),
        Operator("r1", "bse,bse->bse", ("x", "o"), whole="e", **elementwise),
        Operator("n2", "bse->bse", ("r1",), whole="e", **elementwise),
        Operator("h1", "bse,ef->bsf", ("n2", "gate")),
        Operator("h2", "bse,ef->bsf", ("n2", "up")),
        Operator("act", "bsf,bsf->bsf", ("h1", "h2"), **elementwise),
        Operator("h3", "bsf,fe->bse", ("act", "down")),
        Operator("y", "bse,bse->bse", ("r1", "h3"), whole="e", **elementwise),
    ]
    return Graph(tensors, operators, parameters=("wq", "wk", "wv", "wo", "gate", "up", "down"))


MEGATRON = [
    ("x", 0, "data"),
    ("wq", 1, "model"),
    ("wk", 1, "model"),
    ("wv", 1, "model"),
    ("gate", 1, "model"),
    ("up", 1, "model"),
]
"""The decisions of Megatron: the batch over one axis, heads and inner dimension over the other."""
