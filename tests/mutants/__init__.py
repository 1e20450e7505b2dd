"""Seeded bugs, and the run that shows what catches each: `python -m tests.mutants`.

A mutant is one edit of one file, given as data in the `of_*` modules. It is applied to a temporary
copy of the tree, where the tests and proofs of the project run until one of them fails. Nothing
here is a check of its own: what catches a mutant is what `make test` runs.
"""
