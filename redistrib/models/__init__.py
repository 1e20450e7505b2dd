"""Whole models: how the arrays of one program are made from those of another, and moved.

weight_map, rule, expression, names, pattern, text   a map, and its text
interpret, tracing, inverse     what it means; from a loading function; backwards
numpy_functions   the functions that a loading function may call
segments                        types whose tiles are concatenations of tiles
atoms, normal_form              a target as views of sources
copies, reuse                   these under layouts; what devices have of them already
schedule, tile_views, tiles     who sends what to whom in one copy
balance, loads, bounds, relabel   who serves first, bytes of all devices, what they receive at least
order, memory                   in which order arrays move, and what that takes
moves, figures, model_plan, model_data, transfers   a plan: read `model_plan` first
check, alike, groups, views, coverage, check_figures   its checker
"""
