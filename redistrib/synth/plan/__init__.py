"""A plan and its parts: collectives and their facts, traffic, prices, JSON, transpose."""
