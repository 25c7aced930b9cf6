"""InstructPix2Pix as a policy: Stable Diffusion's UNet, shown the image to edit, and if wanted SPIE's visual prompt.

Shapes: P rows · B samples · C h w latents · N prompt tokens · D channels of a prompt token.

The UNet predicts ε at timesteps of its own; both stay in this file. Guidance has one scale for each condition, and
all branches go through the UNet in one batch:

    ε = ε(∅,∅) + s_image·[ε(I,∅) − ε(∅,∅)] + s_text·[ε(I,T) − ε(I,∅)]
    ε = ε(∅,∅,∅) + s_image·[ε(I,∅,∅) − ε(∅,∅,∅)] + s_style·[ε(I,S,∅) − ε(I,∅,∅)] + s_text·[ε(I,S,T) − ε(I,S,∅)]

Differs from the papers: nothing that is known of InstructPix2Pix (arXiv 2211.09800). SPIE (arXiv 2504.12833) gives
its visual prompt the input image when it samples and the noisy latents when it trains; ours is given the input image
in both, unless ``visual_prompt: as_released``. Whether its noisy latents are those that the UNet is given, as here, or
k-diffusion's is not known.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from diffusers import StableDiffusionInstructPix2PixPipeline
from torch import Tensor, nn

from policies.diffusion_schedule import DiffusionSchedule
from policies.errors import PolicyError
from policies.guidance import branch_weights, guided, scales_of
from policies.image_area import check_sides
from policies.loading import load_pipeline, place_parts
from policies.memory import tiled, visits
from policies.pix2pix_conditioning import Pix2PixConditioning
from policies.schedule import unit_variance, velocity_from_epsilon
from policies.settings import Guidance, InstructPix2PixSettings, Precision
from policies.visual_prompt import PromptedUNet
from policies.weights import StageWeights, WeightSet

ADAPTER_TARGETS = r"(.*\.)?attn[12]\.(to_[qkv]|to_out\.0)"
TRAINED_WHOLE = r"(unet\.conv_in|visual_prompt)\..+"


class InstructPix2Pix:
    """InstructPix2Pix seen as a policy: encode, predict a velocity, decode.

    Args:
        pipeline: the diffusers pipeline, all parts in evaluation mode, the UNet on the device. With a visual prompt its
            UNet gets a wider first layer, and can no longer be called by the pipeline.
        settings: what the recipe says.
        device: where latents and images live.
        autocast: compute in bfloat16 with a UNet whose weights are float32.

    Raises:
        PolicyError: UNet or scheduler are of another kind.
    """

    def __init__(
        self,
        pipeline: StableDiffusionInstructPix2PixPipeline,
        settings: InstructPix2PixSettings,
        device: torch.device | str = "cpu",
        *,
        autocast: bool = False,
    ) -> None:
        self.pipeline, self.settings, self.autocast = pipeline, settings, autocast
        self._device = torch.device(device)
        self._present = visits(self._device, offloaded=settings.offload_encoders)
        unet: Any = pipeline.unet
        self.channels: int = pipeline.vae.config["latent_channels"]
        if unet.config.in_channels != 2 * self.channels:
            raise PolicyError(
                f"policy.checkpoint: its UNet takes {unet.config.in_channels} channels, expected {2 * self.channels}, "
                f"for noisy latents and those of the image to edit"
            )
        self.dtype: torch.dtype = unet.dtype  # asked before adapters and engines wrap it
        self._times, self._sampling = DiffusionSchedule(pipeline.scheduler), False
        if settings.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        prompted = "style" in settings.scales
        self.trained: nn.Module = PromptedUNet(unet) if prompted else unet
        self.stage = StageWeights(self.trained, ADAPTER_TARGETS, TRAINED_WHOLE if prompted else None)

    @classmethod
    def load(
        cls,
        settings: InstructPix2PixSettings,
        device: torch.device | str = "cpu",
        precision: Precision = "fp32",
        *,
        network: bool = True,
    ) -> "InstructPix2Pix":
        """Load an embedded model, a local folder or a hub repository, without its safety checker.

        Args:
            precision: numbers of frozen weights. Trained ones are float32: with ``bf16`` adapters and what is trained
                beside them lie over a bfloat16 network, and without adapters the whole network is float32 and computes
                in bfloat16.
            network: whether the UNet will be called; if not, it stays in host memory.

        Raises:
            PolicyError: it cannot be reached, or is not an InstructPix2Pix.
        """
        without: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipeline = load_pipeline(
            StableDiffusionInstructPix2PixPipeline, settings, precision,
            called="InstructPix2Pix", network="unet", **without,
        )  # fmt: skip
        device, encoders = torch.device(device), (pipeline.vae, pipeline.text_encoder)
        place_parts(pipeline.unet, encoders, device, called=network, offload_encoders=settings.offload_encoders)
        return cls(pipeline, settings, device, autocast=precision == "bf16" and settings.lora is None)

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def latent_side(self) -> int:
        """Pixels on each side of what one latent holds."""
        return self.pipeline.vae_scale_factor

    def weights(self, which: WeightSet) -> AbstractContextManager[None]:
        return self.stage.use(which)

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Rollouts are made inside the block; ``visual_prompt: as_released`` looks at something else in them."""
        before, self._sampling = self._sampling, True
        try:
            yield
        finally:
            self._sampling = before

    @torch.no_grad()
    def encode(
        self,
        prompts: Sequence[str],
        images: Sequence[Sequence[Tensor]],
        masks: Sequence[Sequence[Tensor | None]] | None = None,
        size: tuple[int, int] | None = None,
    ) -> Pix2PixConditioning:
        """Embed prompts and conditioning images, once per row.

        Args:
            prompts: P texts, padded to the length that CLIP was trained with.
            images: for each row the image to edit, and for a policy with a visual prompt that one, ``[3, H, W]`` in
                [0, 1] and all of one size.
            masks, size: not used.

        Raises:
            PolicyError: images differ in number or size, a side is not a multiple of a latent's, or a prompt is too
                long.
        """
        self._check_images(images)
        self._check_prompts(prompts)
        encode_prompt: Any = self.pipeline._encode_prompt
        with self._present(self.pipeline.text_encoder):
            prompt, empty = (encode_prompt(texts, self.device, 1, False) for texts in (list(prompts), [""]))
        image, *style = [self._latents(torch.stack(slot)) for slot in zip(*images, strict=True)]
        return Pix2PixConditioning(prompt=prompt, empty=empty, image=image, style=style[0] if style else None)

    def conditioning_from(self, saved: Mapping[str, Tensor]) -> Pix2PixConditioning:
        return Pix2PixConditioning.from_tensors(saved, self.device)

    def encode_target(self, images: Tensor) -> Tensor:
        """Images ``[P, 3, H, W]`` in [0, 1] to latents ``[P, C, h, w]`` of about unit variance."""
        return self.pipeline.vae.config["scaling_factor"] * self._latents(images)

    @torch.no_grad()
    def _latents(self, images: Tensor) -> Tensor:
        """The most likely latents of images, not scaled, as InstructPix2Pix is shown them."""
        check_sides(tuple(images.shape[2:]), self.latent_side)
        vae = self.pipeline.vae
        with self._present(vae):
            found: Any = vae.encode((2 * images.to(self.device) - 1).to(vae.dtype))
            return found.latent_dist.mode().float()

    @torch.no_grad()
    def decode(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Latents ``[B, C, h, w]`` to images ``[B, 3, H, W]`` in [0, 1]."""
        vae, scale = self.pipeline.vae, self.pipeline.vae_scale_factor
        given = (latents / vae.config["scaling_factor"]).to(vae.dtype)
        with self._present(vae), tiled(vae, scale) if self.settings.tiled_decode else nullcontext():
            decoded = vae.decode(given, return_dict=False)[0]
        return (decoded.float() / 2 + 0.5).clamp(0, 1)

    def velocity(self, latents: Tensor, sigma: Tensor, conditioning: Pix2PixConditioning, guidance: Guidance) -> Tensor:
        """The predicted velocity ``[B, C, h, w]``, float32, at noise levels ``sigma`` ``[B]`` below 1.

        Args:
            guidance: the scale of each condition: image, style if the policy has a visual prompt, and text; 1 for none.
                A branch whose weight is then 0 is not computed.

        Raises:
            PolicyError: another condition has a scale, or one has none.
        """
        weights = branch_weights(*scales_of(guidance, self.settings.scales))
        given = unit_variance(latents.float(), sigma)
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            epsilon = guided(self._network, given, sigma, self._branches(conditioning, given), weights)
        return velocity_from_epsilon(latents.float(), epsilon, sigma)

    def _network(self, given: Tensor, sigma: Tensor, *, image: Tensor, text: Tensor, **prompting: Tensor) -> Tensor:
        """One call of the network, for the samples of all branches."""
        return self.trained(
            torch.cat([given, image], dim=1).to(self.dtype),
            self._times.timesteps(sigma),
            encoder_hidden_states=text.to(self.dtype),
            return_dict=False,
            **prompting,
        )[0]

    def _branches(self, shown: Pix2PixConditioning, given: Tensor) -> list[dict[str, Tensor]]:
        """The conditions of each branch, each with one more than the one before it."""
        nothing, wordless = torch.zeros_like(shown.image), shown.empty.expand_as(shown.prompt)
        without = {"image": nothing, "text": wordless}
        edited = {"image": shown.image, "text": wordless}
        told = {"image": shown.image, "text": shown.prompt}
        if shown.style is None:
            return [without, edited, told]
        as_released = self.settings.visual_prompt == "as_released" and not self._sampling
        second = given if as_released else shown.image
        prompting = {"prompt": shown.prompt, "prompt_images": torch.cat([shown.style, second], dim=1)}
        hidden = {**prompting, "shown": given.new_zeros(len(given))}
        present = {**prompting, "shown": given.new_ones(len(given))}
        return [without | hidden, edited | hidden, edited | present, told | present]

    def latent_mask(self, masks: Tensor) -> Tensor:
        """The share of each latent's pixels that lie inside the mask, ``[P, 1, h, w]``."""
        return nn.functional.avg_pool2d(masks, self.latent_side)

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        check_sides(size, self.latent_side)
        return self.channels, size[0] // self.latent_side, size[1] // self.latent_side

    def schedule(self, size: tuple[int, int]) -> DiffusionSchedule:
        return DiffusionSchedule(self.pipeline.scheduler)

    def _check_images(self, images: Sequence[Sequence[Tensor]]) -> None:
        sizes = {tuple(image.shape[1:]) for row in images for image in row}
        counts = {len(row) for row in images}
        if len(sizes) != 1 or counts != {len(self.settings.images)}:
            raise PolicyError(
                f"the images of one call must have one size, and each row those of policy.images "
                f"({', '.join(self.settings.images)}); found {sorted(counts)} images of {sorted(sizes)} pixels"
            )

    def _check_prompts(self, prompts: Sequence[str]) -> None:
        tokenizer: Any = self.pipeline.tokenizer
        for prompt in dict.fromkeys(prompts):
            length = len(tokenizer(prompt, verbose=False).input_ids)
            if length > tokenizer.model_max_length:
                raise PolicyError(
                    f"the prompt {prompt!r} has {length} tokens, and this model's text encoder reads "
                    f"{tokenizer.model_max_length}; make it shorter"
                )
