"""Features of targets, kept from one step to the next: an encoder sees a target once, not once a step.

Shapes: K images of one unit, for example the patches of one target.
"""

import ctypes
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Embed = Callable[[Tensor], Tensor]


class FeatureCache:
    """Features of image units that were seen before, known by their content; the least recently used leave first.

    A unit is what is embedded together, such as the patches of one target. Each goes through the encoder alone, so
    that its features are the same bits whether they were kept or not: a resumed run begins with an empty cache. With
    ``units=0`` nothing is kept, and all units go through the encoder at once.

    Content is compared by a 128-bit hash of the pixels, which costs about 10 ms for a megapixel in float32: less than
    any network, more than a pixel error. So a cache belongs to rewards with networks, one to each encoder.

    Args:
        units: how many are kept; 0 for none.

    Raises:
        ValueError: a negative number of units.

    >>> cache, calls = FeatureCache(units=8), []
    >>> def embed(images):
    ...     calls.append(len(images))
    ...     return images.mean(dim=(2, 3))
    >>> target = torch.rand(4, 3, 8, 8)                # the patches of one target
    >>> first, again = cache(embed, [target])[0], cache(embed, [target.clone()])[0]
    >>> torch.equal(first, again), calls
    (True, [4])
    """

    def __init__(self, units: int) -> None:
        if units < 0:
            raise ValueError(f"units: expected 0 or more, found {units}")
        self.units = units
        self._kept: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(self, embed: Embed, units: Sequence[Tensor]) -> list[Tensor]:
        """Features ``[K, …]`` of each unit ``[K, 3, h, w]``, where ``embed`` makes one of each image.

        A unit without images is not embedded where others are: it has none, of the others' shape.
        """
        if self.units == 0 or not any(len(unit) for unit in units):
            return list(embed(torch.cat(list(units))).split([len(unit) for unit in units]))
        found = [self._of(embed, unit) if len(unit) else None for unit in units]
        like = next(features for features in found if features is not None)
        return [like[:0] if features is None else features for features in found]

    @torch.no_grad()
    def _of(self, embed: Embed, unit: Tensor) -> Tensor:
        key = (tuple(unit.shape), unit.dtype, unit.device, content_hash(unit))
        if key not in self._kept:
            self._kept[key] = embed(unit)
            while len(self._kept) > self.units:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def content_hash(images: Tensor) -> bytes:
    """A 128-bit hash of the numbers in a tensor, whatever device they are on.

    >>> content_hash(torch.zeros(2)) == content_hash(torch.zeros(2, 1)[:, 0])
    True
    """
    held = images.detach().cpu().contiguous()
    return hashlib.blake2b(ctypes.string_at(held.data_ptr(), held.nbytes), digest_size=16).digest()
