"""Independent of the planner: the checker, and certificates that re-prove a plan for all sizes."""
