"""The clipped policy gradient: push up what did better than its siblings, but only so far.

Shapes: B samples; further axes are the dimensions of a latent.

Differs from the papers: GRPO-Guard divides its loss by the step length; that is a weight of its own here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

ClipRange = float | tuple[float, float] | None
Reduction = Literal["mean", "sum"]


@dataclass(frozen=True)
class LossOutput:
    """One micro-batch's share of a loss: what to differentiate, and what to log.

    Args:
        metrics: shares of a number, summed over the step's micro-batches and processes.
        maxima: of which the step's largest counts.
    """

    loss: Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)
    maxima: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def measured(
        cls, loss: Tensor, each: Mapping[str, Tensor], share: float, maxima: Mapping[str, Tensor] | None = None
    ) -> "LossOutput":
        """A loss with numbers to log, all of which are fetched from their device at once: each fetch waits for it.

        Args:
            loss: with gradients; logged as ``loss``.
            each: values of samples or rows.
            share: of their sum that is logged.
            maxima: single numbers.

        >>> LossOutput.measured(torch.tensor(2.0), {"kl": torch.tensor([1.0, 3.0])}, share=0.25).metrics
        {'loss': 2.0, 'kl': 1.0}
        """
        largest = maxima or {}
        fetched = [loss, *(value.sum() for value in each.values()), *largest.values()]
        first, *others = torch.stack([value.detach().double() for value in fetched]).tolist()
        sums, most = others[: len(each)], others[len(each) :]
        shares = {name: share * value for name, value in zip(each, sums, strict=True)}
        return cls(loss, {"loss": first, **shares}, dict(zip(largest, most, strict=True)))


def clip_bounds(clip_range: ClipRange) -> tuple[float, float]:
    """The least and the greatest ratio that still has a gradient.

    Args:
        clip_range: c for 1 − c … 1 + c; a pair (low, high) for 1 − low … 1 + high; none for no bounds.

    Reference: the pair is DAPO's "clip-higher", arXiv 2503.14476, section 3.1.

    >>> clip_bounds(0.25), clip_bounds((0.5, 1.0)), clip_bounds(None)
    ((0.75, 1.25), (0.5, 2.0), (0.0, inf))
    """
    if clip_range is None:
        return 0.0, float("inf")
    low, high = clip_range if isinstance(clip_range, tuple) else (clip_range, clip_range)
    return 1 - low, 1 + high


def clipped_policy_loss(log_ratio_B: Tensor, advantage_B: Tensor, clip_range: ClipRange) -> Tensor:
    """The pessimistic surrogate of PPO, one value per sample.

        ρ = exp(log π_θ − log π_old),   L = max( −A·ρ, −A·clip(ρ, 1 − c_low, 1 + c_high) )

    Args:
        log_ratio_B: log-density under the weights that are trained, with gradients, minus that under the weights that
            made the sample; or ``guarded_log_ratio``.
        advantage_B: how much better than its siblings.
        clip_range: c, or (c_low, c_high); none leaves the ratio alone, which is right where each rollout is used for
            one update only.

    Returns:
        ``[B]``. Where ρ is 1 the gradient is −A·∇log π_θ; where clipping bites it is 0.

    Reference: PPO, arXiv 1707.06347, equation 7; for diffusion, Flow-GRPO, arXiv 2505.05470, equation 4.

    >>> clipped_policy_loss(torch.zeros(1), torch.tensor([2.0]), clip_range=0.1)
    tensor([-2.])
    """
    ratio_B = log_ratio_B.exp()
    if clip_range is None:
        return -advantage_B * ratio_B
    clipped_B = ratio_B.clamp(*clip_bounds(clip_range))
    return torch.maximum(-advantage_B * ratio_B, -advantage_B * clipped_B)


def clip_fractions(log_ratio_B: Tensor, advantage_B: Tensor, clip_range: ClipRange) -> tuple[Tensor, Tensor]:
    """Which samples the clip holds back, below and above.

    Below: the ratio fell under its lower bound for a sample that did worse; above: it rose over the upper one for one
    that did better.

    Returns:
        Two boolean ``[B]``.

    >>> below, above = clip_fractions(torch.tensor([0.2]), torch.tensor([1.0]), 0.1)
    >>> below.item(), above.item()
    (False, True)
    """
    ratio_B, (low, high) = log_ratio_B.exp(), clip_bounds(clip_range)
    return (ratio_B < low) & (advantage_B < 0), (ratio_B > high) & (advantage_B > 0)


def guarded_log_ratio(
    log_ratio_B: Tensor, mean: Tensor, old_mean: Tensor, std: float, reduction: Reduction = "mean"
) -> Tensor:
    """The log-ratio of GRPO-Guard: around 0 on average, and equally wide at every noise level.

        log ρ = ( log π_θ − log π_old + reduce_d (μ_θ − μ_old)² / 2std² )·std

    Of samples of the old policy the plain log-ratio averages −(μ_θ − μ_old)²/2std², so that clips bite below more often
    than above; and it scatters by |μ_θ − μ_old|/std, so that one clip range is tight at low noise and loose at high.
    Here it averages 0 and scatters by |μ_θ − μ_old|.

    Args:
        log_ratio_B: log π_θ − log π_old of a Gaussian step, with gradients.
        mean, old_mean: ``[B, …]`` means of the next latents under both.
        std: their common standard deviation.
        reduction: that of the log-densities.

    Returns:
        ``[B]``, in units of the latents; 0 where the policies agree, with the gradient std·∇log π_θ.

    Reference: GRPO-Guard, arXiv 2510.22319, ratio normalisation.

    >>> guarded_log_ratio(torch.tensor([-2.0]), torch.ones(1, 4), torch.zeros(1, 4), std=0.5)  # (−2 + 1/(2·¼))·½
    tensor([0.])
    """
    moved = (mean - old_mean).square().flatten(1) / (2 * std**2)
    return (log_ratio_B + (moved.mean(dim=1) if reduction == "mean" else moved.sum(dim=1))) * std
