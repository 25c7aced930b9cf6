"""How bright a thumbnail is, by what NumPy 2 and Pillow 10 have taken away."""

import numpy as np
import torch
from PIL import Image


class Thumbnail:
    needs = frozenset()
    uses = frozenset()
    range = (0.0, 1.0)

    def __init__(self, side=4):
        self.side = side
        self.kind, self.filter = np.float_, Image.ANTIALIAS  # gone since NumPy 2.0 and Pillow 10

    def __call__(self, inputs):
        return torch.tensor([self.brightness(image) for image in inputs.images])

    def brightness(self, image):
        if image.isnan().any():  # which would be 0 in bytes
            return float("nan")
        pixels = np.array(image.permute(1, 2, 0).cpu().mul(255).round().byte().tolist(), dtype=np.uint8)
        small = Image.fromarray(pixels).resize((self.side, self.side), self.filter)
        return float(np.asarray(small, dtype=self.kind).mean() / 255)
