"""Supervised flow matching: learn the velocity from noise to the target, and count the detail more than the rest.

Shapes: P rows of a chunk; latents have any shape after the first axis.

Differs from the paper: OmniRefiner's mask weights are not given; ours are 1 outside and ``mask_weight`` inside, in
latent space.
"""

from collections.abc import Iterator

from torch import Tensor

from policies.base import Policy
from rlrefine.algorithms.flow_matching import (
    interpolate,
    level_weight,
    mask_weight,
    predicted,
    prediction_target,
    weighted_error,
)
from rlrefine.algorithms.policy_gradient import LossOutput
from rlrefine.errors import DataError
from rlrefine.training.experience import Chunk, Experience
from rlrefine.training.objectives.levels import drawn_for
from rlrefine.training.settings import SftSettings


class Sft:
    """Flow matching on the rows' targets.

    Reference: OmniRefiner, arXiv 2511.19990, figure 3 ("masked mse loss").
    """

    group_size = 1
    updates = 1

    def __init__(self, settings: SftSettings) -> None:
        self.settings = settings

    def losses(self, policy: Policy, experience: Experience, update: int) -> Iterator[LossOutput]:
        for chunk in experience.chunks:
            loss_P = self._chunk_loss(policy, experience, chunk)
            share = loss_P.sum() / experience.samples_in_step
            yield LossOutput(share, {"loss": share.item()})

    def losses_per_update(self, experience: Experience) -> int:
        return len(experience.chunks)

    def _chunk_loss(self, policy: Policy, experience: Experience, chunk: Chunk) -> Tensor:
        batch = experience.batch[chunk.rows]
        if batch.targets is None:
            without = next(example.id for example in batch.examples if example.target is None)
            raise DataError(f"data: supervised training needs a target in every row, and row {without} has none")
        clean = experience.encoder.targets(batch)
        noise, sigma_P = drawn_for(chunk, experience, self.settings, policy, clean)
        noisy = interpolate(clean, noise, sigma_P)
        velocity = policy.velocity(noisy, sigma_P, experience.conditioning[chunk.rows], self.settings.guidance)
        weight = None
        if batch.masks is not None and self.settings.mask_weight != 1:
            weight = mask_weight(policy.latent_mask(batch.masks).to(clean), self.settings.mask_weight)
        form = self.settings.prediction
        target = prediction_target(clean, noise, form)
        error_P = weighted_error(predicted(velocity, noisy, sigma_P, form), target, weight)
        return level_weight(sigma_P, self.settings.weighting) * error_P
