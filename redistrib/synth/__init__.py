"""Typed collectives, plans as data, and the planner."""
