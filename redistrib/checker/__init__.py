"""The checker: it re-derives all that a plan claims, independent of the planner.

checker                   the checks, step by step: read this first
reading                   the text of a plan, read strictly
parts, shared, senders    an exchange on one mesh: what tiles have in common, who sends it
crossing, blocks          an exchange to another mesh; one of uneven types
price, rings              the time of a step
lower_bound, claims       the bound; how a claim is refused
certificate               proofs of one plan for all sizes, by z3

Plans of whole models have a checker of their own, `redistrib.models.check`.
"""
