"""A policy in a package of its own: FLUX.1-Fill, which paints anew what a mask covers.

No torch here: a recipe is checked before torch is imported. The model itself is in ``my_policy.flux_fill``,
its sizes in ``my_policy.shape``.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from policies.registry import Entry
from policies.settings import LoraSettings


@dataclass(frozen=True, kw_only=True)
class FluxFillSettings:
    """FLUX.1-Fill: the draft without what its mask covers, and a prompt of what belongs there."""

    ENCODED_BY: ClassVar[tuple[str, ...]] = ("checkpoint", "revision", "prompt_tokens")
    """The settings that encoded prompts and images depend on."""
    scales: ClassVar[tuple[str, ...]] = ()
    """The conditions with a guidance scale of their own; none, as the network is fed one scale for all."""
    own_levels: ClassVar[bool] = False
    """Whether the network knows only the noise levels of its own schedule."""
    images: ClassVar[tuple[str, ...]] = ("draft",)
    """Which of a row's images the model is shown."""
    needs: ClassVar[frozenset[str]] = frozenset({"masks"})
    """What every row of the data must have for this model."""

    checkpoint: str
    """A local folder, or a hub repository such as black-forest-labs/FLUX.1-Fill-dev."""
    prompt_tokens: int = 512
    """Tokens that every prompt is padded to."""
    lora: LoraSettings | None = field(default_factory=LoraSettings)
    """Shape of the adapters; null trains every parameter."""
    revision: str | None = None
    """Revision of a hub repository."""

    def __post_init__(self) -> None:
        if not 1 <= self.prompt_tokens <= 512:
            raise ValueError(f"prompt_tokens: expected 1 to 512, found {self.prompt_tokens}")


ENTRY = Entry(
    settings=FluxFillSettings,
    place="my_policy.flux_fill:FluxFill",
    pipeline="FluxFillPipeline",
    architecture="flux-1-fill-dev",
    shape="my_policy.shape:flux_fill",
)
