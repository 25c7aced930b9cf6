"""Direct preference optimisation on pairs in the data: of two images for one row, the policy should come to explain the
chosen one better than the rejected one, as measured from the policy that the stage began with.

Shapes: P rows of a chunk; of each row the chosen image and, beside it, the rejected one.

Differs from the paper: with ``prediction: velocity`` errors are those of the velocity, the flow-matching form. The
reference is the policy that the stage began with, earlier stages included.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from policies.base import Policy
from rlrefine.algorithms.flow_matching import interpolate, predicted, prediction_target
from rlrefine.algorithms.policy_gradient import LossOutput
from rlrefine.algorithms.preference import diffusion_dpo_loss, error_change
from rlrefine.training.experience import Chunk, Experience
from rlrefine.training.objectives.levels import drawn_for
from rlrefine.training.settings import OfflineDpoSettings


class OfflineDpo:
    """Diffusion-DPO.

    Reference: arXiv 2311.12908.
    """

    group_size = 1
    updates = 1

    def __init__(self, settings: OfflineDpoSettings) -> None:
        self.settings = settings

    def losses_per_update(self, experience: Experience) -> int:
        return len(experience.chunks)

    def losses(self, policy: Policy, experience: Experience, update: int) -> Iterator[LossOutput]:
        for chunk in experience.chunks:
            change_P2 = self._error_changes(policy, experience, chunk)
            loss_P = diffusion_dpo_loss(change_P2[:, 0], change_P2[:, 1], self.settings.beta)
            yield self._measured(loss_P, change_P2.detach(), 1 / experience.samples_in_step)

    def _error_changes(self, policy: Policy, experience: Experience, chunk: Chunk) -> Tensor:
        """By how much the policy's error is larger than the reference's: ``[P, 2]``, chosen and rejected."""
        clean = experience.encoder.pairs(experience.batch[chunk.rows])
        drawn = drawn_for(chunk, experience, self.settings, policy, clean)
        noise, sigma = (each.repeat_interleave(2, dim=0) for each in drawn)  # one for a pair
        noisy = interpolate(clean, noise, sigma)
        form = self.settings.prediction
        given = (noisy, sigma, experience.conditioning[chunk.rows].repeat(2), self.settings.guidance)
        with torch.no_grad(), policy.weights("reference"):
            reference = predicted(policy.velocity(*given), noisy, sigma, form)
        prediction = predicted(policy.velocity(*given), noisy, sigma, form)
        return error_change(prediction, reference, prediction_target(clean, noise, form)).reshape(-1, 2)

    def _measured(self, loss_P: Tensor, change_P2: Tensor, share: float) -> LossOutput:
        """The loss with what to log about it."""
        margin_P = -0.5 * self.settings.beta * (change_P2[:, 0] - change_P2[:, 1])
        each = {
            "preference/accuracy": (1 + margin_P.sign()) / 2,
            "preference/margin": margin_P,
            "error_change/chosen": change_P2[:, 0],
            "error_change/rejected": change_P2[:, 1],
        }
        return LossOutput.measured(share * loss_P.sum(), each, share)
