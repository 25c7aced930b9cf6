"""What one step learns from: rows, and for reinforcement learning the samples that were made of them and how good
they are.

Shapes: P rows of this process · G samples of a row · B samples of a chunk, samples of one row beside each other · H W
image.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from policies.base import Policy
from policies.rollout import rollout
from policies.trajectory import RolloutPlan, Trajectory, joined
from rlrefine import draws
from rlrefine.data.records import Batch
from rlrefine.training.encoder import Encoder
from rlrefine.training.progress import Reporter


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What goes through the network at once: whole groups of some rows, or some samples of one row."""

    rows: slice
    samples: slice

    @property
    def group_size(self) -> int:
        return self.samples.stop - self.samples.start

    @property
    def count(self) -> int:
        """Its samples, in all rows."""
        return (self.rows.stop - self.rows.start) * self.group_size


def chunks_of(rows: int, group_size: int, micro_batch: int | None) -> list[Chunk]:
    """Cut a step into chunks of ``micro_batch`` samples.

    >>> [(c.rows, c.samples) for c in chunks_of(rows=2, group_size=4, micro_batch=4)]
    [(slice(0, 1, None), slice(0, 4, None)), (slice(1, 2, None), slice(0, 4, None))]
    """
    micro_batch = micro_batch or rows * group_size
    if micro_batch < group_size:
        starts = range(0, group_size, micro_batch)
        return [Chunk(rows=slice(p, p + 1), samples=slice(g, g + micro_batch)) for p in range(rows) for g in starts]
    together = micro_batch // group_size
    return [
        Chunk(rows=slice(p, min(p + together, rows)), samples=slice(0, group_size)) for p in range(0, rows, together)
    ]


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the draws of a step live, so that each sample has its own wherever it is computed."""

    seed: int
    stage: str
    step: int
    first_row: int
    """Global number of this process's first row."""

    def initial(self, rows: slice, shape: tuple[int, ...]) -> Tensor:
        """The noise ``[P, …]`` that each row starts from."""
        return torch.stack([self._draw(shape, "initial", self.first_row + p) for p in range(rows.start, rows.stop)])

    def transition(self, chunk: Chunk, step: int, shape: tuple[int, ...]) -> Tensor:
        """The noise ``[B, …]`` of one stochastic step."""
        return torch.stack([self._draw(shape, "transition", row, g, step) for row, g in self._samples(chunk)])

    def renoising(self, chunk: Chunk, time: int, shape: tuple[int, ...]) -> tuple[list[float], Tensor]:
        """For each sample a uniform number, for a noise level, and the noise ``[B, …]`` that brings it there.

        Args:
            time: how often the step's samples were brought to noise before.
        """
        samples = self._samples(chunk)
        levels = [draws.uniform(self.seed, self.stage, self.step, "level", row, g, time) for row, g in samples]
        return levels, torch.stack([self._draw(shape, "renoising", row, g, time) for row, g in samples])

    def _samples(self, chunk: Chunk) -> list[tuple[int, int]]:
        """Global row and number of each sample."""
        rows, samples = (range(each.start, each.stop) for each in (chunk.rows, chunk.samples))
        return [(self.first_row + p, g) for p in rows for g in samples]

    def uniform(self, row: int) -> float:
        return draws.uniform(self.seed, self.stage, self.step, "uniform", self.first_row + row)

    def noise(self, row: int, shape: tuple[int, ...]) -> Tensor:
        return self._draw(shape, "noise", self.first_row + row)

    def _draw(self, shape: tuple[int, ...], *place: draws.Address) -> Tensor:
        return draws.normal(shape, self.seed, self.stage, self.step, *place)


