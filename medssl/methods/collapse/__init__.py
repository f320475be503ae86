"""The collapse monitor: is the network about to map every image to the same point, or into a few dimensions?

`CollapseMonitor` remembers the last images of training and reports figures of them; `verdict` says what a report means, and `Judge`
when it has meant that for long enough to raise an alarm.
"""

from medssl.methods.collapse.figures import (
    alignment,
    correlation,
    effective_rank,
    gaussian_rank,
    mean_and_residual,
    singular_value_auc,
    std_sqrt_d,
    uniformity,
)
from medssl.methods.collapse.judge import Alarm, Judge
from medssl.methods.collapse.monitor import ROWS, CollapseMonitor, check_interval
from medssl.methods.collapse.verdict import STATES, State, Verdict, nearness, verdict

__all__ = [
    "ROWS",
    "STATES",
    "Alarm",
    "CollapseMonitor",
    "Judge",
    "State",
    "Verdict",
    "alignment",
    "check_interval",
    "correlation",
    "effective_rank",
    "gaussian_rank",
    "mean_and_residual",
    "nearness",
    "singular_value_auc",
    "std_sqrt_d",
    "uniformity",
    "verdict",
]
