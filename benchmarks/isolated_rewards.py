"""What it costs that a reward lives in a process of its own, and what is won as it works while images are made:
``python -m benchmarks.rewards isolated``.

One thread each, random images. Both sides of a comparison are run in turn, round after round; of the ratios the median.

- Cost: ``masked_pixel``, which itself costs next to nothing, on 8 images with target and mask, here and in a process
  of its own with 32, 16 and 8 bits a channel: the CPU seconds of both processes for each image. What is added is what
  PNG, checksums and copies take, and the same for any reward.
- Gain: images that take 20 ms each to make, and a judge elsewhere that takes 20 ms for each; waits stand for both, so
  that the numbers do not depend on how busy this machine is. A step of 32 images, scored when all are made, and in
  chunks of 4 as they are made; by one judge and by two.
"""

import os
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.metering import cpu_seconds
from rewards import Component, MaskedPixel, Reward, RewardInputs, Scores, WeightedRewards
from rewards.isolated.client import Crew, IsolatedReward, close_all, isolated
from rewards.isolated.process import Worker
from rewards.isolated.settings import Isolation
from rewards.isolated.wire import Limits, answer_bytes, inputs_of
from rewards.settings import MaskedPixelSettings
from rlrefine.data.records import Batch, Example
from rlrefine.training.experience import chunks_of
from rlrefine.training.scoring import Scoring

IMAGES, ROUNDS = 8, 5
SIDES = (64, 256)
WAIT, STEP, CHUNK = 0.02, 32, 4
TICKS = os.sysconf("SC_CLK_TCK")


def cost() -> None:
    """CPU milliseconds an image, here and elsewhere."""
    print(f"{'masked_pixel, CPU ms an image':<32}{'here':>8}{'32 bits':>10}{'16 bits':>10}{'8 bits':>10}")
    here = MaskedPixel()
    there = {}
    for bits in (32, 16, 8):
        settings = asdict(MaskedPixelSettings())
        there[bits] = isolated("pixel", "masked_pixel", settings, Isolation(bits=bits, batch=IMAGES))
    for side in SIDES:
        generator = torch.Generator().manual_seed(side)
        images, targets = (torch.rand(IMAGES, 3, side, side, generator=generator) for _ in range(2))
        inputs = RewardInputs(images=images, targets=targets, masks=torch.ones(IMAGES, 1, side, side))
        repeat = max(1, 256 // side)
        found: dict[str, list[float]] = {}
        for turn in range(ROUNDS + 1):
            seconds = {"here": _own(here, inputs, repeat)}
            seconds |= {f"{bits}": _both(reward, inputs, repeat) for bits, reward in there.items()}
            for name, spent in seconds.items() if turn else ():  # the first warms up
                found.setdefault(name, []).append(1000 * spent / repeat / IMAGES)
        cells = "".join(f"{statistics.median(values):>10.2f}" for values in found.values())
        print(f"{f'{side} × {side}':<30}{cells}", flush=True)
    close_all()


def _own(reward: Reward, inputs: RewardInputs, repeat: int) -> float:
    return cpu_seconds(lambda: [reward(inputs) for _ in range(repeat)])


def _both(reward: IsolatedReward, inputs: RewardInputs, repeat: int) -> float:
    (worker,) = reward.crew.members
    assert isinstance(worker, Worker)
    before = worker_seconds(worker)
    own = _own(reward, inputs, repeat)
    return own + worker_seconds(worker) - before


def worker_seconds(worker: Worker) -> float:
    """CPU seconds of a reward's process so far, by the kernel's clock of 10 ms."""
    fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Judge:
    """Waits for each image, as for an answer from another machine."""

    def ask(self, question: bytes) -> bytes:
        _, inputs = inputs_of(question, Limits())
        time.sleep(WAIT * len(inputs.images))
        return answer_bytes(Scores(values=inputs.images.mean(dim=(1, 2, 3))))


def gain() -> None:
    """Wall seconds of a step, scored in the end and meanwhile."""
    batch = Batch(examples=tuple(Example(id=f"{n}", prompt="", draft=torch.zeros(3, 8, 8)) for n in range(STEP // 4)))
    said = {"needs": [], "uses": [], "range": [0.0, 1.0]}
    for judges in (1, 2):
        there = IsolatedReward("judge", Crew([Judge() for _ in range(judges)]), said, batch=CHUNK)
        rewards = WeightedRewards({"judge": Component(reward=there)})
        ratios, pairs = [], []
        for _ in range(ROUNDS):
            after, meanwhile = (step(rewards, batch, overlapped=overlapped) for overlapped in (False, True))
            assert torch.equal(after[1], meanwhile[1])
            ratios.append(after[0] / meanwhile[0])
            pairs.append((after[0], meanwhile[0]))
        after_s, meanwhile_s = (statistics.median(side) for side in zip(*pairs, strict=True))
        shares = f"{after_s:.2f} s scored in the end, {meanwhile_s:.2f} s meanwhile"
        print(
            f"{judges} judge{'s' if judges > 1 else ' '}: {shares}, {statistics.median(ratios):.2f} times", flush=True
        )


def step(rewards: WeightedRewards, batch: Batch, *, overlapped: bool) -> tuple[float, torch.Tensor]:
    begun, generator = time.perf_counter(), torch.Generator().manual_seed(0)
    scoring, kept = Scoring(rewards, batch, 4, chunks_of(len(batch), 4, CHUNK)), []
    for _ in range(STEP // CHUNK):
        time.sleep(WAIT * CHUNK)
        kept.append(torch.rand(CHUNK, 3, 8, 8, generator=generator))
        if overlapped:
            scoring.give(kept[-1])
    if not overlapped:
        scoring.give(torch.cat(kept))
    total = scoring.output().total
    return time.perf_counter() - begun, total


def main() -> None:
    torch.set_num_threads(1)
    cost()
    gain()


if __name__ == "__main__":
    main()
