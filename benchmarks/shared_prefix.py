"""What the shared prefix of a group's rollout saves: ``python -m benchmarks.shared_prefix``.

Samples of one row start from one noise and are the same until the first stochastic step, so that part is computed
once for the row. The other side makes every sample on its own. Both sides run in turn in one process, in CPU seconds
with one thread; the expected ratio is that of the network evaluations.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from policies.flux_kontext import FluxKontext
from policies.rollout import rollout
from policies.schedule import sigma_schedule
from policies.settings import FluxKontextSettings
from policies.trajectory import RolloutPlan

ROWS, GROUP, STEPS, WINDOW, SIZE, REPEATS = 4, 8, 8, 2, (64, 64), 5


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    torch.set_num_threads(1)
    policy = FluxKontext.load(FluxKontextSettings(checkpoint="tiny-kontext", prompt_tokens=16), torch.device("cpu"))
    images = [[torch.rand(3, *SIZE), torch.rand(3, *SIZE)] for _ in range(ROWS)]
    with torch.no_grad():
        conditioning = policy.encode(["restore the face from the reference"] * ROWS, images)
    shape = policy.latent_shape(SIZE)
    initial = torch.randn(ROWS, *shape)
    noise = torch.randn(ROWS * GROUP, *shape)
    repeated, each = conditioning.repeat(GROUP), initial.repeat_interleave(GROUP, dim=0)
    print(f"{'first stochastic step':<24}{'evaluations':>14}{'CPU seconds':>14}")
    for first in (0, 2, 5):
        plan = RolloutPlan(
            sigmas=sigma_schedule(STEPS, policy.noise_shift(SIZE)),
            stochastic=tuple(range(first, first + WINDOW)),
            dynamics="flow_sde",
            noise=0.7,
        )
        shared = partial(rollout, policy, conditioning, initial, plan, GROUP, lambda step: noise)
        alone = partial(rollout, policy, repeated, each, plan, 1, lambda step: noise)
        for warm_up in (shared, alone):
            warm_up()
        seconds = [cpu_seconds(shared) / cpu_seconds(alone) for _ in range(REPEATS)]
        expected = plan.evaluations(GROUP) / (GROUP * STEPS)
        print(f"{first:<24}{expected:>14.2f}{statistics.median(seconds):>14.2f}")


if __name__ == "__main__":
    main()
