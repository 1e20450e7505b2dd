"""Exact redistribution of sharded arrays: layouts as types, plans of collectives, backends."""

from redistrib import report  # noqa: F401 - it registers how all kinds of objects are shown
from redistrib.errors import (
    BackendError,
    CheckError,
    InfeasibleError,
    LayoutError,
    RedistribError,
    TypeSyntaxError,
    WeightMapError,
)
from redistrib.models.check import check
from redistrib.models.expression import cast, concat, pad, rearrange, source, stack
from redistrib.models.model_plan import ModelPlan, plan_model
from redistrib.models.segments import SegmentedType
from redistrib.models.tracing import trace
from redistrib.models.weight_map import WeightMap
from redistrib.synth.oracle import CostMatrix, Oracle, complete, cost_matrix
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.links import Link
from redistrib.synth.plan.price import Cost
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.choose import Explanation, cost, explain, plan
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

__version__ = "0.1.0"
__all__ = [
    "ArrayType",
    "BackendError",
    "CheckError",
    "Cost",
    "CostMatrix",
    "Explanation",
    "InfeasibleError",
    "LayoutError",
    "Link",
    "Mesh",
    "ModelPlan",
    "Oracle",
    "Plan",
    "Profile",
    "RedistribError",
    "SegmentedType",
    "TypeSyntaxError",
    "WeightMap",
    "WeightMapError",
    "cast",
    "check",
    "complete",
    "concat",
    "cost",
    "cost_matrix",
    "explain",
    "pad",
    "plan",
    "plan_model",
    "rearrange",
    "source",
    "stack",
    "trace",
]
