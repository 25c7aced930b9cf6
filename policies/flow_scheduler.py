"""The noise levels of flow models whose schedulers do more than shift them by the size of the image.

Shapes: S = T + 1 states of a rollout with T transitions.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from policies.errors import PolicyError
from policies.schedule import resolution_shift, shift_sigma, sigma_schedule

USUAL_STEPS = 50  # of FLUX.2's rollouts, as diffusers makes them

ANCHORS = {
    "base_tokens": "base_image_seq_len", "max_tokens": "max_image_seq_len",
    "base_shift": "base_shift", "max_shift": "max_shift",
}  # fmt: skip
"""What ``resolution_shift`` calls what a scheduler's configuration says."""


def configured_shift(scheduler: Any, tokens: int) -> float:
    """``resolution_shift`` of an image of ``tokens`` packed tokens, through the anchors that a scheduler says."""
    said = {ours: scheduler.config[theirs] for ours, theirs in ANCHORS.items() if theirs in scheduler.config}
    return resolution_shift(tokens, **said)


def empirical_shift(tokens: int, steps: int) -> float:
    """FLUX.2's shift μ of an image of ``tokens`` packed tokens that is made in so many steps.

        μ = μ₁₀ + (μ₂₀₀ − μ₁₀)·(steps − 10) / 190     up to 4300 tokens, from there on μ₂₀₀
        μ₁₀ = 8.73809524e-5·tokens + 1.89833333       μ₂₀₀ = 1.6927e-4·tokens + 0.45666666

    Reference: FLUX.2 (diffusers ``compute_empirical_mu``).

    >>> round(empirical_shift(1024, 10), 4), round(empirical_shift(1024, 200), 4), round(empirical_shift(8192, 10), 4)
    (1.9878, 0.63, 1.8433)
    """
    at_200 = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return at_200
    at_10 = 8.73809524e-05 * tokens + 1.89833333
    return at_10 + (at_200 - at_10) * (steps - 10) / 190


@dataclass(frozen=True)
class EmpiricalSchedule:
    """FLUX.2's noise levels, evenly spaced and shifted by a μ that follows from tokens and steps.

    >>> EmpiricalSchedule(64).sigmas(2)
    tensor([1.0000, 0.8770, 0.0000])
    """

    tokens: int

    def sigmas(self, steps: int) -> Tensor:
        """The S levels of a rollout."""
        return sigma_schedule(steps, empirical_shift(self.tokens, steps))

    def start(self, steps: int) -> float:
        """1: the first level is 1, pure noise."""
        return 1.0

    def levels(self, share: Tensor) -> Tensor:
        """Shifted as in a rollout of 50 steps, which is how many diffusers makes."""
        return shift_sigma(share, empirical_shift(self.tokens, USUAL_STEPS))


@dataclass(frozen=True)
class TerminalSchedule:
    """Noise levels that are shifted by μ and then stretched, so that the last but one is ``terminal``.

        1 − σ' = (1 − σ)·(1 − terminal) / (1 − σ_last)

    Reference: Qwen-Image (diffusers ``FlowMatchEulerDiscreteScheduler.stretch_shift_to_terminal``).

    >>> TerminalSchedule(mu=0.0, terminal=0.1).sigmas(4)        # from 1, 0.75, 0.5, 0.25, by steps of 0.3
    tensor([1.0000, 0.7000, 0.4000, 0.1000, 0.0000])
    """

    mu: float
    terminal: float

    def sigmas(self, steps: int) -> Tensor:
        """The S levels of a rollout.

        Raises:
            PolicyError: a single step, which cannot both begin with noise and end at ``terminal``.
        """
        if steps == 1:
            raise PolicyError(
                f"a rollout of this model ends at σ = {self.terminal:g} first, so it needs 2 steps or more"
            )
        levels = sigma_schedule(steps, self.mu).double()
        stretched = 1 - (1 - levels[:-1]) * (1 - self.terminal) / (1 - levels[-2])
        return torch.cat([stretched, levels[-1:]]).float()

    def start(self, steps: int) -> float:
        """1: the first level is 1, pure noise."""
        return 1.0

    def levels(self, share: Tensor) -> Tensor:
        """As ``shift_sigma``; what is stretched is the end of a rollout."""
        return shift_sigma(share, self.mu)


def check_flow_scheduler(scheduler: Any) -> None:
    """See that a scheduler says what is assumed of flow models here, and nothing else.

    Raises:
        PolicyError: it does not shift by μ, or changes noise levels in a way that is not known here.
    """
    wanted = {
        "use_dynamic_shifting": True, "time_shift_type": "exponential", "use_karras_sigmas": False,
        "use_exponential_sigmas": False, "use_beta_sigmas": False, "invert_sigmas": False,
        "stochastic_sampling": False,
    }  # fmt: skip
    for key, value in wanted.items():
        found = scheduler.config.get(key, value)
        if bool(found) != value if isinstance(value, bool) else found != value:
            raise PolicyError(f"policy.checkpoint: its scheduler has {key} {found!r}, expected {value!r}")
