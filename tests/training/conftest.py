import pytest
import torch

from rlrefine.data.records import Batch, Example, Reference
from rlrefine.training.objectives.base import RolloutObjective
from tests.training.steps import rolled_out, rows_alone

SIZE = (32, 32)


@pytest.fixture
def batch():
    """Four rows of 32 × 32 noise with a mask in the middle."""
    mask = torch.zeros(1, *SIZE)
    mask[:, 8:24, 8:24] = 1
    return Batch(
        examples=tuple(
            Example(
                id=f"row-{p}",
                prompt=f"restore the {noun}",
                draft=torch.rand(3, *SIZE),
                references=(Reference(image=torch.rand(3, *SIZE)),),
                target=torch.rand(3, *SIZE),
                mask=mask,
                pair=(torch.rand(3, *SIZE), torch.rand(3, *SIZE)),
            )
            for p, noun in enumerate(("face", "text", "logo", "texture"))
        )
    )


@pytest.fixture
def experience_of(kontext_policy, batch):
    """Rollouts of an objective for the batch, in micro-batches of a given size; without any, its rows alone."""

    def make(objective, micro_batch=None, step=0):
        rows = rows_alone(kontext_policy, objective, batch, micro_batch=micro_batch, step=step)
        if not isinstance(objective, RolloutObjective):
            return rows
        credit = torch.randn(len(batch), objective.group_size, generator=torch.Generator().manual_seed(5))
        return rolled_out(kontext_policy, objective, rows, credit)

    return make
