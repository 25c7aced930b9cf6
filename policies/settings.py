"""What a recipe may say about each policy. No torch here: a recipe is checked before torch is imported."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Quantization = Literal["int8", "float8"]
Precision = Literal["fp32", "bf16"]
Guidance = float | Mapping[str, float]
"""A guidance scale, or one of each condition by name; 1 leaves every condition as it is."""


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters on the attention and feed-forward layers."""

    rank: int = 16
    """Inner width of an adapter."""
    alpha: int = 16
    """The adapter's output is scaled by alpha / rank."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank: expected at least 1, found {self.rank}")
        if self.alpha < 1:
            raise ValueError(f"alpha: expected at least 1, found {self.alpha}")


@dataclass(frozen=True, kw_only=True)
class FluxKontextSettings:
    """FLUX.1-Kontext with an ordered list of conditioning images, each with its own first position axis."""

    ENCODED_BY: ClassVar[tuple[str, ...]] = ("checkpoint", "revision", "prompt_tokens", "position_ids")
    """The settings that encoded prompts and images depend on."""
    scales: ClassVar[tuple[str, ...]] = ()
    """The conditions with a guidance scale of their own; none, as the network is fed one scale for all."""
    own_levels: ClassVar[bool] = False
    """Whether the network knows only the noise levels of its own schedule."""

    checkpoint: str
    """An embedded model, a local folder, or a hub repository."""
    images: tuple[str, ...] = ("draft", "reference")
    """Which of a row's images the model is shown, in order: the draft, and references by their role."""
    prompt_tokens: int = 512
    """Tokens that every prompt is padded to."""
    lora: LoraSettings | None = field(default_factory=LoraSettings)
    """Shape of the adapters; null trains every parameter."""
    revision: str | None = None
    """Revision of a hub repository."""
    attention: Literal["full", "restricted"] = "full"
    """``full``, or ``restricted``: conditioning images do not see each other, only prompt and noisy image."""
    position_ids: Literal["image", "mask"] = "image"
    """The first position axis counts the ``image``s, or also tells what each ``mask`` covers; one call per row then."""
    gradient_checkpointing: bool = False
    """Keep only the input of each block for the backward pass and compute the rest again: less memory, more time."""
    offload_encoders: bool = False
    """Keep text encoders and autoencoder in host memory, and on the device only while they are used."""
    tiled_decode: bool = False
    """Decode images one by one, and those larger than 512 pixels in overlapping tiles."""
    quantize: Quantization | None = None
    """Store the frozen weights of the network's blocks in 8 bits; needs adapters and ``rlrefine[quantize]``."""

    @property
    def needs(self) -> frozenset[str]:
        """What every row of the data must have for this model."""
        return frozenset({"masks"} if self.position_ids == "mask" else ())

    def __post_init__(self) -> None:
        check_multi_image(self)
        if self.position_ids == "mask" and (self.images[0] != "draft" or self.images.count("draft") > 1):
            found = ", ".join(self.images)
            raise ValueError(f"images: expected draft first and once with position_ids: mask, found {found}")
        if not 1 <= self.prompt_tokens <= 512:
            raise ValueError(f"prompt_tokens: expected 1 to 512, found {self.prompt_tokens}")


