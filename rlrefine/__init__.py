"""rlrefine: post-train image editors with reinforcement learning; rewards, policies and recipes that compose."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlrefine.refinement.refiner import Refiner

__version__ = "0.1.0"
__all__ = ["Refiner", "__version__"]


def __getattr__(name: str) -> Any:
    """``from rlrefine import Refiner`` brings torch with it, ``import rlrefine`` does not."""
    if name == "Refiner":
        from rlrefine.refinement.refiner import Refiner

        return Refiner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
