"""Repair a region of a picture: cut it out with its surroundings, let the policy edit that, and paste the result.

Shapes: P = 1 row · C H W image of the model; h w region.

Differs from the paper: crops are cut out and pasted back, as OmniRefiner's figures suggest and its text does not say
(arXiv 2511.19990); margin, feathering and the handling of borders are ours.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from policies.base import Policy
from rewards import WeightedRewards
from rlrefine import draws
from rlrefine.data.images import fit, to_tensor
from rlrefine.data.prompts import usual_prompt
from rlrefine.data.records import Batch, Example, Reference
from rlrefine.data.regions import Box
from rlrefine.errors import DataError, UsageError
from rlrefine.evaluation.arms import edit
from rlrefine.recipe.schema import Recipe
from rlrefine.refinement.choice import best_of
from rlrefine.refinement.picture import Picture, open_picture
from rlrefine.refinement.region import MARGIN, UserBox, bounding_box, box_in, crop_window, cut, paste_weight
from rlrefine.training.finished import finished_stage

WHITE = 128  # a mask is white from here on


@dataclass(frozen=True, kw_only=True)
class Request:
    """What should be refined, and how.

    Args:
        reference: an image that shows the detail as it should be.
        prompt: what should be done; by default the most frequent prompt of the training data.
        box: the region, as (x, y, width, height); without box and mask it is the whole picture.
        mask: an image of the draft's size, white where the detail is.
        reference_box: where the reference shows the detail; by default the reference is taken whole.
        seed: of the noise that the result is made from.
        best_of: so many results are made, with this seed and the next ones, and the judge's favourite is taken.
        margin: what the model sees around the region, as a share of the region's sides.
        feather: pixels over which the result is blended in, inside the region; by default a sixteenth of its shorter
            side.
    """

    reference: Picture | None = None
    prompt: str | None = None
    box: UserBox | None = None
    mask: Picture | None = None
    reference_box: UserBox | None = None
    seed: int = 0
    margin: float = MARGIN
    feather: int | None = None
    best_of: int = 1

    def __post_init__(self) -> None:
        if self.best_of < 1:
            raise UsageError(f"best of: expected at least 1 result, found {self.best_of}")
        if self.box is not None and self.mask is not None:
            raise UsageError("box and mask both say where the detail is; give one of them")
        if not 0 <= self.margin <= 8:
            raise UsageError(f"margin: expected 0 to 8 times the region's sides, found {self.margin}")
        if self.feather is not None and self.feather < 0:
            raise UsageError(f"feather: expected 0 pixels or more, found {self.feather}")
        if self.reference_box is not None and self.reference is None:
            raise UsageError("reference box: expected a reference that it lies in, found none")


@dataclass(frozen=True, kw_only=True)
class Refined:
    """A result, and how it came about."""

    image: Image.Image
    region: Box
    window: Box
    seen_at: tuple[int, int]
    prompt: str
    seed: int = 0
    totals: tuple[float | None, ...] = ()
    """Of several results what the judge says of each; none where a reward failed."""

    def __str__(self) -> str:
        region, window = self.region, self.window
        return (
            f"{region.right - region.left} × {region.bottom - region.top} pixels at ({region.left}, {region.top}) "
            f"refined, out of {window.right - window.left} × {window.bottom - window.top} that the model saw at "
            f"{self.seen_at[1]} × {self.seen_at[0]}; prompt: {self.prompt!r}{self._chosen}"
        )

    @property
    def _chosen(self) -> str:
        if not self.totals:
            return ""
        scores = ", ".join("failed" if total is None else f"{total:.4g}" for total in self.totals)
        return f"; the best of {len(self.totals)} is that of seed {self.seed} (scores {scores})"


class Refiner:
    """A trained policy that repairs pictures of any size.

    >>> from rlrefine import Refiner                                                          # doctest: +SKIP
    >>> refiner = Refiner.from_run("runs/first")                                              # doctest: +SKIP
    >>> refiner(draft, reference, box=(610, 388, 80, 80)).save("out.png")                     # doctest: +SKIP

    Args:
        policy: with the trained weights.
        recipe: of the run; its size of images, steps and guidance are used.
        judge: says which of several results is best.
    """

    def __init__(self, policy: Policy, recipe: Recipe, judge: WeightedRewards | None = None) -> None:
        self.policy, self.recipe, self.judge = policy, recipe, judge
        self.size = recipe.data.size
        others = [role for role in recipe.policy.settings.images if role != "draft"]
        if len(others) > 1:
            raise UsageError(
                f"the policy is shown several references ({', '.join(others)}); refining pictures gives it one"
            )
        self.role = others[0] if others else None

    @classmethod
    def from_run(
        cls, run: str | Path, stage: str | None = None, device: Any = None, judge: WeightedRewards | None = None
    ) -> "Refiner":
        """Load a finished stage of a run.

        Args:
            run: the run's folder.
            stage: by default the recipe's last.
            device: by default a GPU if there is one.
            judge: says which of several results is best.

        Raises:
            UsageError: there is no such run or stage.
            CheckpointError: the stage is not finished, or damaged.
        """
        finished = finished_stage(Path(run), stage)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(finished.policy(device), finished.recipe, judge)

    def __call__(
        self,
        draft: Image.Image,
        reference: Image.Image | None = None,
        *,
        prompt: str | None = None,
        box: UserBox | None = None,
        mask: Image.Image | None = None,
        reference_box: UserBox | None = None,
        seed: int = 0,
        margin: float = MARGIN,
        feather: int | None = None,
        best_of: int = 1,
    ) -> Image.Image:
        """The draft, turned as its EXIF says, with the region repaired; see ``Request`` for the arguments.

        Every pixel outside the region, and the alpha channel everywhere, keeps its bits.

        Raises:
            RlrefineError: an image cannot be read, or mask, box or reference do not fit.
        """
        request = Request(
            reference=None if reference is None else open_picture(reference, "the reference"),
            prompt=prompt,
            box=box,
            mask=None if mask is None else open_picture(mask, "the mask"),
            reference_box=reference_box,
            seed=seed,
            margin=margin,
            feather=feather,
            best_of=best_of,
        )
        return self.refine(open_picture(draft, "the draft"), request).image

    def refine(self, draft: Picture, request: Request) -> Refined:
        """Repair a region of a picture.

        Raises:
            RlrefineError: mask, box or reference do not fit, or no prompt is known.
        """
        prompt = request.prompt or self._usual_prompt
        selected = _selected(draft, request)
        region = bounding_box(selected)
        window = crop_window(region, draft.size, self.size, request.margin)
        example = Example(
            id=draft.name,
            prompt=prompt,
            draft=self._seen(draft, window),
            references=self._references(request),
            mask=self._mask_seen(selected, window),
        )
        edited, seed, totals = self._best(example, request)
        colours = _resized(edited, window)
        inner = Box(
            region.top - window.top, region.left - window.left, region.bottom - window.top, region.right - window.left
        )
        weight = paste_weight(selected, region, request.feather)
        image = draft.with_pasted(region, inner.window(colours), weight)
        return Refined(
            image=image, region=region, window=window, seen_at=self.size, prompt=prompt, seed=seed, totals=totals
        )

    @cached_property
    def _usual_prompt(self) -> str:
        """Looked up once: a list of jobs may be long, and the data as well."""
        prompt = usual_prompt(self.recipe.data.train)
        if prompt is None:
            raise UsageError(
                f"prompt: expected one, found none; the training data {self.recipe.data.train}, whose most frequent "
                f"prompt is taken otherwise, is not there"
            )
        return prompt

    def _references(self, request: Request) -> tuple[Reference, ...]:
        """The reference at the model's size: whole as in training, or its box with the same margin as the draft's."""
        if (request.reference is None) != (self.role is None):
            expected = (
                "a reference, which the policy is shown" if self.role else "no reference: the policy is shown none"
            )
            raise UsageError(f"reference: expected {expected}")
        if request.reference is None or self.role is None:
            return ()
        if request.reference_box is None:
            image = to_tensor(fit(request.reference.seen, self.size))
        else:
            box = box_in(request.reference_box, request.reference.size, request.reference.name)
            window = crop_window(box, request.reference.size, self.size, request.margin)
            image = self._seen(request.reference, window)
        return (Reference(image=image, role=self.role),)

    def _seen(self, picture: Picture, window: Box) -> Tensor:
        """What the model is given of a window, ``[3, H, W]``."""
        part = Image.fromarray(cut(np.asarray(picture.seen), window))
        return to_tensor(part.resize((self.size[1], self.size[0]), Image.Resampling.LANCZOS))

    def _mask_seen(self, selected: np.ndarray, window: Box) -> Tensor:
        """Where the detail is in what the model is given, ``[1, H, W]``; some policies look at it."""
        part = Image.fromarray(cut(np.where(selected, 255, 0).astype(np.uint8), window))
        return to_tensor(part.resize((self.size[1], self.size[0]), Image.Resampling.NEAREST))

    def _best(self, example: Example, request: Request) -> tuple[Tensor, int, tuple[float | None, ...]]:
        """The result ``[3, H, W]``, the seed that it can be made from again, and what the judge said of all."""
        seeds = range(request.seed, request.seed + request.best_of)
        if request.best_of == 1:
            return self._edited(example, request.seed), request.seed, ()
        if self.judge is None:
            raise UsageError(f"best of {request.best_of}: expected a judge that chooses among them, found none")
        results = torch.stack([self._edited(example, seed) for seed in seeds])
        choice = best_of(self.judge, example, results.to(self.policy.device))
        return results[choice.best], seeds[choice.best], choice.totals

    def _edited(self, example: Example, seed: int) -> Tensor:
        """The policy's result ``[3, H, W]``; its noise depends on the seed alone."""
        noise = draws.normal(self.policy.latent_shape(self.size), seed, "refine")
        roles = self.recipe.policy.settings.images
        batch = Batch(examples=(example,))
        return edit(self.policy, batch, noise[None], roles, self.recipe.evaluation)[0].float().cpu()


