"""What patch DreamSim costs on groups, against upstream pair by pair: ``python -m benchmarks.rewards``; with the word
``isolated``, what it costs and wins that a reward lives elsewhere (see ``isolated_rewards``).

One thread, CPU seconds, random weights of the real sizes. DreamSim's smallest model (``clip_vitb32``, 88 million
parameters) looks at images of 1024 × 1024 pixels in 16 patches of 256: for P rows of G samples there are P·G·16 pairs.
Upstream's call embeds both images of a pair; here a target is embedded once a row, and patches go through the network
together. Counted in embeddings that is 2·P·G·16 against P·(G + 1)·16, a ratio of 1.78 for G = 8; the rest is what a
larger batch saves. Both sides are given tensors, and resize them to 224 × 224 in the same way.

- Time: row by row, our score of the row's samples and upstream's of some of its pairs in turn, since all pairs cost
  alike; the ratio is that of the row, the result the median of the rows. Scores agree to 1e-5.
- Memory: the peak of the process above what the images take, for growing G, when a whole group is scored at once and
  when it is scored in micro-batches, as ``reward_batch`` does.
"""

import ctypes
import gc
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from dreamsim.feature_extraction.vision_transformer import vit_base
from torch import Tensor

from benchmarks import isolated_rewards
from benchmarks.metering import cpu_seconds
from rewards import PatchDreamSim, RewardInputs
from rewards.dreamsim import to_input
from rewards.patches import image_patches
from tests.rewards.random_dreamsim import upstream, write_weights

MODEL = "clip_vitb32"
ROWS, GROUP, SIDE, PATCH, BATCH = 8, 8, 1024, 256, 16
PAIRS = 16  # of a row's G·16 pairs that upstream scores
GROUPS, MICRO_BATCH = (2, 4, 8), 2
MIB = 2**20


def row_of(seed: int, group: int) -> RewardInputs:
    """One row and its samples, smooth noise that differs from the target."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(group + 1, 3, SIDE // 8, SIDE // 8, generator=generator)
    images = torch.nn.functional.interpolate(small, scale_factor=8, mode="bilinear")
    return RewardInputs(images=images[1:], targets=images[:1])


def compare_time(reward: PatchDreamSim, model: Any) -> None:
    reward(row_of(ROWS, 1))  # loads and warms both
    by_pairs(model, row_of(ROWS, 1), 2)
    ratios, ours, theirs = [], [], []
    for seed in range(ROWS):
        inputs, found = row_of(seed, GROUP), {}
        ours.append(cpu_seconds(lambda inputs=inputs, found=found: found.update(ours=reward(inputs))))
        some = cpu_seconds(lambda inputs=inputs, found=found: found.update(theirs=by_pairs(model, inputs, PAIRS)))
        theirs.append(some * GROUP * (SIDE // PATCH) ** 2 / PAIRS)
        ratios.append(theirs[-1] / ours[-1])
        off = (found["theirs"].mean() - found["ours"][0]).abs().item()  # the 16 pairs of the first sample
        assert off <= 1e-5, off
        print(
            f"row {seed}: ours {ours[-1]:.1f}, pair by pair {theirs[-1]:.1f} CPU seconds, {ratios[-1]:.2f}", flush=True
        )
    embeddings = 2 * GROUP / (GROUP + 1)
    print(f"{ROWS} rows × {GROUP} samples × 16 patches: {sum(ours):.0f} against {sum(theirs):.0f} CPU seconds")
    print(f"fewer by a factor of {statistics.median(ratios):.2f} (by embeddings alone {embeddings:.2f})", flush=True)


def by_pairs(model: Any, inputs: RewardInputs, count: int) -> Tensor:
    """Upstream's similarity of the first patches, one call for each."""
    assert inputs.targets is not None
    images = image_patches(inputs.images, PATCH, PATCH).flatten(0, 1)
    targets = image_patches(inputs.targets, PATCH, PATCH)[0]
    with torch.no_grad():
        pairs = [(to_input(images[k : k + 1]), to_input(targets[k % 16 : k % 16 + 1])) for k in range(count)]
        return torch.cat([1 - model(image, target).reshape(1) for image, target in pairs])


def compare_memory(reward: PatchDreamSim) -> None:
    print(f"\n{'peak above the images, MiB':<32}{'images':>10}{'at once':>12}{f'{MICRO_BATCH} at a time':>18}")
    reward(row_of(0, 1))
    for group in GROUPS:
        inputs = row_of(0, group)
        whole = peak(lambda inputs=inputs: reward(inputs))
        parts = [range(start, start + MICRO_BATCH) for start in range(0, group, MICRO_BATCH)]
        micro = peak(lambda inputs=inputs, parts=parts: [reward(inputs.part([0], part)) for part in parts])
        print(f"{f'G = {group}':<32}{inputs.images.nbytes / MIB:>10.0f}{whole:>12.0f}{micro:>18.0f}", flush=True)


def peak(work: Any) -> float:
    """MiB by which the process grew at the most; Linux lets the mark of the highest be set back.

    What was freed before is given back first, so that it is not used again unseen.
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    with torch.no_grad():
        work()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    """KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def main() -> None:
    if sys.argv[1:] == ["isolated"]:
        isolated_rewards.main()
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = write_weights(MODEL, Path(place) / "weights", make=vit_base)
        reward = PatchDreamSim(type=MODEL, patch=PATCH, batch=BATCH, cache=folder)
        with torch.no_grad():
            compare_memory(reward)
            compare_time(reward, upstream(MODEL, folder))


if __name__ == "__main__":
    main()
