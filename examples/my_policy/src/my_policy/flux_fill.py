"""FLUX.1-Fill as a policy: it is shown the draft without what a mask covers, and the mask, and paints that anew.

Shapes: P rows · B samples · L noisy tokens · N prompt tokens · D channels of a packed token · M channels of what is
shown beside it · C H W image.

On the channel axis the transformer sees [noisy | masked draft | mask]; of the mask each token holds all its pixels.

Differs from the diffusers pipeline: the autoencoder's most likely latents of the masked draft are shown, not a draw, so
that a row is encoded the same way each time.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers import FluxFillPipeline
from my_policy import FluxFillSettings
from torch import Tensor, nn

from policies.errors import PolicyError
from policies.flow_scheduler import configured_shift
from policies.flux_conditioning import FluxConditioning
from policies.flux_kontext import ADAPTER_TARGETS
from policies.flux_positions import image_positions
from policies.image_area import check_sides
from policies.loading import load_pipeline, place_parts
from policies.packed_tokens import PackedTokens
from policies.schedule import FlowSchedule
from policies.settings import Guidance, Precision
from policies.weights import StageWeights, WeightSet


class FluxFill:
    """FLUX.1-Fill seen as a policy: encode, predict a velocity, decode.

    Args:
        pipeline: the diffusers pipeline, all parts in evaluation mode.
        settings: what the recipe says.
        device: where latents and images live.
        autocast: compute in bfloat16 with a transformer whose weights are float32.
    """

    def __init__(
        self,
        pipeline: FluxFillPipeline,
        settings: FluxFillSettings,
        device: torch.device | str = "cpu",
        *,
        autocast: bool = False,
    ) -> None:
        self.pipeline, self.settings, self.autocast = pipeline, settings, autocast
        self.device = torch.device(device)
        self.trained: nn.Module = pipeline.transformer
        self.config, self.dtype = pipeline.transformer.config, pipeline.transformer.dtype
        self.tokens = PackedTokens(2 * pipeline.vae_scale_factor, self.config.out_channels)
        self.stage = StageWeights(pipeline.transformer, ADAPTER_TARGETS)

    @classmethod
    def load(
        cls,
        settings: FluxFillSettings,
        device: torch.device | str = "cpu",
        precision: Precision = "fp32",
        *,
        network: bool = True,
    ) -> "FluxFill":
        """Load a local folder or a hub repository.

        Args:
            precision: numbers of frozen weights; trained ones are float32.
            network: whether the transformer will be called; if not, it stays in host memory.

        Raises:
            PolicyError: it cannot be reached, or is not a FLUX.1-Fill.
        """
        pipeline = load_pipeline(FluxFillPipeline, settings, precision, called="FLUX.1-Fill")
        encoders = (pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2)
        place_parts(pipeline.transformer, encoders, torch.device(device), called=network, offload_encoders=False)
        return cls(pipeline, settings, device, autocast=precision == "bf16" and settings.lora is None)

    def weights(self, which: WeightSet) -> AbstractContextManager[None]:
        return self.stage.use(which)

    def sampling(self) -> AbstractContextManager[None]:
        return nullcontext()

    @torch.no_grad()
    def encode(
        self,
        prompts: Sequence[str],
        images: Sequence[Sequence[Tensor]],
        masks: Sequence[Sequence[Tensor | None]] | None = None,
        size: tuple[int, int] | None = None,
    ) -> FluxConditioning:
        """Embed prompts, drafts and masks, once per row.

        Args:
            prompts: P texts, padded to ``prompt_tokens``.
            images: for each row its draft ``[3, H, W]`` in [0, 1], all of one size, which is that of the result.
            masks: for each row ``[1, H, W]``, painted anew where above 0.5.
            size: not used.

        Raises:
            PolicyError: a row has no mask, a prompt is too long, or a side is no multiple of the token's.
        """
        given = [mask for row in masks or () for mask in row if mask is not None]
        if len(given) != len(prompts):
            raise PolicyError("flux_fill paints what a mask covers: every row needs a mask, and one has none")
        self._check_prompts(prompts)
        encode_prompt: Any = self.pipeline.encode_prompt
        prompt, pooled, _ = encode_prompt(
            list(prompts), prompt_2=None, device=self.device, max_sequence_length=self.settings.prompt_tokens
        )
        draft = torch.stack([image for image, *_ in images]).to(self.device)
        mask = (torch.stack(given).to(self.device) > 0.5).to(draft)
        pixels = self._packed(nn.functional.pixel_unshuffle(mask, self.pipeline.vae_scale_factor))
        height, width = draft.shape[2:]
        return FluxConditioning(
            prompt=prompt,
            pooled=pooled,
            images=torch.cat([self._latents((2 * draft - 1) * (1 - mask)), pixels], dim=2),
            image_ids=image_positions(self.tokens.grid((height, width)), 0).to(self.device),
            layout=((height, width),),
        )

    def conditioning_from(self, saved: Mapping[str, Tensor]) -> FluxConditioning:
        return FluxConditioning.from_tensors(saved, self.device)

    @torch.no_grad()
    def encode_target(self, images: Tensor) -> Tensor:
        """Images ``[P, 3, H, W]`` in [0, 1] to packed latents ``[P, L, D]``."""
        return self._latents(2 * images.to(self.device) - 1)

    def _latents(self, pixels: Tensor) -> Tensor:
        """The most likely latents of pixels in [−1, 1], packed."""
        check_sides(tuple(pixels.shape[2:]), self.tokens.side)
        vae: Any = self.pipeline.vae
        found = vae.encode(pixels.to(vae.dtype)).latent_dist.mode()
        return self._packed((found - vae.config.shift_factor) * vae.config.scaling_factor).float()

    def _packed(self, latents: Tensor) -> Tensor:
        return self.pipeline._pack_latents(latents, *latents.shape)

    @torch.no_grad()
    def decode(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Packed latents ``[B, L, D]`` to images ``[B, 3, H, W]`` in [0, 1]."""
        vae: Any = self.pipeline.vae
        unpacked = self.pipeline._unpack_latents(latents, *size, self.pipeline.vae_scale_factor)
        unpacked = (unpacked / vae.config.scaling_factor + vae.config.shift_factor).to(vae.dtype)
        return (vae.decode(unpacked, return_dict=False)[0].float() / 2 + 0.5).clamp(0, 1)

    def velocity(self, latents: Tensor, sigma: Tensor, conditioning: FluxConditioning, guidance: Guidance) -> Tensor:
        """The predicted velocity ``[B, L, D]``, float32, at noise levels ``sigma`` ``[B]``.

        Args:
            guidance: fed to the network as an embedding; 30 is usual.

        Raises:
            PolicyError: scales by name.
        """
        if isinstance(guidance, Mapping):
            raise PolicyError(f"guidance: expected one number for this model, found {dict(guidance)}")
        shown = torch.cat([latents, conditioning.images.to(latents)], dim=2).to(self.dtype)
        scale = torch.full((len(latents),), guidance, device=latents.device) if self.config.guidance_embeds else None
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            predicted = self.trained(
                hidden_states=shown,
                timestep=sigma.to(self.dtype),
                guidance=scale,
                pooled_projections=conditioning.pooled.to(self.dtype),
                encoder_hidden_states=conditioning.prompt.to(self.dtype),
                txt_ids=torch.zeros(conditioning.prompt.shape[1], 3, device=latents.device),
                img_ids=conditioning.image_ids,
                return_dict=False,
            )[0]
        return predicted.float()

    def latent_mask(self, masks: Tensor) -> Tensor:
        """The share of each token's pixels that lie inside the mask, ``[P, L, 1]``."""
        return self.tokens.latent_mask(masks)

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.tokens.latent_shape(size)

    def schedule(self, size: tuple[int, int]) -> FlowSchedule:
        return FlowSchedule(configured_shift(self.pipeline.scheduler, self.latent_shape(size)[0]))

    def _check_prompts(self, prompts: Sequence[str]) -> None:
        tokenizer: Any = self.pipeline.tokenizer_2
        for prompt in dict.fromkeys(prompts):
            length = len(tokenizer(prompt, verbose=False).input_ids)
            if length > self.settings.prompt_tokens:
                raise PolicyError(
                    f"the prompt {prompt!r} has {length} tokens, and policy.prompt_tokens is "
                    f"{self.settings.prompt_tokens}; set it to the longest prompt's, at most 512"
                )
