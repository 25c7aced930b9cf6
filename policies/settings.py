"""What a recipe may say about each policy. No torch here: a recipe is checked before torch is imported."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

Quantization = Literal["int8", "float8"]
Precision = Literal["fp32", "bf16"]


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
        if not self.images:
            raise ValueError("images: expected at least one conditioning image, such as draft, found none")
        if self.position_ids == "mask" and (self.images[0] != "draft" or self.images.count("draft") > 1):
            found = ", ".join(self.images)
            raise ValueError(f"images: expected draft first and once with position_ids: mask, found {found}")
        if self.quantize is not None and self.lora is None:
            raise ValueError(
                f"quantize: expected null without lora, as 8-bit weights cannot be trained, found {self.quantize}"
            )
        if not 1 <= self.prompt_tokens <= 512:
            raise ValueError(f"prompt_tokens: expected 1 to 512, found {self.prompt_tokens}")
