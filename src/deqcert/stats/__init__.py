"""Statistics of certificates: exact bounds, tests, and plans. NumPy and SciPy only."""

from deqcert.stats.audited import theorem_a_joint_lower, theorem_a_lower
from deqcert.stats.binomial import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    majority_p_value,
    minimum_n,
)
from deqcert.stats.feasibility import check_feasible, minimum_audit
from deqcert.stats.hypergeometric import disagreements_upper
from deqcert.stats.planning import AuditPlan, plan_audit
from deqcert.stats.published import released_code_lower, theorem_3_1_lower
from deqcert.stats.radius import certified_radius
from deqcert.stats.regions import JointRegion, SplitRegion

__all__ = [
    "AuditPlan",
    "JointRegion",
    "SplitRegion",
    "certified_radius",
    "check_feasible",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "disagreements_upper",
    "majority_p_value",
    "minimum_audit",
    "minimum_n",
    "plan_audit",
    "released_code_lower",
    "theorem_3_1_lower",
    "theorem_a_joint_lower",
    "theorem_a_lower",
]