@dataclass(frozen=True, kw_only=True)
class Flux2Settings:
    """FLUX.2 with an ordered list of conditioning images: klein, its undistilled base, or dev."""

    ENCODED_BY: ClassVar[tuple[str, ...]] = ("checkpoint", "revision", "variant", "prompt_tokens", "text_layers")
    """The settings that encoded prompts and images depend on."""
    own_levels: ClassVar[bool] = False
    """Whether the network knows only the noise levels of its own schedule."""

    checkpoint: str
    """A local folder, or a hub repository."""
    variant: Literal["klein_base", "klein", "dev"] = "klein_base"
    """``klein_base`` is guided by a second evaluation, ``klein`` was distilled and is not, ``dev`` is fed its scale."""
    images: tuple[str, ...] = ("draft", "references")
    """Which of a row's images the model is shown, in order: the draft, references by their role, or all of them."""
    prompt_tokens: int = 512
    """Tokens that every prompt is padded to, those of the conversation around it included."""
    text_layers: tuple[int, ...] | None = None
    """Layers of the text encoder whose states are read; by default those that the published model was trained with."""
    lora: LoraSettings | None = field(default_factory=LoraSettings)
    """Shape of the adapters; null trains every parameter."""
    revision: str | None = None
    """Revision of a hub repository."""
    gradient_checkpointing: bool = False
    """Keep only the input of each block for the backward pass and compute the rest again: less memory, more time."""
    offload_encoders: bool = False
    """Keep text encoder and autoencoder in host memory, and on the device only while they are used."""
    tiled_decode: bool = False
    """Decode images one by one, and those larger than 512 pixels in overlapping tiles."""
    quantize: Quantization | None = None
    """Store the frozen weights of the network's blocks in 8 bits; needs adapters and ``rlrefine[quantize]``."""

    @property
    def scales(self) -> tuple[str, ...]:
        """The conditions with a guidance scale of their own."""
        return ("text",) if self.variant == "klein_base" else ()

    @property
    def guided(self) -> bool:
        """Whether the model takes any guidance."""
        return self.variant != "klein"

    @property
    def pipeline(self) -> str:
        """The class of diffusers that the checkpoint holds."""
        return "Flux2Pipeline" if self.variant == "dev" else "Flux2KleinPipeline"

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that are read."""
        return self.text_layers or ((10, 20, 30) if self.variant == "dev" else (9, 18, 27))

    def __post_init__(self) -> None:
        check_multi_image(self)
        if self.text_layers is not None and not self.text_layers:
            raise ValueError("text_layers: expected one layer or more, or null, found none")
        if not 1 <= self.prompt_tokens <= 512:
            raise ValueError(f"prompt_tokens: expected 1 to 512, found {self.prompt_tokens}")


@dataclass(frozen=True, kw_only=True)
class QwenImageEditPlusSettings:
    """Qwen-Image-Edit-Plus (2509, 2511) with an ordered list of images, which its text encoder reads as well."""

    ENCODED_BY: ClassVar[tuple[str, ...]] = (
        "checkpoint", "revision", "condition_pixels", "image_pixels", "negative_prompt",
    )  # fmt: skip
    """The settings that encoded prompts and images depend on."""
    own_levels: ClassVar[bool] = False
    """Whether the network knows only the noise levels of its own schedule."""
    scales: ClassVar[tuple[str, ...]] = ("text",)
    """The conditions with a guidance scale of their own."""

    checkpoint: str
    """A local folder, or a hub repository."""
    images: tuple[str, ...] = ("draft", "references")
    """Which of a row's images the model is shown, in order: the draft, references by their role, or all of them."""
    condition_pixels: int = 384 * 384
    """Pixels of each image as the text encoder reads it; it keeps its shape, in multiples of 32 pixels."""
    image_pixels: int = 1024 * 1024
    """Pixels of each image as the network is shown it; it keeps its shape, in multiples of 32 pixels."""
    negative_prompt: str = " "
    """What guidance leads away from."""
    lora: LoraSettings | None = field(default_factory=LoraSettings)
    """Shape of the adapters; null trains every parameter."""
    revision: str | None = None
    """Revision of a hub repository."""
    gradient_checkpointing: bool = False
    """Keep only the input of each block for the backward pass and compute the rest again: less memory, more time."""
    offload_encoders: bool = False
    """Keep text encoder and autoencoder in host memory, and on the device only while they are used."""
    tiled_decode: bool = False
    """Decode images one by one, and those larger than 512 pixels in overlapping tiles."""
    quantize: Quantization | None = None
    """Store the frozen weights of the network's blocks in 8 bits; needs adapters and ``rlrefine[quantize]``."""

    def __post_init__(self) -> None:
        check_multi_image(self)
        for name in ("condition_pixels", "image_pixels"):
            if getattr(self, name) < 1024:
                raise ValueError(f"{name}: expected at least 1024, which is 32 × 32, found {getattr(self, name)}")


def check_multi_image(settings: Any) -> None:
    """What models with any number of images have in common.

    Raises:
        ValueError: no image, or 8-bit weights that would be trained.
    """
    if not settings.images:
        raise ValueError("images: expected at least one conditioning image, such as draft, found none")
    if settings.quantize is not None and settings.lora is None:
        raise ValueError(
            f"quantize: expected null without lora, as 8-bit weights cannot be trained, found {settings.quantize}"
        )


@dataclass(frozen=True, kw_only=True)
class InstructPix2PixSettings:
    """InstructPix2Pix, shown the image to edit, and if wanted an image of the wanted look (SPIE's visual prompt)."""

    ENCODED_BY: ClassVar[tuple[str, ...]] = ("checkpoint", "revision")
    """The settings that encoded prompts and images depend on."""
    own_levels: ClassVar[bool] = True
    """Whether the network knows only the noise levels of its own schedule."""

    checkpoint: str
    """An embedded model, a local folder, or a hub repository."""
    images: tuple[str, ...] = ("draft",)
    """Which of a row's images the model is shown: the one to edit, and for a visual prompt a second one by its role."""
    lora: LoraSettings | None = field(default_factory=LoraSettings)
    """Shape of the adapters; a visual prompt is trained as a whole beside them. Null trains every parameter."""
    revision: str | None = None
    """Revision of a hub repository."""
    visual_prompt: Literal["consistent", "as_released"] = "consistent"
    """Beside the style image it sees the one to edit; ``as_released``, as SPIE's code, that only while sampling."""
    gradient_checkpointing: bool = False
    """Keep only the input of each block for the backward pass and compute the rest again: less memory, more time."""
    offload_encoders: bool = False
    """Keep text encoder and autoencoder in host memory, and on the device only while they are used."""
    tiled_decode: bool = False
    """Decode images one by one, and those larger than 512 pixels in overlapping tiles."""

    @property
    def scales(self) -> tuple[str, ...]:
        """The conditions with a guidance scale of their own, in the order in which they are added."""
        return ("image", "style", "text") if len(self.images) == 2 else ("image", "text")

    def __post_init__(self) -> None:
        if len(self.images) not in (1, 2):
            raise ValueError(
                f"images: expected the image to edit and at most one for a visual prompt, found {list(self.images)}"
            )
        if self.visual_prompt == "as_released" and len(self.images) == 1:
            raise ValueError("visual_prompt: expected a second image beside as_released, such as style, found none")