@dataclass(frozen=True, kw_only=True)
class Experience:
    """Everything that the losses of one step are made of.

    Args:
        batch: this process's rows.
        conditioning: of these rows.
        encoder: for what an objective needs of them beyond that.
        chunks: how the step is cut; ``trajectories`` has one entry for each.
        credit: what each sample deserves, ``[P, G]``; none without rewards.
        kept: which samples are learnt from, ``[P, G]``; none where all are. The others go through the network too,
            since every process makes the same calls, and weigh 0.
        samples_in_step: samples that are kept over all processes, the denominator of every loss.
        groups_in_step: groups of which any sample is kept, over all processes.
        same_form: whether the rollout went through the network as its replay does, and so in the same bits: in the
            same chunks, and with adapters of their own.
    """

    batch: Batch
    conditioning: Any
    encoder: Encoder
    address: Address
    chunks: tuple[Chunk, ...]
    trajectories: tuple[Trajectory, ...] = ()
    credit: Tensor | None = None
    kept: Tensor | None = None
    samples_in_step: int
    groups_in_step: int = 0
    same_form: bool = True

    def keeping(self, kept_PG: Tensor, share: slice) -> "Experience":
        """The same, learning from some samples only.

        Args:
            kept_PG: which of all processes' samples.
            share: this process's rows among them.
        """
        return replace(
            self,
            kept=kept_PG[share],
            samples_in_step=max(1, int(kept_PG.sum())),
            groups_in_step=max(1, int(kept_PG.any(dim=1).sum())),
        )

    def weight(self, chunk: Chunk) -> Tensor:
        """How much each sample of a chunk counts, ``[B]``: 1, or 0 where it is not kept."""
        assert self.credit is not None
        kept = torch.ones_like(self.credit) if self.kept is None else self.kept.to(self.credit)
        return kept[chunk.rows, chunk.samples].flatten()


def regrouped(trajectories: Sequence[Trajectory], chunks: Sequence[Chunk], group_size: int) -> tuple[Trajectory, ...]:
    """The samples of a step, cut into other chunks than those they were made in."""
    whole = joined(trajectories, group_size)
    starts = [chunk.rows.start * group_size + chunk.samples.start for chunk in chunks]
    sizes = [(chunk.rows.stop - chunk.rows.start) * chunk.group_size for chunk in chunks]
    return tuple(
        whole.part(slice(start, start + size), chunk.group_size)
        for chunk, start, size in zip(chunks, starts, sizes, strict=True)
    )


def make_rollouts(
    policy: Policy,
    conditioning: Any,
    plan: RolloutPlan,
    chunks: Sequence[Chunk],
    address: Address,
    size: tuple[int, int],
    report: Reporter,
    images_at_once: int | None = None,
    on_images: Callable[[Tensor], None] = lambda images: None,
) -> tuple[tuple[Trajectory, ...], Tensor]:
    """Make the samples of a step, chunk by chunk, with adapters merged into the network if the plan says so.

    Args:
        images_at_once: latents that are decoded together; by default those of a chunk.
        on_images: is given images as soon as they are decoded, in their order.

    Returns:
        One trajectory per chunk, and the images ``[P·G, 3, H, W]``.
    """
    shape = policy.latent_shape(size)
    trajectories, images, total = [], [], len(chunks) * plan.steps
    with policy.stage.merged() if plan.merge_adapters else nullcontext():
        for number, chunk in enumerate(chunks):

            def on_step(done: int, before: int = number * plan.steps) -> None:
                report.phase("rollout", before + done, total)

            def draw(step: int, chunk: Chunk = chunk) -> Tensor:
                return address.transition(chunk, step, shape)

            initial = address.initial(chunk.rows, shape).to(policy.device)
            trajectory = rollout(policy, conditioning[chunk.rows], initial, plan, chunk.group_size, draw, on_step)
            trajectories.append(trajectory)
            latents = trajectory.final_latents
            for some in latents.split(images_at_once or len(latents)):
                images.append(policy.decode(some, size))
                on_images(images[-1])
    report.phase("rollout", total, total)
    return tuple(trajectories), torch.cat(images)
