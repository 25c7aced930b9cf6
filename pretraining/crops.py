"""Random crops of the training photos, with the variety that few photos need."""

import torch
import torch.nn.functional as F
from torch import Tensor

from rlrefine.data.photo_files import read_photo
from rlrefine.data.photos import Photo, photos


def load_photos(split) -> list[Tensor]:
    """Every photo of a split as ``[3, H, W]`` in [0, 1], the right view of the stereo pair included."""
    return [torch.from_numpy(read_photo(file)).permute(2, 0, 1) for photo in photos(split) for file in _views(photo)]


def _views(photo: Photo) -> list[str]:
    return [photo.file] if photo.right_view is None else [photo.file, photo.right_view]


class Crops:
    """Draws crops of a wanted size from photos, at scales 0.45 to 1.25, never from a blank place.

    Mirroring, exchanged colour channels and, rarely, inverted colours make a dozen photos go further.
    """

    def __init__(self, images: list[Tensor], seed: int, *, vary: bool = True) -> None:
        self.images, self.vary = images, vary
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * torch.rand((), generator=self.generator).item()

    def integer(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.generator))

    def batch(self, count: int, size: tuple[int, int]) -> Tensor:
        return torch.stack([self.crop(size) for _ in range(count)])

    def crop(self, size: tuple[int, int], least_spread: float = 0.05) -> Tensor:
        while True:
            image = self.images[self.integer(len(self.images))]
            zoom = min(self.uniform(0.8, 2.2), image.shape[1] / size[0], image.shape[2] / size[1])
            height, width = int(size[0] * zoom), int(size[1] * zoom)
            top, left = self.integer(image.shape[1] - height + 1), self.integer(image.shape[2] - width + 1)
            window = image[None, :, top : top + height, left : left + width]
            crop = F.interpolate(window, size=size, mode="bilinear", antialias=True, align_corners=False)[0]
            if crop.std() >= least_spread:
                return self._varied(crop) if self.vary else crop

    def _varied(self, crop: Tensor) -> Tensor:
        if self.uniform() < 0.5:
            crop = crop.flip(2)
        if self.uniform() < 0.4:
            crop = crop[torch.randperm(3, generator=self.generator)]
        return 1 - crop if self.uniform() < 0.08 else crop
