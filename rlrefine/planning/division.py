"""What an engine makes of one process's memory: what it divides among N processes, and what it needs for itself.

With T bytes of trained weights, M of optimiser state (two running means, 2·T in AdamW) and B of frozen weights:

    ddp       as one process, and buckets of T that gradients are averaged in
    ZeRO-1    (T + M)/N of master weights and optimiser, in place of M
    ZeRO-2    and T/N of gradients, in place of T
    ZeRO-3    and (T + B)/N of weights, of which those in use are gathered
    fsdp2     T/N, M/N, gradients T/N, B/N; two blocks gathered

Source: ZeRO, arXiv 1910.02054, section 5, for what is divided; DeepSpeed 0.19's settings for its buckets and for what
it gathers, and its tensors in a run for what it keeps besides (docs/plan.md).
"""

from collections.abc import Callable
from dataclasses import dataclass

from rlrefine.planning.components import (
    BASE,
    BUFFERS,
    EARLIER,
    EVALUATION_ROLLOUT,
    GATHERED,
    GRADIENTS,
    NETWORK_PHASES,
    OPTIMIZER,
    SAVE,
    STEP,
    TEMPORARY,
    TRAINED,
    UPDATE,
    Bytes,
    Phases,
)
from rlrefine.recipe.schema import Engine
from rlrefine.training.backends import REDUCE_BUCKET

MAX_LIVE = 1_000_000_000  # numbers that ZeRO-3 gathers at most: stage3_max_live_parameters
PREFETCH = 50_000_000  # numbers that are under way at once: stage3_prefetch_bucket_size
PERSISTENT = 100_000  # smaller parameters stay gathered: stage3_param_persistence_threshold


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Sizes of the network's parameters, in bytes unless said otherwise.

    Args:
        trained: T, with its own precision.
        moments: M, the optimiser's state.
        number: bytes of one trained number.
        frozen: B, adapters of earlier stages with it.
        small: of B, what ZeRO-3 keeps gathered.
        frozen_number: bytes of one frozen number.
        block: of the largest block, what FSDP gathers at once.
    """

    trained: int
    moments: int
    number: int
    frozen: int
    small: int
    frozen_number: int
    block: int


def divide(phases: Phases, engine: Engine, processes: int, weights: Weights, *, on_gpu: bool) -> Phases:
    """The memory of one of ``processes`` under an engine, from that of one alone with its share of the rows.

    Args:
        on_gpu: what is kept in host memory takes none of the device's then; on a CPU they are one.
    """
    change = ENGINES[engine.name]
    divided = {name: change(name, found, engine, processes, weights) for name, found in phases.items()}
    if engine.name == "deepspeed" and engine.offload is not None and on_gpu:
        away = {OPTIMIZER} if engine.offload == "optimizer" else {OPTIMIZER, TRAINED, BASE, EARLIER}
        divided = {name: {k: v for k, v in found.items() if k not in away} for name, found in divided.items()}
    return {name: {part: size for part, size in found.items() if size} for name, found in divided.items()}


def _single(phase: str, found: Bytes, engine: Engine, processes: int, weights: Weights) -> Bytes:
    return found


def _ddp(phase: str, found: Bytes, engine: Engine, processes: int, weights: Weights) -> Bytes:
    return found | {BUFFERS: weights.trained}


def _deepspeed(phase: str, found: Bytes, engine: Engine, processes: int, weights: Weights) -> Bytes:
    share = weights.trained // processes
    masters = {OPTIMIZER: share + weights.moments // processes}
    bucket = min(weights.trained, REDUCE_BUCKET * weights.number)
    if engine.zero_stage == 3:
        divided = {TRAINED: share, BUFFERS: bucket, GRADIENTS: share}
        divided |= {name: found.get(name, 0) // processes for name in (BASE, EARLIER)}
        divided[GATHERED] = _gathered(phase, weights)
        if phase == UPDATE:
            divided[GRADIENTS] += bucket  # until they are added up
    else:
        divided = {BUFFERS: weights.trained + (bucket if phase == UPDATE else 0)}  # it keeps what it flattened
        if phase in (UPDATE, STEP):
            divided[GRADIENTS] = share if engine.zero_stage == 2 or phase == STEP else weights.trained
    if phase == STEP:  # on flat parameters, so its temporary values are as large
        divided[TEMPORARY] = (1 if engine.zero_stage == 3 else 2) * share
    if phase == SAVE:  # what is divided is put together a few blocks at a time, beside copies of these
        divided[TEMPORARY] = found.get(TEMPORARY, 0) + 2 * min(weights.trained, 2 * weights.block)
    return found | masters | divided


def _gathered(phase: str, weights: Weights) -> int:
    """Weights that ZeRO-3 has put together: as many as it may where the network is called, else the small ones."""
    number, whole = max(weights.number, weights.frozen_number), weights.trained + weights.frozen
    if phase == EVALUATION_ROLLOUT:  # its weights have just been exchanged, so all are gathered anew
        return min(whole, MAX_LIVE * number) + min(whole, PREFETCH * number)
    if phase in NETWORK_PHASES:
        return min(whole, MAX_LIVE * number)
    return weights.small + (weights.trained if phase == STEP else 0)


def _fsdp2(phase: str, found: Bytes, engine: Engine, processes: int, weights: Weights) -> Bytes:
    parts = (BASE, EARLIER, TRAINED, GRADIENTS, OPTIMIZER)
    gathered = {GATHERED: 2 * weights.block} if phase in NETWORK_PHASES else {}
    return found | {name: found[name] // processes for name in parts if name in found} | gathered


ENGINES: dict[str, Callable[[str, Bytes, Engine, int, Weights], Bytes]] = {
    "single": _single,
    "ddp": _ddp,
    "deepspeed": _deepspeed,
    "fsdp2": _fsdp2,
}
