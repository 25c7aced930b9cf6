"""Which tokens of FLUX see which: everything, or every conditioning image apart from the others.

Shapes: S tokens of the joint sequence [prompt | noisy | first image | second image | …].
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def restricted_mask(prompt_and_noisy: int, images: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """What each query may see, ``[1, 1, S, S]``, true where it may.

    Prompt and noisy tokens see everything; those of a conditioning image see prompt, noisy tokens and their own
    image, so that draft and references meet only through what is made of them. Images may have any number and sizes.

    Args:
        prompt_and_noisy: how many tokens come before the first image.
        images: how many tokens each image has.
        device: where the mask is made; of 12 800 tokens it has 164 million entries.

    Reference: a variant in the code of OmniRefiner's authors (arXiv 2511.19990), which holds for images of one size
    and 512 prompt tokens only. It saves them work; a mask gives the same numbers and saves none.

    >>> restricted_mask(1, [1, 1])[0, 0].int()          # prompt and noisy, draft, reference
    tensor([[1, 1, 1],
            [1, 1, 0],
            [1, 0, 1]], dtype=torch.int32)
    """
    lengths = torch.tensor([prompt_and_noisy, *images])
    part_S = torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(device)
    same_SS = part_S[:, None] == part_S[None, :]
    return (same_SS | (part_S[:, None] == 0) | (part_S[None, :] == 0))[None, None]
