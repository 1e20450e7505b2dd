"""The claims of the library as obligations for z3, for symbolic sizes. `python -m proofs` runs all.

One module per family; `FAMILIES` lists them, and the runner fails if a module of obligations is not
in the list or one in the list is missing.
"""

FAMILIES = (
    "digits",
    "canonical",
    "tiles",
    "rules",
    "reductions",
    "exchange",
    "refinement",
    "bound",
    "addends",
    "peak",
    "volume",
    "chains",
    "rewriting",
    "transposition",
    "triangle",
)