def _selected(draft: Picture, request: Request) -> np.ndarray:
    """Which pixels are replaced, ``[H, W]``."""
    selected = np.zeros(draft.size, dtype=bool)
    if request.mask is not None:
        return _white(request.mask, draft)
    box = request.box or (0, 0, draft.size[1], draft.size[0])
    box_in(box, draft.size, draft.name).window(selected)[:] = True
    return selected


def _white(mask: Picture, draft: Picture) -> np.ndarray:
    """Where a mask is white.

    Raises:
        DataError: it is of another size, or transparent, which some tools mean as white and others as black.
    """
    if mask.size != draft.size:
        raise DataError(
            f"mask: expected the size of {draft.name}, {draft.size[1]} × {draft.size[0]}, found {mask.size[1]} × "
            f"{mask.size[0]} in {mask.name}"
        )
    if mask.image.mode in ("LA", "RGBA") and np.asarray(mask.image)[..., -1].min() < 255:
        raise DataError(f"mask: expected white on black, found transparent pixels in {mask.name}")
    return np.asarray(mask.seen.convert("L")) >= WHITE


def _resized(image: Tensor, window: Box) -> np.ndarray:
    """An image ``[3, H, W]`` at the size of a window, ``[h, w, 3]``, without rounding to bytes."""
    size = window.right - window.left, window.bottom - window.top
    channels = [Image.fromarray(channel).resize(size, Image.Resampling.BICUBIC) for channel in image.numpy()]
    return np.clip(np.stack([np.asarray(channel) for channel in channels], axis=-1), 0, 1)
