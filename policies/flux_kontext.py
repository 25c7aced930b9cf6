"""FLUX.1-Kontext as a policy, with any number of conditioning images.

Shapes: P rows · B samples · L noisy tokens · M conditioning tokens · N prompt tokens · D channels of a packed token ·
C H W image.

On the sequence axis the transformer sees [noisy | first image | second image | …]. The first of three position axes
tells the images apart: 0 for the noisy tokens, then 1, 2, …; rows and columns start at 0 for every image, so that
images lie over each other. Attention is full, and all tokens share the noise level of the noisy ones.

Differs from the paper: nothing that is known; this is OmniRefiner's figure (arXiv 2511.19990, figure 3) and
FLUX.1-Kontext's own layout for one image.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxKontextPipeline
from torch import Tensor, nn

from policies.errors import PolicyError
from policies.registry import EMBEDDED
from policies.schedule import resolution_shift
from policies.settings import FluxKontextSettings
from policies.weights import StageWeights, WeightSet

ADAPTER_TARGETS = (
    r"(single_)?transformer_blocks\.\d+\."
    r"(attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)|ff(_context)?\.net\.(0\.proj|2)|proj_mlp|proj_out)"
)


@dataclass(frozen=True, kw_only=True)
class FluxConditioning:
    """Embedded prompts and images of P rows, and the positions that all rows share.

    Args:
        prompt: ``[P, N, …]`` from T5.
        pooled: ``[P, …]`` from CLIP.
        images: ``[P, M, D]`` packed latents of the conditioning images.
        image_ids: ``[M, 3]`` positions of these tokens.
        size: height and width of the image to make, in pixels.
    """

    prompt: Tensor
    pooled: Tensor
    images: Tensor
    image_ids: Tensor
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.prompt)

    def __getitem__(self, rows: slice) -> "FluxConditioning":
        return FluxConditioning(
            prompt=self.prompt[rows],
            pooled=self.pooled[rows],
            images=self.images[rows],
            image_ids=self.image_ids,
            size=self.size,
        )

    def repeat(self, times: int) -> "FluxConditioning":
        prompt, pooled, images = (t.repeat_interleave(times, dim=0) for t in (self.prompt, self.pooled, self.images))
        return FluxConditioning(prompt=prompt, pooled=pooled, images=images, image_ids=self.image_ids, size=self.size)

    def join(self, others: Sequence["FluxConditioning"]) -> "FluxConditioning":
        """These rows and then those of others.

        Raises:
            PolicyError: rows differ in number or size of images.
        """
        parts = [self, *others]
        if any(part.size != self.size or not torch.equal(part.image_ids, self.image_ids) for part in parts):
            raise PolicyError("the rows of one call must have images of the same number and sizes")
        return FluxConditioning(
            prompt=torch.cat([part.prompt for part in parts]),
            pooled=torch.cat([part.pooled for part in parts]),
            images=torch.cat([part.images for part in parts]),
            image_ids=self.image_ids,
            size=self.size,
        )


class FluxKontext:
    """FLUX.1-Kontext seen as a policy: encode, predict a velocity, decode.

    Args:
        pipeline: the diffusers pipeline, all parts in evaluation mode.
        settings: what the recipe says.
    """

    def __init__(self, pipeline: FluxKontextPipeline, settings: FluxKontextSettings) -> None:
        self.pipeline, self.settings = pipeline, settings
        self.trained: nn.Module = pipeline.transformer
        self.config = pipeline.transformer.config
        self.stage = StageWeights(pipeline.transformer, ADAPTER_TARGETS)

    @classmethod
    def load(cls, settings: FluxKontextSettings, device: torch.device | str = "cpu") -> "FluxKontext":
        """Load an embedded model, a local folder or a hub repository.

        Raises:
            PolicyError: it is none of them, or not a FLUX.1-Kontext.
        """
        place = EMBEDDED.get(settings.checkpoint, Path(settings.checkpoint))
        try:
            source = str(place) if place.is_dir() else settings.checkpoint
            pipeline = FluxKontextPipeline.from_pretrained(source, revision=settings.revision, dtype=torch.float32)
        except (OSError, ValueError) as error:
            known = ", ".join(EMBEDDED)
            raise PolicyError(
                f"policy.checkpoint: cannot load {settings.checkpoint!r} as FLUX.1-Kontext: expected a folder with "
                f"model_index.json, a hub repository that can be reached, or one of {known} ({error})"
            ) from error
        for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
            part.to(device).requires_grad_(False).eval()
        return cls(pipeline, settings)

    @property
    def device(self) -> torch.device:
        return next(self.pipeline.vae.parameters()).device

    @property
    def token_side(self) -> int:
        """Pixels on each side of what one packed token holds: two latents."""
        return 2 * self.pipeline.vae_scale_factor

    def weights(self, which: WeightSet) -> AbstractContextManager[None]:
        return self.stage.use(which)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], images: Sequence[Sequence[Tensor]]) -> FluxConditioning:
        """Embed prompts and conditioning images, once per row.

        Args:
            prompts: P texts, padded to ``prompt_tokens``: FLUX does not mask padding, so its length is fixed for a run.
            images: for each row the same number of images ``[3, H, W]`` in [0, 1]; the first has the size of the
                result.

        Raises:
            PolicyError: rows differ in number or size of images, or a side is not a multiple of the token's.
        """
        layouts = {tuple((image.shape[1], image.shape[2]) for image in row) for row in images}
        if len(layouts) != 1:
            raise PolicyError(
                f"the rows of one call must have images of the same number and sizes, found {sorted(layouts)}"
            )
        (layout,) = layouts
        self._check_prompts(prompts)
        encode_prompt: Any = self.pipeline.encode_prompt
        prompt, pooled, _ = encode_prompt(
            list(prompts), device=self.device, max_sequence_length=self.settings.prompt_tokens
        )
        packed = [self.encode_target(torch.stack(slot)) for slot in zip(*images, strict=True)]
        ids = torch.cat([self._position_ids(size, axis) for axis, size in enumerate(layout, start=1)])
        return FluxConditioning(
            prompt=prompt, pooled=pooled, images=torch.cat(packed, dim=1), image_ids=ids, size=layout[0]
        )

    @torch.no_grad()
    def encode_target(self, images: Tensor) -> Tensor:
        """Images ``[P, 3, H, W]`` in [0, 1] to packed latents ``[P, L, D]``."""
        self._check_size(tuple(images.shape[2:]))
        images = 2 * images.to(self.device, self.pipeline.vae.dtype) - 1
        encode_image: Any = self.pipeline._encode_vae_image
        latents = encode_image(images, generator=None)
        return self.pipeline._pack_latents(latents, *latents.shape).float()

    @torch.no_grad()
    def decode(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Packed latents ``[B, L, D]`` to images ``[B, 3, H, W]`` in [0, 1]."""
        vae = self.pipeline.vae
        unpacked = self.pipeline._unpack_latents(latents, *size, self.pipeline.vae_scale_factor)
        unpacked = unpacked / vae.config.scaling_factor + vae.config.shift_factor
        return (vae.decode(unpacked.to(vae.dtype), return_dict=False)[0].float() / 2 + 0.5).clamp(0, 1)

    def velocity(self, latents: Tensor, sigma: Tensor, conditioning: FluxConditioning, guidance: float) -> Tensor:
        """The predicted velocity ``[B, L, D]``, float32, at noise levels ``sigma`` ``[B]``.

        Args:
            guidance: fed to the network as an embedding, if it was distilled to have one; it costs no second
                evaluation.
        """
        dtype = self.pipeline.transformer.dtype
        count, tokens, _ = latents.shape
        ids = torch.cat([self._position_ids(conditioning.size, 0), conditioning.image_ids])
        prediction = self.trained(
            hidden_states=torch.cat([latents.to(dtype), conditioning.images.to(dtype)], dim=1),
            timestep=sigma.to(dtype),
            guidance=torch.full((count,), guidance, device=latents.device) if self.config.guidance_embeds else None,
            pooled_projections=conditioning.pooled,
            encoder_hidden_states=conditioning.prompt,
            txt_ids=torch.zeros(conditioning.prompt.shape[1], 3, device=latents.device),
            img_ids=ids,
            return_dict=False,
        )[0]
        return prediction[:, :tokens].float()

    def latent_mask(self, masks: Tensor) -> Tensor:
        """The share of each token's pixels that lie inside the mask, ``[P, L, 1]``."""
        return nn.functional.avg_pool2d(masks, self.token_side).flatten(1).unsqueeze(2)

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int]:
        self._check_size(size)
        return (size[0] // self.token_side) * (size[1] // self.token_side), self.config.in_channels

    def noise_shift(self, size: tuple[int, int]) -> float:
        scheduler = self.pipeline.scheduler.config
        return resolution_shift(
            self.latent_shape(size)[0],
            base_tokens=scheduler.get("base_image_seq_len", 256),
            max_tokens=scheduler.get("max_image_seq_len", 4096),
            base_shift=scheduler.get("base_shift", 0.5),
            max_shift=scheduler.get("max_shift", 1.15),
        )

    def _position_ids(self, size: tuple[int, int], axis: int) -> Tensor:
        rows, columns = size[0] // self.token_side, size[1] // self.token_side
        ids = self.pipeline._prepare_latent_image_ids(1, rows, columns, self.device, torch.float32)
        ids[:, 0] = axis
        return ids

    def _check_prompts(self, prompts: Sequence[str]) -> None:
        tokenizer: Any = self.pipeline.tokenizer_2
        for prompt in dict.fromkeys(prompts):
            length = len(tokenizer(prompt, verbose=False).input_ids)
            if length > self.settings.prompt_tokens:
                raise PolicyError(
                    f"the prompt {prompt!r} has {length} tokens, and policy.prompt_tokens is "
                    f"{self.settings.prompt_tokens}; set it to the longest prompt's, at most 512"
                )

    def _check_size(self, size: tuple[int, ...]) -> None:
        side = self.token_side
        if size[0] % side or size[1] % side:
            raise PolicyError(
                f"images of {size[0]} × {size[1]} pixels: both sides must be multiples of {side} for this model"
            )
