"""Plans as data (`plan`), what makes them (`planner`), and prices for partitioners (`oracle`)."""
