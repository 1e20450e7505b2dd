"""From two types to a plan: the problem, the proposals of strategies, the cheapest candidate."""
