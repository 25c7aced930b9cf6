"""What every embedded editor is trained by, and how it is saved."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

EVERY = 100  # steps between two lines of the log


def optimise(
    modules: Sequence[nn.Module], loss_of: Callable[[int], Tensor], *, steps: int, rate: float, warm_up: int = 100
) -> None:
    """AdamW with warm-up and cosine; the modules end with the exponential average of their weights.

        rate(s) = rate · min(1, (s + 1) / warm_up) · (0.51 + 0.49·cos(π·s / steps))

    Args:
        modules: trained together, and frozen at the end.
        loss_of: the loss of a step, counted from 0.
        steps: how many.
        rate: the highest learning rate.
        warm_up: steps until it is reached.
    """
    parameters = [parameter for module in modules for parameter in module.requires_grad_(True).train().parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    ema, losses, started = EMAModel(parameters, decay=0.998), list[float](), time.monotonic()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = (
            rate * min(1, (step + 1) / warm_up) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
        )
        loss = loss_of(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        ema.step(parameters)
        losses.append(loss.item())
        if len(losses) == EVERY or step == steps - 1:
            mean, seconds = sum(losses) / len(losses), time.monotonic() - started
            print(f"editor {step + 1}/{steps}  loss {mean:.4f}  {seconds:.0f} s", flush=True)
            losses.clear()
    ema.copy_to(parameters)
    for module in modules:
        module.requires_grad_(False).eval()


def save(pipe: DiffusionPipeline, folder: Path, *, half: Sequence[nn.Module]) -> None:
    """Save a pipeline with its large parts in half precision; they are float32 again afterwards.

    Text encoders stay float32, since transformers loads what it finds.
    """
    for module in half:
        module.half()
    pipe.save_pretrained(folder)
    for module in half:
        module.float()
