"""FLUX.2 as a policy, klein and dev, with any number of conditioning images.

Shapes: P rows · B samples · L noisy tokens · M conditioning tokens · N prompt tokens · D channels of a packed token ·
C H W image.

On the sequence axis the transformer sees [noisy | first image | second image | …]; of four position axes the first
tells the images apart (0, then 10, 20, …), the last counts the words of the prompt. All tokens share the noise level of
the noisy ones. The text encoder reads the prompt alone: a Qwen3 for klein, a Mistral3 for dev.

Guidance follows the variant: ``klein_base`` weighs what is predicted with and without words, in one batch; ``dev`` is
fed its scale; ``klein`` was distilled and takes none.

Differs from diffusers: images are not brought to another size here; both sides are multiples of a token's.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from torch import Tensor, nn

from policies.errors import PolicyError
from policies.flow_scheduler import EmpiricalSchedule, check_flow_scheduler
from policies.flux2_conditioning import Flux2Conditioning, prompt_positions, token_positions
from policies.guidance import branch_weights, guided, scales_of
from policies.image_area import check_sides
from policies.layouts import MixedLayouts, encoded, in_calls, restored
from policies.loading import load_pipeline, place_parts
from policies.memory import tiled, visits
from policies.packed_tokens import PackedTokens
from policies.settings import Flux2Settings, Guidance, Precision
from policies.weights import StageWeights, WeightSet

ADAPTER_TARGETS = (
    r"transformer_blocks\.\d+\."
    r"(attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)|ff(_context)?\.linear_(in|out))"
    r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)"
)
KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Flux2Pipeline, Flux2KleinPipeline)}
Shown = Flux2Conditioning | MixedLayouts[Flux2Conditioning]


class Flux2:
    """FLUX.2 seen as a policy: encode, predict a velocity, decode.

    Args:
        pipeline: the diffusers pipeline, all parts in evaluation mode, the transformer on the device.
        settings: what the recipe says.
        device: where latents and images live.
        autocast: compute in bfloat16 with a transformer whose weights are float32.

    Raises:
        PolicyError: the pipeline is of another variant, or its scheduler of another kind.
    """

    def __init__(
        self,
        pipeline: Flux2Pipeline | Flux2KleinPipeline,
        settings: Flux2Settings,
        device: torch.device | str = "cpu",
        *,
        autocast: bool = False,
    ) -> None:
        _check_variant(pipeline, settings)
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
        settings: Flux2Settings,
        device: torch.device | str = "cpu",
        precision: Precision = "fp32",
        *,
        network: bool = True,
    ) -> "Flux2":
        """Load a local folder or a hub repository.

        Args:
            precision: numbers of frozen weights. Trained ones are float32: with ``bf16`` adapters lie over a bfloat16
                network, and without adapters the whole network is float32 and computes in bfloat16.
            network: whether the transformer will be called; if not, it stays in host memory.

        Raises:
            PolicyError: it cannot be reached, or is not the FLUX.2 that the settings say.
        """
        pipeline = load_pipeline(KINDS[settings.pipeline], settings, precision, called="FLUX.2")
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
        """Embed prompts and conditioning images, once per row.

        Args:
            prompts: P texts, padded to ``prompt_tokens``: FLUX.2's network does not mask padding, so its length is
                fixed for a run.
            images: for each row its images ``[3, H, W]`` in [0, 1]; rows of another number or other sizes of them will
                be calls of their own.
            masks: not used.
            size: height and width of the result; by default those of each row's first image.

        Raises:
            PolicyError: a side is not a multiple of the token's, or a prompt is too long.
        """
        self._check_prompts(prompts)
        with self._present(self.pipeline.text_encoder):
            words = self._embedded(prompts)
            empty = self._embedded([""]) if self.settings.scales else None

        def encode_some(rows: list[int]) -> Flux2Conditioning:
            slots = zip(*(images[row] for row in rows), strict=True)
            packed = [self.encode_target(torch.stack(slot)) for slot in slots]
            layout = [(image.shape[1], image.shape[2]) for image in images[rows[0]]]
            return Flux2Conditioning(
                prompt=torch.cat([words[row : row + 1] for row in rows]),
                empty=empty,
                images=torch.cat(packed, dim=1),
                layout=(size or layout[0], *layout),
            )

        return encoded(encode_some, [tuple(image.shape[1:] for image in row) for row in images])

    def conditioning_from(self, saved: Mapping[str, Tensor]) -> Shown:
        return restored(lambda one: Flux2Conditioning.from_tensors(one, self.device), saved)

    @torch.no_grad()
    def encode_target(self, images: Tensor) -> Tensor:
        """Images ``[P, 3, H, W]`` in [0, 1] to packed latents ``[P, L, D]``."""
        check_sides(tuple(images.shape[2:]), self.token_side)
        images = (2 * images.to(self.device) - 1).to(self.pipeline.vae.dtype)
        with self._present(self.pipeline.vae):
            latents = self.pipeline._encode_vae_image(images, generator=None)
        return self.pipeline._pack_latents(latents).float()

    @torch.no_grad()
    def decode(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Packed latents ``[B, L, D]`` to images ``[B, 3, H, W]`` in [0, 1]."""
        vae, scale = self.pipeline.vae, self.pipeline.vae_scale_factor
        grid = latents.transpose(1, 2).unflatten(2, self.tokens.grid(size))
        statistics = vae.bn.running_mean, (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()
        mean, spread = (each.to(grid).reshape(1, -1, 1, 1) for each in statistics)
        unpacked = self.pipeline._unpatchify_latents(grid * spread + mean).to(vae.dtype)
        with self._present(vae), tiled(vae, scale) if self.settings.tiled_decode else nullcontext():
            decoded = vae.decode(unpacked, return_dict=False)[0]
        return (decoded.float() / 2 + 0.5).clamp(0, 1)

    def velocity(self, latents: Tensor, sigma: Tensor, conditioning: Shown, guidance: Guidance) -> Tensor:
        """The predicted velocity ``[B, L, D]``, float32, at noise levels ``sigma`` ``[B]``.

        Args:
            guidance: of ``klein_base`` the scale of the words, of which 1 costs no second evaluation; of ``dev`` what
                its network is fed; of ``klein`` 1.

        Raises:
            PolicyError: the model takes no such guidance.
        """
        weights, fed = self._guidance(guidance)

        def of_one_layout(latents: Tensor, sigma: Tensor, rows: Flux2Conditioning) -> Tensor:
            told = {"words": rows.prompt, "images": rows.images}
            wordless = told if rows.empty is None else told | {"words": rows.empty.expand_as(rows.prompt)}

            def network(latents: Tensor, sigma: Tensor, *, words: Tensor, images: Tensor) -> Tensor:
                return self._network(latents, sigma, words, images, rows.layout, fed)

            return guided(network, latents, sigma, [wordless, told][-len(weights) :], weights)

        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            return in_calls(of_one_layout, conditioning, latents, sigma)

    def _guidance(self, guidance: Guidance) -> tuple[tuple[float, ...], float | None]:
        """The weights of the branches, and what the network is fed."""
        if self.settings.scales:
            return branch_weights(*scales_of(guidance, self.settings.scales)), None
        if isinstance(guidance, Mapping):
            raise PolicyError(f"guidance: expected one number for this model, found {dict(guidance)}")
        if not self.settings.guided and guidance != 1:
            raise PolicyError(
                f"guidance: expected 1 for a distilled FLUX.2-klein, which takes none, found {guidance:g}"
            )
        return (1.0,), guidance if self.config.guidance_embeds else None

    def _network(
        self,
        latents: Tensor,
        sigma: Tensor,
        words: Tensor,
        images: Tensor,
        layout: Sequence[tuple[int, int]],
        fed: float | None,
    ) -> Tensor:
        """One call of the network, for rows of one layout."""
        count, tokens, _ = latents.shape
        place = latents.device
        prediction = self.trained(
            hidden_states=torch.cat([latents.to(self.dtype), images.to(self.dtype)], dim=1),
            timestep=sigma.to(self.dtype),
            guidance=None if fed is None else torch.full((count,), fed, device=place),
            encoder_hidden_states=words.to(self.dtype),
            txt_ids=prompt_positions(words.shape[1]).to(place),
            img_ids=token_positions(layout, self.token_side).to(place),
            return_dict=False,
        )[0]
        return prediction[:, :tokens]

    def latent_mask(self, masks: Tensor) -> Tensor:
        """The share of each token's pixels that lie inside the mask, ``[P, L, 1]``."""
        return self.tokens.latent_mask(masks)

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.tokens.latent_shape(size)

    def schedule(self, size: tuple[int, int]) -> EmpiricalSchedule:
        return EmpiricalSchedule(self.latent_shape(size)[0])

    def _embedded(self, prompts: Sequence[str]) -> Tensor:
        """The states of the text encoder's layers, ``[P, N, …]``."""
        words, _ = self.pipeline.encode_prompt(
            prompt=list(prompts),
            device=self.device,
            max_sequence_length=self.settings.prompt_tokens,
            text_encoder_out_layers=self.settings.layers,
        )
        return words

    def _check_prompts(self, prompts: Sequence[str]) -> None:
        for prompt in dict.fromkeys(prompts):
            length = self._tokens(prompt)
            if length > self.settings.prompt_tokens:
                raise PolicyError(
                    f"the prompt {prompt!r} has {length} tokens with the conversation around it, and "
                    f"policy.prompt_tokens is {self.settings.prompt_tokens}; the longest may have 512"
                )

    def _tokens(self, prompt: str) -> int:
        """Tokens of a prompt in the conversation that the text encoder reads."""
        reader, dev = self.pipeline.tokenizer, self.settings.variant == "dev"
        if dev:
            said = [("system", self.pipeline.system_message), ("user", prompt.replace("[IMG]", ""))]
            messages: list[Any] = [{"role": who, "content": [{"type": "text", "text": text}]} for who, text in said]
            text = reader.apply_chat_template(messages, add_generation_prompt=False, tokenize=False)
        else:
            text = reader.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        tokenizer = getattr(reader, "tokenizer", reader)  # of dev's processor, which reads pictures too
        return len(tokenizer(text, add_special_tokens=not dev, verbose=False)["input_ids"])


def _check_variant(pipeline: Any, settings: Flux2Settings) -> None:
    """See that a pipeline is what the settings say."""
    kind = type(pipeline).__name__
    distilled = bool(pipeline.config.get("is_distilled", False))
    found = "dev" if kind == Flux2Pipeline.__name__ else "klein" if distilled else "klein_base"
    if found != settings.variant:
        raise PolicyError(
            f"policy.variant: {settings.checkpoint} is {found}, expected {settings.variant}; set it to {found}"
        )
