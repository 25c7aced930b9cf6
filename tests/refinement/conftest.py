import numpy as np
import pytest
from PIL import Image

from policies.settings import LoraSettings
from rlrefine import Refiner

LORA = LoraSettings(rank=4, alpha=4)


@pytest.fixture
def run(make_run):
    """The folder of a finished run with random weights whose model sees 32 × 32; a test may change it."""
    return make_run(sft=LORA, grpo=LORA, later=LORA).root


@pytest.fixture(scope="session")
def shared_run(make_run):
    """Such a folder that no test changes."""
    return make_run(sft=LORA, grpo=LORA, later=LORA).root


@pytest.fixture(scope="session")
def refiner(shared_run):
    return Refiner.from_run(shared_run)


def noise(mode, size=(90, 70), seed=0):
    """A picture of random pixels, alpha included."""
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, size[::-1], dtype=np.uint16))
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    pixels = rng.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return Image.frombytes(mode, size, pixels.tobytes())


@pytest.fixture
def reference():
    return noise("RGB", (40, 40), seed=7)
