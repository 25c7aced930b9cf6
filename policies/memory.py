"""Fit a large model on one device: parts that visit it, images decoded in tiles, frozen weights in 8 bits."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from policies.errors import PolicyError
from policies.settings import Quantization

HOME = torch.device("cpu")
TILE = 512  # pixels on each side of a tile; FLUX's autoencoder would not begin to cut below 1024


def host_copies(values: Iterable[tuple[str, Tensor]], *, keep: bool = True) -> dict[str, Tensor]:
    """Copies of named values in host memory, taken one by one, so that never more than one of them is on the device.

    Args:
        keep: whether to; several processes that put each value together must all go through them, and one may keep
            nothing.
    """
    copies: dict[str, Tensor] = {}
    for name, value in values:
        if keep:
            copies[name] = value.detach().to(HOME, copy=True)
    return copies


@contextmanager
def visiting(device: torch.device, *parts: nn.Module) -> Iterator[None]:
    """Parts that live in host memory are on the device inside the block, and back in host memory afterwards."""
    try:
        for part in parts:
            part.to(device)
        yield
    finally:
        for part in parts:
            part.to(HOME)


def visits(device: torch.device, *, offloaded: bool) -> Callable[..., AbstractContextManager[None]]:
    """What brings parts to the device for as long as they are used: ``visiting`` if they live elsewhere, else nothing.

    Args:
        offloaded: whether they live in host memory.
    """
    return partial(visiting, device) if offloaded else lambda *parts: nullcontext()


@contextmanager
def tiled(autoencoder: Any, pixels_per_latent: int) -> Iterator[None]:
    """Decode one image at a time inside the block, and each in overlapping tiles whose seams are blended.

    Only decoding: encoding in tiles would change what the network is shown, and the autoencoder's switch is for both.
    """
    before = autoencoder.tile_sample_min_size, autoencoder.tile_latent_min_size
    autoencoder.tile_sample_min_size, autoencoder.tile_latent_min_size = TILE, TILE // pixels_per_latent
    autoencoder.enable_tiling()
    autoencoder.enable_slicing()
    try:
        yield
    finally:
        autoencoder.disable_tiling()
        autoencoder.disable_slicing()
        autoencoder.tile_sample_min_size, autoencoder.tile_latent_min_size = before


@contextmanager
def tiled_by_stride(autoencoder: Any) -> Iterator[None]:
    """As ``tiled``, for autoencoders whose tiles have a stride: a quarter of each lies over the next."""
    names = [f"tile_sample_{what}_{side}" for what in ("min", "stride") for side in ("height", "width")]
    before = {name: getattr(autoencoder, name) for name in names}
    autoencoder.enable_tiling(TILE, TILE, TILE * 3 // 4, TILE * 3 // 4)
    autoencoder.enable_slicing()
    try:
        yield
    finally:
        autoencoder.disable_tiling()
        autoencoder.disable_slicing()
        for name, value in before.items():
            setattr(autoencoder, name, value)


def quantize_blocks(network: nn.Module, kind: Quantization, device: torch.device) -> None:
    """Store the weights of all linear layers in the network's blocks in 8 bits, each output channel with its scale.

    They are multiplied out where they are used, so gradients pass through them to adapters, and inputs keep their
    precision. Embeddings and the last layer stay as they are.

    Raises:
        PolicyError: torchao is not installed.
    """
    try:
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise PolicyError(
            f"policy.quantize: {kind} needs torchao: pip install 'rlrefine[quantize]' ({error})"
        ) from error
    config = {"int8": Int8WeightOnlyConfig, "float8": Float8WeightOnlyConfig}[kind]()

    def in_a_block(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and "transformer_blocks." in name

    quantize_(network, config, filter_fn=in_a_block, device=device)
