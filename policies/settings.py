"""What a recipe may say about each policy. No torch here: a recipe is checked before torch is imported."""

from dataclasses import dataclass, field


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

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("images: expected at least one conditioning image, such as draft, found none")
        if not 1 <= self.prompt_tokens <= 512:
            raise ValueError(f"prompt_tokens: expected 1 to 512, found {self.prompt_tokens}")
