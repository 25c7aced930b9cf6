"""SPIE's visual prompt: an image whose look is brought into a UNet beside the image that is edited.

Shapes: B samples · C latent channels · h w latents · N prompt tokens · D channels of a prompt token · E inner width.

A cross-attention asks, for each place of the style image's latents and of a second image's, which words of the prompt
it goes with; its answer is a map of C channels beside those that the UNet is given. The UNet's first layer begins with
zeros for them, so that the model starts as it was.

Differs from the paper: its code computes the same attention twice; once is enough. Which of its layers have a bias
is known of none; ours has none in any.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from policies.errors import PolicyError

SEED = 0  # of the one matrix that begins at random


class VisualPrompt(nn.Module):
    """Cross-attention from latents to the words of the prompt.

        q = W_q·[style | second],   k, v = W_k·text, W_v·text,   map = W_out·softmax(qkᵀ / √d)·v

    Args:
        channels: C; the query sees twice as many.
        text: D.
        width: E.
        heads: into which E is divided.

    Reference: SPIE, arXiv 2504.12833, in the form of its code.
    """

    def __init__(self, channels: int, text: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(2 * channels, width, bias=False)
        self.to_k = nn.Linear(text, width, bias=False)
        self.to_v = nn.Linear(text, width, bias=False)
        self.to_out = nn.Linear(width, channels, bias=False)

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """Latents ``[B, 2C, h, w]`` of two images and a prompt ``[B, N, D]`` to a map ``[B, C, h, w]``."""
        images, text = images.to(self.to_q.weight.dtype), text.to(self.to_k.weight.dtype)
        height, width = images.shape[2:]
        query = self._in_heads(self.to_q(images.flatten(2).transpose(1, 2)))
        key, value = self._in_heads(self.to_k(text)), self._in_heads(self.to_v(text))
        found = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.to_out(found.transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(2, (height, width))

    def _in_heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


class PromptedUNet(nn.Module):
    """A UNet whose first layer also sees the map of a visual prompt.

    Args:
        unet: of 2·C input channels: noisy and input image. Its first layer is replaced by a wider one.

    Raises:
        PolicyError: the UNet has no cross-attention to text that the visual prompt could begin with.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet: Any = unet
        self.visual_prompt = beginning_of(unet)
        unet.conv_in = widened(unet.conv_in, self.visual_prompt.to_out.out_features)
        self._no_split_modules = unet._no_split_modules  # the blocks that engines divide

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *,
        prompt: Tensor,
        prompt_images: Tensor,
        shown: Tensor,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """The UNet's own call, and three things more.

        Args:
            sample: ``[B, 2C, h, w]`` noisy and input latents.
            prompt: ``[B, N, D]``, the words that the visual prompt sees; ``encoder_hidden_states`` may be others.
            prompt_images: ``[B, 2C, h, w]``, style image and second image.
            shown: ``[B]``, 1 where the sample has its visual prompt and 0 where it has none.
        """
        found = self.visual_prompt(prompt_images, prompt) * shown.reshape(-1, 1, 1, 1)
        together = torch.cat([sample, found.to(sample)], dim=1)
        return self.unet(together, timestep, encoder_hidden_states=encoder_hidden_states, return_dict=False)


class InOwnPrecision(nn.Conv2d):
    """A convolution that may be trained in float32 inside a half-precision network."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.to(self.weight.dtype)).to(input.dtype)


def widened(layer: nn.Conv2d, channels: int) -> InOwnPrecision:
    """A convolution with further input channels, whose weights are 0: it gives what it gave, whatever they hold.

    >>> wide = widened(nn.Conv2d(1, 1, 1), 2)
    >>> wide.weight.shape, wide.weight[0, 1:].tolist()
    (torch.Size([1, 3, 1, 1]), [[[0.0]], [[0.0]]])
    """
    old = layer.weight.detach()
    wide = InOwnPrecision(
        layer.in_channels + channels,
        layer.out_channels,
        kernel_size=(old.shape[2], old.shape[3]),
        padding=layer.padding,  # type: ignore[arg-type]
        device=old.device,
        dtype=old.dtype,
    )
    with torch.no_grad():
        wide.weight.copy_(torch.cat([old, old.new_zeros(len(old), channels, *old.shape[2:])], dim=1))
        if wide.bias is not None and layer.bias is not None:
            wide.bias.copy_(layer.bias)
    return wide


def beginning_of(unet: UNet2DConditionModel) -> VisualPrompt:
    """The visual prompt that training begins with: weights of the UNet's first attention to text.

    k and v are that layer's; channel c of q is the mean of the c-th part of v's columns; out is random.

    Reference: SPIE, arXiv 2504.12833, its code.
    """
    first: Any = next((module for name, module in unet.named_modules() if name.endswith(".attn2")), None)
    if first is None or first.to_k.in_features != unet.config["cross_attention_dim"]:
        raise PolicyError("policy.images: a visual prompt needs a UNet with cross-attention to text, found none")
    key, value = first.to_k.weight.detach(), first.to_v.weight.detach()
    channels = unet.config["out_channels"]
    made = VisualPrompt(channels, key.shape[1], key.shape[0], first.heads).to(key)
    drawn = torch.empty(made.to_out.weight.shape)
    nn.init.kaiming_uniform_(drawn, a=5**0.5, generator=torch.Generator().manual_seed(SEED))  # as nn.Linear begins
    with torch.no_grad():
        made.to_k.weight.copy_(key)
        made.to_v.weight.copy_(value)
        parts = value.tensor_split(2 * channels, dim=1)
        made.to_q.weight.copy_(torch.stack([part.mean(dim=1) for part in parts], dim=1))
        made.to_out.weight.copy_(drawn)
    return made.requires_grad_(False)
