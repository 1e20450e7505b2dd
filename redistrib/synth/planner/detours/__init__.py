"""Ways through other layouts: prices of many pairs at once, and detours that are cheaper."""
