"""The teacher: networks whose weights are an exponential moving average of the trained ones.

MoCo calls it the key encoder (1911.05722, section 3.2, "Momentum update"), BYOL the target network (2006.07733, section 3.1).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Teacher(nn.Module):
    """Copies of the student's modules, without gradients, passed one after the other.

    The copies equal the student when they are made, so the student must have its starting weights by then. Their BN counts
    statistics of its own: buffers are not averaged, the teacher sees its batches in train mode like the student.
    """

    def __init__(self, *students: nn.Module) -> None:
        super().__init__()
        self.copies = nn.ModuleList(copy.deepcopy(student).requires_grad_(False) for student in students)

    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """What each copy gives in turn, the first from `x`, each other from the one before."""
        outputs = []
        for module in self.copies:
            x = module(x)
            outputs.append(x)
        return tuple(outputs)

    def update(self, students: Sequence[nn.Module], momentum: float) -> None:
        """xi <- momentum xi + (1 - momentum) theta, for each parameter.

        Args:
            students: the modules that the copies were made from, in the same order.
            momentum: in [0, 1]; 1 leaves the teacher as it is.

        Raises:
            ValueError: the momentum is out of range, or the student has other parameters.
        """
        own = list(self.copies.parameters())
        theirs = list(itertools.chain.from_iterable(student.parameters() for student in students))
        if [x.shape for x in own] != [x.shape for x in theirs]:
            raise ValueError("the student's parameters are not those that the teacher was copied from")
        get_ema_multi_avg_fn(momentum)(own, [x.detach() for x in theirs], None)
