import pytest
import torch

from rlrefine.data.records import Batch, Example, Reference
from rlrefine.training.encoder import Encoder
from rlrefine.training.experience import Address, Experience, chunks_of, make_rollouts
from rlrefine.training.objectives.base import RolloutObjective
from rlrefine.training.objectives.sampling import plan_of
from rlrefine.training.progress import LineReporter

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
        address = Address(seed=0, stage="test", step=step, first_row=0)
        chunks = tuple(chunks_of(len(batch), objective.group_size, micro_batch))
        encoder = Encoder(policy=kontext_policy, roles=["draft", "reference"])
        conditioning = encoder.conditioning(batch)
        common = {
            "batch": batch,
            "conditioning": conditioning,
            "encoder": encoder,
            "address": address,
            "chunks": chunks,
            "samples_in_step": len(batch) * objective.group_size,
        }
        if not isinstance(objective, RolloutObjective):
            return Experience(**common)
        plan = plan_of(objective.settings, kontext_policy.schedule(SIZE), 0, step)
        with kontext_policy.weights(objective.behaviour):
            made = make_rollouts(kontext_policy, conditioning, plan, chunks, address, SIZE, LineReporter())
        trajectories, images = made
        credit = torch.randn(len(batch), objective.group_size, generator=torch.Generator().manual_seed(5))
        return Experience(**common, trajectories=trajectories, credit=credit), images

    return make
