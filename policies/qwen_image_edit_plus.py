"""Qwen-Image-Edit-Plus (2509 and 2511) as a policy, with any number of conditioning images.

Shapes: P rows · B samples · L noisy tokens · M conditioning tokens · N tokens of words and images · D channels of a
packed token · C H W image.

Every conditioning image is seen twice: by the text encoder, a Qwen2.5-VL, which reads it with the prompt ("Picture 1:
…"), and as latents by the network, whose image tokens are [noisy | first image | second image | …]. The network's
positions count the images on their first axis. With ``zero_cond_t`` in the checkpoint's configuration, as in 2511,
conditioning tokens are modulated as at noise level 0. Words are padded, and padding is masked: it changes nothing.

Guidance weighs what is predicted with the prompt and with the negative prompt, and keeps the length that each token of
the former has:

    u = v(negative) + s·(v(prompt) − v(negative)),   v = u·‖v(prompt)‖ / ‖u‖

Differs from diffusers: nothing that is known; its pipeline takes one row at a time.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers import QwenImageEditPlusPipeline
from torch import Tensor, nn

from policies.flow_scheduler import TerminalSchedule, check_flow_scheduler, configured_shift
from policies.guidance import branch_weights, of_length, predictions, scales_of
from policies.image_area import check_sides, of_area
from policies.layouts import MixedLayouts, encoded, in_calls, restored
from policies.loading import load_pipeline, place_parts
from policies.memory import tiled_by_stride, visits
from policies.packed_tokens import PackedTokens
from policies.qwen_conditioning import QwenConditioning, Read, one_after_the_other
from policies.schedule import FlowSchedule, Schedule
from policies.settings import Guidance, Precision, QwenImageEditPlusSettings
from policies.weights import StageWeights, WeightSet

ADAPTER_TARGETS = (
    r"transformer_blocks\.\d+\."
    r"(attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)|(img|txt)_mlp\.net\.2|(img|txt)_mod\.1)"
)
"""Those of DyRef, arXiv 2606.26947."""
Shown = QwenConditioning | MixedLayouts[QwenConditioning]


class QwenImageEditPlus:
    """Qwen-Image-Edit-Plus seen as a policy: encode, predict a velocity, decode.

    Args:
        pipeline: the diffusers pipeline, all parts in evaluation mode, the transformer on the device.
        settings: what the recipe says.
        device: where latents and images live.
        autocast: compute in bfloat16 with a transformer whose weights are float32.

    Raises:
        PolicyError: the scheduler is of another kind.
    """

    def __init__(
        self,
        pipeline: QwenImageEditPlusPipeline,
        settings: QwenImageEditPlusSettings,
        device: torch.device | str = "cpu",
        *,
        autocast: bool = False,
    ) -> None:
        check_flow_scheduler(pipeline.scheduler)
        self.pipeline: Any = pipeline
        self.settings, self.autocast = settings, autocast
        self._device = torch.device(device)
        self.tokens = PackedTokens.of(pipeline)
        self._present = visits(self._device, offloaded=settings.offload_encoders)
        self.trained: nn.Module = self.pipeline.transformer
        self.config = self.pipeline.transformer.config
        self.dtype: torch.dtype = self.pipeline.transformer.dtype  # asked before adapters and engines wrap it
        self.stage = StageWeights(self.pipeline.transformer, ADAPTER_TARGETS)
        if settings.gradient_checkpointing:
            self.pipeline.transformer.enable_gradient_checkpointing()

    @classmethod
    def load(
        cls,
        settings: QwenImageEditPlusSettings,
        device: torch.device | str = "cpu",
        precision: Precision = "fp32",
        *,
        network: bool = True,
    ) -> "QwenImageEditPlus":
        """Load a local folder or a hub repository.

        Args:
            precision: numbers of frozen weights. Trained ones are float32: with ``bf16`` adapters lie over a bfloat16
                network, and without adapters the whole network is float32 and computes in bfloat16.
            network: whether the transformer will be called; if not, it stays in host memory.

        Raises:
            PolicyError: it cannot be reached, or is not a Qwen-Image-Edit-Plus.
        """
        pipeline = load_pipeline(QwenImageEditPlusPipeline, settings, precision, called="Qwen-Image-Edit-Plus")
        device = torch.device(device)
        place_parts(
            pipeline.transformer, (pipeline.vae, pipeline.text_encoder), device, called=network,
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

    def sampling(self) -> AbstractContextManager[None]:
        return nullcontext()

    @torch.no_grad()
    def encode(
        self,
        prompts: Sequence[str],
        images: Sequence[Sequence[Tensor]],
        masks: Sequence[Sequence[Tensor | None]] | None = None,
        size: tuple[int, int] | None = None,
    ) -> Shown:
        """Read prompts with their images, and encode the images, row by row.

        Args:
            prompts: P texts.
            images: for each row its images ``[3, H, W]`` in [0, 1], of any sizes: they are brought to
                ``condition_pixels`` and ``image_pixels``, keeping their shape. Rows of another number or shape of them
                will be calls of their own.
            masks: not used.
            size: height and width of the result; by default those of each row's first image.
        """
        rows = [
            self._encode_row(prompt, shown, size or (shown[0].shape[1], shown[0].shape[2]))
            for prompt, shown in zip(prompts, images, strict=True)
        ]

        def encode_some(numbers: list[int]) -> QwenConditioning:
            first, *others = [rows[number] for number in numbers]
            return first.together(others)

        return encoded(encode_some, [row.layout for row in rows])

    def _encode_row(self, prompt: str, images: Sequence[Tensor], size: tuple[int, int]) -> QwenConditioning:
        processor = self.pipeline.image_processor
        pictures = [processor.postprocess(2 * image[None] - 1, "pil")[0] for image in images]
        shapes = [(image.shape[1], image.shape[2]) for image in images]
        small = [of_area(shape, self.settings.condition_pixels) for shape in shapes]
        seen = [processor.resize(picture, *each) for picture, each in zip(pictures, small, strict=True)]
        with self._present(self.pipeline.text_encoder):
            told, untold = (self._read(text, seen) for text in (prompt, self.settings.negative_prompt))
        large = [of_area(shape, self.settings.image_pixels) for shape in shapes]
        packed = [
            self._packed(processor.preprocess(picture, *each)) for picture, each in zip(pictures, large, strict=True)
        ]
        return QwenConditioning(told=told, untold=untold, images=torch.cat(packed, dim=1), layout=(size, *large))

    def _read(self, text: str, pictures: list[Any]) -> Read:
        """What the text encoder makes of a text with pictures."""
        words, _ = self.pipeline.encode_prompt(prompt=[text], image=pictures, device=self.device)
        return Read(words=words, known=torch.ones(words.shape[:2], dtype=torch.bool, device=words.device))

    def conditioning_from(self, saved: Mapping[str, Tensor]) -> Shown:
        return restored(lambda one: QwenConditioning.from_tensors(one, self.device), saved)

    @torch.no_grad()
    def encode_target(self, images: Tensor) -> Tensor:
        """Images ``[P, 3, H, W]`` in [0, 1] to packed latents ``[P, L, D]``."""
        check_sides(tuple(images.shape[2:]), self.token_side)
        return self._packed(2 * images - 1)

    def _packed(self, images: Tensor) -> Tensor:
        """Images ``[P, 3, H, W]`` in [-1, 1] to packed latents."""
        vae = self.pipeline.vae
        with self._present(vae):
            given = images.to(self.device, vae.dtype).unsqueeze(2)  # one frame
            latents = self.pipeline._encode_vae_image(given, generator=None)
        count, channels, _, rows, columns = latents.shape
        return self.pipeline._pack_latents(latents, count, channels, rows, columns).float()

    @torch.no_grad()
    def decode(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Packed latents ``[B, L, D]`` to images ``[B, 3, H, W]`` in [0, 1]."""
        vae, scale = self.pipeline.vae, self.pipeline.vae_scale_factor
        unpacked = self.pipeline._unpack_latents(latents, *size, scale)
        mean, spread = (
            torch.tensor(values).to(unpacked).reshape(1, -1, 1, 1, 1)
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        given = (unpacked * spread + mean).to(vae.dtype)
        with self._present(vae), tiled_by_stride(vae) if self.settings.tiled_decode else nullcontext():
            decoded = vae.decode(given, return_dict=False)[0][:, :, 0]
        return (decoded.float() / 2 + 0.5).clamp(0, 1)

    def velocity(self, latents: Tensor, sigma: Tensor, conditioning: Shown, guidance: Guidance) -> Tensor:
        """The predicted velocity ``[B, L, D]``, float32, at noise levels ``sigma`` ``[B]``.

        Args:
            guidance: the scale of the prompt against the negative one; 1 costs no second evaluation.

        Raises:
            PolicyError: another condition has a scale.
        """
        weights = branch_weights(*scales_of(guidance, self.settings.scales))

        def of_one_layout(latents: Tensor, sigma: Tensor, rows: QwenConditioning) -> Tensor:
            return self._guided(latents, sigma, rows, weights)

        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            return in_calls(of_one_layout, conditioning, latents, sigma)

    def _guided(self, latents: Tensor, sigma: Tensor, rows: QwenConditioning, weights: Sequence[float]) -> Tensor:
        """One call of the network for all branches, whose predictions are weighed."""
        count, shown = len(rows), [rows.untold, rows.told] if weights[0] else [rows.told]
        both = one_after_the_other(shown)
        branches = [
            {"words": both.words[first : first + count], "known": both.known[first : first + count]}
            for first in range(0, len(both.words), count)
        ]
        common = {"images": rows.images}

        def network(latents: Tensor, sigma: Tensor, **conditions: Tensor) -> Tensor:
            return self._network(latents, sigma, layout=rows.layout, **conditions)

        used = weights[-len(branches) :]
        counted, parts = predictions(network, latents, sigma, [branch | common for branch in branches], used)
        if len(parts) == 1:
            return counted[0] * parts[0]
        told = parts[-1]
        return of_length(counted[0] * parts[0] + counted[1] * told, told)

    def _network(
        self,
        latents: Tensor,
        sigma: Tensor,
        *,
        words: Tensor,
        known: Tensor,
        images: Tensor,
        layout: Sequence[tuple[int, int]],
    ) -> Tensor:
        """One call of the network, for rows of one layout."""
        count, tokens, _ = latents.shape
        grids = [(1, *self.tokens.grid(size)) for size in layout]
        prediction = self.trained(
            hidden_states=torch.cat([latents.to(self.dtype), images.to(self.dtype)], dim=1),
            timestep=sigma.to(self.dtype),
            encoder_hidden_states=words.to(self.dtype),
            encoder_hidden_states_mask=None if bool(known.all()) else known,  # attention without a mask is faster
            img_shapes=[grids] * count,
            return_dict=False,
        )[0]
        return prediction[:, :tokens]

    def latent_mask(self, masks: Tensor) -> Tensor:
        """The share of each token's pixels that lie inside the mask, ``[P, L, 1]``."""
        return self.tokens.latent_mask(masks)

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.tokens.latent_shape(size)

    def schedule(self, size: tuple[int, int]) -> Schedule:
        scheduler = self.pipeline.scheduler
        mu, terminal = configured_shift(scheduler, self.latent_shape(size)[0]), scheduler.config.get("shift_terminal")
        return TerminalSchedule(mu, terminal) if terminal else FlowSchedule(mu)
