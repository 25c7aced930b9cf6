"""The noise levels of a model that predicts ε, from the configuration of its own scheduler.

Shapes: N timesteps of its training, 0 … N − 1 · S = T + 1 states of a rollout with T transitions · B samples.

Differs from diffusers: every rollout ends at σ = 0. A ``DDIMScheduler`` whose ``set_alpha_to_one`` is false stops at
the level of timestep 0 instead, and decodes an image with 3 % of noise left in it.
"""

import copy
from typing import Any

import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler
from torch import Tensor

from policies.errors import PolicyError
from policies.schedule import k_of_alpha, k_of_sigma, sigma_of_k

SCHEDULERS = (DDIMScheduler, EulerAncestralDiscreteScheduler)
NEARLY_WHOLE = 1e-3  # of a timestep; σ in float32 tells timesteps apart ten times better


class DiffusionSchedule:
    """When a network for ε is evaluated, and what it calls these times.

    Args:
        scheduler: of the checkpoint; it is copied, since diffusers' schedulers remember their last rollout.

    Raises:
        PolicyError: it is no DDIM or Euler-ancestral one, is not for ε, or changes what the network predicts.

    >>> schedule = DiffusionSchedule(EulerAncestralDiscreteScheduler(beta_schedule="scaled_linear", beta_end=0.012))
    >>> schedule.sigmas(2)
    tensor([0.9004, 0.0099, 0.0000])
    >>> schedule.timesteps(schedule.sigmas(2)[:2])
    tensor([999.,   0.])
    """

    def __init__(self, scheduler: Any) -> None:
        _check(scheduler)
        self._scheduler = copy.copy(scheduler)  # whose tensors are replaced and never changed
        self._k_N = k_of_alpha(self._scheduler.alphas_cumprod.double())

    def sigmas(self, steps: int) -> Tensor:
        """The S noise levels of a rollout, falling to 0: those of the scheduler's timesteps, as float32.

        Raises:
            PolicyError: the scheduler has no so many steps.
        """
        self._scheduler.set_timesteps(steps)
        times_T = self._scheduler.timesteps.double()
        if len(times_T) != steps or times_T[0] > len(self._k_N) - 1:
            raise PolicyError(f"the scheduler of the checkpoint makes no rollouts of {steps} steps; choose fewer")
        lower = times_T.long().clamp(max=len(self._k_N) - 2)
        k_T = torch.lerp(self._k_N[lower], self._k_N[lower + 1], times_T - lower)
        return sigma_of_k(torch.cat([k_T, k_T.new_zeros(1)])).float()

    def start(self, steps: int) -> float:
        """What a rollout multiplies its first noise by: the spread of latents at the first level.

        x_σ = √((1 − σ)² + σ²)·noise,   or σ·noise where Euler-ancestral begins with the last timestep of all
        """
        sigma = self.sigmas(steps)[0].double().item()
        spacing = self._scheduler.config.timestep_spacing
        if isinstance(self._scheduler, EulerAncestralDiscreteScheduler) and spacing != "leading":
            return sigma
        return ((1 - sigma) ** 2 + sigma**2) ** 0.5

    def levels(self, share: Tensor) -> Tensor:
        """The noise levels of the timesteps at a share, in (0, 1), of all: where such networks are trained."""
        time = (share.double() * len(self._k_N)).long().clamp(0, len(self._k_N) - 1)
        return sigma_of_k(self._k_N.to(share.device)[time]).to(share)

    def timesteps(self, sigma: Tensor) -> Tensor:
        """The timesteps ``[B]`` of noise levels ``[B]``, float32; between two of training on a line in s, as diffusers
        draws it."""
        k_N, k_B = self._k_N.to(sigma.device), k_of_sigma(sigma.double())
        upper = torch.searchsorted(k_N, k_B).clamp(1, len(k_N) - 1)
        below, above = k_N[upper - 1], k_N[upper]
        time = (upper - 1 + (k_B - below) / (above - below)).clamp(0, len(k_N) - 1)
        return torch.where((time - time.round()).abs() < NEARLY_WHOLE, time.round(), time).float()


def _check(scheduler: Any) -> None:
    """See that the scheduler says what is assumed here, and nothing else."""
    expected = " or ".join(kind.__name__ for kind in SCHEDULERS)
    if type(scheduler) not in SCHEDULERS:
        raise PolicyError(
            f"policy.checkpoint: its scheduler is a {type(scheduler).__name__}, expected {expected}; copy the folder "
            "and name one of them in model_index.json and scheduler/scheduler_config.json"
        )
    wanted: dict[str, Any] = {"prediction_type": "epsilon", "rescale_betas_zero_snr": False}
    if isinstance(scheduler, DDIMScheduler):
        wanted |= {"clip_sample": False, "thresholding": False}  # which are for images, and would change x̂₀
    for key, value in wanted.items():
        found = scheduler.config.get(key, value)
        if found != value:
            raise PolicyError(f"policy.checkpoint: its scheduler has {key} {found!r}, expected {value!r}")
