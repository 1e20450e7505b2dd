"""Views of plans, types, explanations, matrices and models; no plan depends on them.

figures      sizes, times and device numbers as text
layout       which devices hold which block of a type, as a grid and as text
movement     who sends what to whom in a step
plan_text    a plan as text and as a terminal table
html         fragments of pages: tables, bars, a stepper
plan_page    a plan, and why it was chosen; type_page, matrix_page, model_page likewise
trace        a plan as a Chrome trace

Importing this package registers what `redistrib.display` answers for each kind of object.
"""

from redistrib.report import matrix_page, model_page, plan_page, plan_text, type_page  # noqa: F401
