"""FLUX.1-Kontext as a policy, with any number of conditioning images.

Shapes: P rows · B samples · L noisy tokens · M conditioning tokens · N prompt tokens · D channels of a packed token ·
C H W image.

On the sequence axis the transformer sees [noisy | first image | second image | …]. The first of three position axes
tells the images apart: 0 for the noisy tokens, then 1, 2, …; rows and columns start at 0 for every image, so that
images lie over each other. Attention is full, and all tokens share the noise level of the noisy ones.

Differs from the paper: by default nothing that is known; this is OmniRefiner's figure (arXiv 2511.19990, figure 3)
and FLUX.1-Kontext's own layout for one image. ``attention: restricted`` and ``position_ids: mask`` are variants from
the code of its authors; with several references the latter goes on counting, where theirs knows one.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers import FluxKontextPipeline
from torch import Tensor, nn

from policies.errors import PolicyError
from policies.flow_scheduler import configured_shift
from policies.flux_attention import restricted_mask
from policies.flux_conditioning import FluxConditioning
from policies.flux_positions import image_positions, masked_positions
from policies.image_area import check_sides
from policies.layouts import MixedLayouts, encoded, in_calls, restored
from policies.loading import load_pipeline, place_parts
from policies.memory import tiled, visits
from policies.packed_tokens import PackedTokens
from policies.schedule import FlowSchedule
from policies.settings import FluxKontextSettings, Guidance, Precision
from policies.weights import StageWeights, WeightSet

ADAPTER_TARGETS = (
    r"(single_)?transformer_blocks\.\d+\."
    r"(attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)|ff(_context)?\.net\.(0\.proj|2)|proj_mlp|proj_out)"
)


class FluxKontext:
    """FLUX.1-Kontext seen as a policy: encode, predict a velocity, decode.

    Args:
        pipeline: the diffusers pipeline, all parts in evaluation mode, the transformer on the device.
        settings: what the recipe says.
        device: where latents and images live.
        autocast: compute in bfloat16 with a transformer whose weights are float32.
    """

    def __init__(
        self,
        pipeline: FluxKontextPipeline,
        settings: FluxKontextSettings,
        device: torch.device | str = "cpu",
        *,
        autocast: bool = False,
    ) -> None:
        self.pipeline, self.settings, self.autocast = pipeline, settings, autocast
        self._device = torch.device(device)
        self.tokens = PackedTokens.of(pipeline)
        self._present = visits(self._device, offloaded=settings.offload_encoders)
        self.trained: nn.Module = pipeline.transformer
        self.config = pipeline.transformer.config
        self.dtype: torch.dtype = pipeline.transformer.dtype  # asked before adapters and engines wrap it
        self.stage = StageWeights(pipeline.transformer, ADAPTER_TARGETS)
        if settings.gradient_checkpointing:
            pipeline.transformer.enable_gradient_checkpointing()

    @classmethod
    def load(
        cls,
        settings: FluxKontextSettings,
        device: torch.device | str = "cpu",
        precision: Precision = "fp32",
        *,
        network: bool = True,
    ) -> "FluxKontext":
        """Load an embedded model, a local folder or a hub repository.

        Args:
            precision: numbers of frozen weights. Trained ones are float32: with ``bf16`` adapters lie over a bfloat16
                network, and without adapters the whole network is float32 and computes in bfloat16.
            network: whether the transformer will be called; if not, it stays in host memory.

        Raises:
            PolicyError: it cannot be reached, or is not a FLUX.1-Kontext.
        """
        pipeline = load_pipeline(FluxKontextPipeline, settings, precision, called="FLUX.1-Kontext")
        device = torch.device(device)
        encoders = (pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2)
        place_parts(
            pipeline.transformer, encoders, device, called=network,
            offload_encoders=settings.offload_encoders, quantize=settings.quantize,
        )  # fmt: skip
        return cls(pipeline, settings, device, autocast=precision == "bf16" and settings.lora is None)

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def token_side(self) -> int:
        """Pixels on each side of what one packed token holds: two latents."""
        return self.tokens.side

    def weights(self, which: WeightSet) -> AbstractContextManager[None]:
        return self.stage.use(which)

    @torch.no_grad()
    def encode(
        self,
        prompts: Sequence[str],
        images: Sequence[Sequence[Tensor]],
        masks: Sequence[Sequence[Tensor | None]] | None = None,
        size: tuple[int, int] | None = None,
    ) -> FluxConditioning | MixedLayouts[FluxConditioning]:
        """Embed prompts and conditioning images, once per row.

        Args:
            prompts: P texts, padded to ``prompt_tokens``: FLUX does not mask padding, so its length is fixed for a run.
            images: for each row its images ``[3, H, W]`` in [0, 1]; rows of another number or other sizes of them will
                be calls of their own.
            masks: for each image where the detail is; only ``position_ids: mask`` looks at them.
            size: height and width of the result; by default those of each row's first image.

        Raises:
            PolicyError: a side is not a multiple of the token's, or a mask is missing.
        """
        self._check_prompts(prompts)
        every = masks or [[None] * len(row) for row in images]

        def encode_some(rows: list[int]) -> FluxConditioning:
            words, shown, covers = (
                [prompts[row] for row in rows],
                [images[row] for row in rows],
                [every[row] for row in rows],
            )
            return self._encode(words, shown, covers, size)

        return encoded(encode_some, [tuple(image.shape[1:] for image in row) for row in images])

    def _encode(
        self,
        prompts: Sequence[str],
        images: Sequence[Sequence[Tensor]],
        masks: Sequence[Sequence[Tensor | None]],
        size: tuple[int, int] | None,
    ) -> FluxConditioning:
        """Embed rows whose images have the same number and sizes."""
        layout = [(image.shape[1], image.shape[2]) for image in images[0]]
        encode_prompt: Any = self.pipeline.encode_prompt
        with self._present(self.pipeline.text_encoder, self.pipeline.text_encoder_2):
            prompt, pooled, _ = encode_prompt(
                list(prompts), device=self.device, max_sequence_length=self.settings.prompt_tokens
            )
        packed = [self.encode_target(torch.stack(slot)) for slot in zip(*images, strict=True)]
        if self.settings.position_ids == "mask":
            ids = masked_positions(masks, layout, self.token_side)
        else:
            grids = map(self.tokens.grid, layout)
            ids = torch.cat([image_positions(grid, first) for first, grid in enumerate(grids, start=1)])
        return FluxConditioning(
            prompt=prompt,
            pooled=pooled,
            images=torch.cat(packed, dim=1),
            image_ids=ids.to(self.device),
            layout=(size or layout[0], *layout),
        )

    def conditioning_from(self, saved: Mapping[str, Tensor]) -> FluxConditioning | MixedLayouts[FluxConditioning]:
        return restored(lambda one: FluxConditioning.from_tensors(one, self.device), saved)

    @torch.no_grad()
    def encode_target(self, images: Tensor) -> Tensor:
        """Images ``[P, 3, H, W]`` in [0, 1] to packed latents ``[P, L, D]``."""
        check_sides(tuple(images.shape[2:]), self.token_side)
        images = (2 * images.to(self.device) - 1).to(self.pipeline.vae.dtype)
        encode_image: Any = self.pipeline._encode_vae_image
        with self._present(self.pipeline.vae):
            latents = encode_image(images, generator=None)
        return self.pipeline._pack_latents(latents, *latents.shape).float()

    @torch.no_grad()
    def decode(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Packed latents ``[B, L, D]`` to images ``[B, 3, H, W]`` in [0, 1]."""
        vae, scale = self.pipeline.vae, self.pipeline.vae_scale_factor
        unpacked = self.pipeline._unpack_latents(latents, *size, scale)
        unpacked = (unpacked / vae.config.scaling_factor + vae.config.shift_factor).to(vae.dtype)
        with self._present(vae), tiled(vae, scale) if self.settings.tiled_decode else nullcontext():
            decoded = vae.decode(unpacked, return_dict=False)[0]
        return (decoded.float() / 2 + 0.5).clamp(0, 1)

    def velocity(
        self,
        latents: Tensor,
        sigma: Tensor,
        conditioning: FluxConditioning | MixedLayouts[FluxConditioning],
        guidance: Guidance,
    ) -> Tensor:
        """The predicted velocity ``[B, L, D]``, float32, at noise levels ``sigma`` ``[B]``.

        Args:
            guidance: fed to the network as an embedding, if it was distilled to have one; it costs no second
                evaluation.

        Raises:
            PolicyError: scales by name.
        """
        if isinstance(guidance, Mapping):
            raise PolicyError(f"guidance: expected one number for this model, found {dict(guidance)}")

        def of_one_layout(latents: Tensor, sigma: Tensor, rows: FluxConditioning) -> Tensor:
            calls = [
                self._velocity(latents[some], sigma[some], rows, some, ids, guidance) for some, ids in rows.calls()
            ]
            return torch.cat(calls)

        return in_calls(of_one_layout, conditioning, latents, sigma)

    def _velocity(
        self,
        latents: Tensor,
        sigma: Tensor,
        conditioning: FluxConditioning,
        rows: slice,
        image_ids: Tensor,
        guidance: float,
    ) -> Tensor:
        """One call of the network, for rows of the conditioning that share positions."""
        count, tokens, _ = latents.shape
        prompt, pooled, images = (
            part[rows].to(self.dtype) for part in (conditioning.prompt, conditioning.pooled, conditioning.images)
        )
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            prediction = self.trained(
                hidden_states=torch.cat([latents.to(self.dtype), images], dim=1),
                timestep=sigma.to(self.dtype),
                guidance=torch.full((count,), guidance, device=latents.device) if self.config.guidance_embeds else None,
                pooled_projections=pooled,
                encoder_hidden_states=prompt,
                txt_ids=torch.zeros(prompt.shape[1], 3, device=latents.device),
                img_ids=torch.cat([image_positions(self.tokens.grid(conditioning.size), 0).to(image_ids), image_ids]),
                joint_attention_kwargs=self._attention(prompt.shape[1] + tokens, conditioning.layout[1:]),
                return_dict=False,
            )[0]
        return prediction[:, :tokens].float()

    def _attention(self, prompt_and_noisy: int, layout: Sequence[tuple[int, int]]) -> dict[str, Tensor] | None:
        """What the attention layers are told beyond their inputs; nothing where all tokens see each other."""
        if self.settings.attention == "full":
            return None
        lengths = [rows * columns for rows, columns in map(self.tokens.grid, layout)]
        return {"attention_mask": restricted_mask(prompt_and_noisy, lengths, self.device)}

    def latent_mask(self, masks: Tensor) -> Tensor:
        """The share of each token's pixels that lie inside the mask, ``[P, L, 1]``."""
        return self.tokens.latent_mask(masks)

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.tokens.latent_shape(size)

    def schedule(self, size: tuple[int, int]) -> FlowSchedule:
        return FlowSchedule(self.noise_shift(size))

    def sampling(self) -> AbstractContextManager[None]:
        return nullcontext()

    def noise_shift(self, size: tuple[int, int]) -> float:
        """The shift μ of noise levels for images of (height, width)."""
        return configured_shift(self.pipeline.scheduler, self.latent_shape(size)[0])

    def _check_prompts(self, prompts: Sequence[str]) -> None:
        tokenizer: Any = self.pipeline.tokenizer_2
        for prompt in dict.fromkeys(prompts):
            length = len(tokenizer(prompt, verbose=False).input_ids)
            if length > self.settings.prompt_tokens:
                raise PolicyError(
                    f"the prompt {prompt!r} has {length} tokens, and policy.prompt_tokens is "
                    f"{self.settings.prompt_tokens}; set it to the longest prompt's, at most 512"
                )
