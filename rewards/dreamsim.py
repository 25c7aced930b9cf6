"""DreamSim: how alike two images look to people, measured patch by patch or on the whole image.

Shapes: N images · D embedding · C H W image.

The networks are those of the package ``dreamsim``, unchanged. What it would do beside computing is kept from it: no
Python is fetched (its DINO comes through ``torch.hub``, which runs the current branch of a repository), no file is
loaded that holds more than tensors, and nothing is downloaded unless asked for.

Differs from upstream: images are resized as tensors. The filter is the same (bicubic with antialiasing), but PIL, which
upstream resizes with, rounds and clips to 8 bits after each of its two passes: on a photograph values differ by 0.3/255
in the mean and by 5/255 at most, where the filter overshoots. Images of 224 × 224 are not resized, and their scores are
exactly upstream's.
"""

import contextlib
import functools
import importlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards import dreamsim_files as files
from rewards.patches import PatchPerceptual
from rewards.settings import Cut, DreamSimType
from rewards.types import RewardError, RewardInputs

SIDE = 224  # pixels of the networks' input

_LOADING = threading.Lock()  # what is set aside while loading belongs to the process


class DreamSimMetric:
    """Cosine similarity of DreamSim embeddings, one minus upstream's distance.

        sim = ⟨e(x), e(y)⟩ / (‖e(x)‖·‖e(y)‖),   e centred and of unit length

    The model is loaded on first use, onto the images' device, and shared by all metrics that name the same files; it is
    frozen and in evaluation mode.

    Args:
        type: ``ensemble`` (DINO, CLIP and OpenCLIP, all ViT-B/16) or one network of its own; ``dino_vitb16_patch`` was
            trained with the cells of its grid and compares their mean, too. Upstream's DINOv2 models
            are not among them, since their code is only to be had by running a repository's current branch.
        cache: the folder with the weights.
        batch: images that go through the networks at once.
        download: fetch weights that are missing.
        sha256: the fingerprint of the weights' files.

    Raises:
        RewardError: the package or the weights are missing.

    Reference: Fu, Tamir, Sundaram et al., DreamSim, arXiv 2306.09344.
    """

    def __init__(
        self,
        *,
        type: DreamSimType = "ensemble",
        cache: str | Path | None = None,
        batch: int = 64,
        download: bool = False,
        sha256: str | None = None,
    ) -> None:
        _package()
        self.type, self.batch, self.sha256 = type, batch, sha256
        self.folder = Path(cache).expanduser() if cache is not None else files.default_folder()
        files.obtain(type, self.folder, download=download)

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings ``[N, D]`` of images ``[N, 3, H, W]`` in [0, 1]; each is squeezed to 224 × 224."""
        return torch.cat([whole(embedded) for embedded in self._embedded(images)])

    def cells(self, images: Tensor) -> Tensor:
        """Of a patch model: embeddings ``[N, L, D]`` of the grid's cells, row by row, each of unit length."""
        return torch.cat([embedded[:, 1:] for embedded in self._embedded(images)])

    def _embedded(self, images: Tensor) -> Iterator[Tensor]:
        model = load(self.type, str(self.folder), str(images.device), self.sha256)
        with torch.autocast(images.device.type, enabled=False):
            for some in images.float().split(self.batch):
                yield model.embed(to_input(some))

    def compare(self, embedding_ND: Tensor, target_ND: Tensor) -> Tensor:
        """Similarity ``[N]`` in [−1, 1] of embeddings."""
        return F.cosine_similarity(embedding_ND, target_ND, dim=-1)

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return self.compare(self.embed(images), self.embed(targets))


class PatchDreamSim:
    """DreamSim similarity of each patch to the same patch of the target, averaged with the mask as weight.

        r = Σ_k w_k·⟨e(y_k), e(y*_k)⟩ / Σ_k w_k,   ‖e‖ = 1,   w_k = mean of the mask in patch k

    ``PatchPerceptual`` with ``DreamSimMetric``: targets are embedded once a row, and patches outside the mask not at
    all. With ``patch=None`` the whole image is one patch: the paper's "overall consistency".

    Args:
        patch: side of a patch in pixels; None for the whole image.
        stride: pixels from one patch to the next; the patch's own side by default.
        cut: a ``grid`` of patches, or one ``crop`` around the mask.
        keep_targets: rows whose targets' embeddings are kept for the next calls.
        type, cache, batch, download, sha256: as in ``DreamSimMetric``.

    Raises:
        RewardError: the package or the weights are missing, or a patch does not fit into the image.

    Cost: each patch of each sample, and once a row each patch of its target, goes as 224 × 224 pixels through the
        model's networks: three ViT-B/16 for ``ensemble``, one for the others, ViT-B/32 being a quarter of the work.

    Hacked by: what people do not look at either: fine grain, a small shift, letters that only look like letters.
        Networks can be fooled by patterns that no eye would accept, and long training finds them; put a pixel reward
        beside it, and look at samples. Patches that the mask does not touch are free.

    Reference: OmniRefiner, arXiv 2511.19990, section 3 (patch-wise reward).
    """

    needs = PatchPerceptual.needs
    uses = PatchPerceptual.uses
    range = (-1.0, 1.0)

    def __init__(
        self,
        *,
        type: DreamSimType = "ensemble",
        patch: int | None = 256,
        stride: int | None = None,
        cut: Cut = "grid",
        batch: int = 64,
        keep_targets: int = 0,
        cache: str | Path | None = None,
        download: bool = False,
        sha256: str | None = None,
    ) -> None:
        metric = DreamSimMetric(type=type, cache=cache, batch=batch, download=download, sha256=sha256)
        self.patches = PatchPerceptual(metric=metric, patch=patch, stride=stride, cut=cut, keep_targets=keep_targets)

    def __call__(self, inputs: RewardInputs) -> Tensor:
        return self.patches(inputs)


def whole(embedding: Tensor) -> Tensor:
    """What a patch model makes of an image (``[N, 1 + L, D]``) as upstream compares it: its first token and the mean of
    its cells; other models' ``[N, D]`` as it is.
    """
    return embedding if embedding.ndim == 2 else torch.cat([embedding[:, 0], embedding[:, 1:].mean(dim=1)], dim=-1)


def to_input(images: Tensor) -> Tensor:
    """Images ``[N, 3, H, W]`` in [0, 1] at the networks' size, whatever their own."""
    if images.shape[2:] == (SIDE, SIDE):
        return images
    return F.interpolate(images, size=(SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


@functools.lru_cache(maxsize=4)
def load(type: str, folder: str, device: str, sha256: str | None) -> Any:
    """Upstream's model from files that are those of the first use, or the pinned ones; loaded once a process.

    Raises:
        RewardError: a file changed, is damaged or holds more than tensors.
    """
    found = files.check(type, Path(folder), sha256)
    files.check_adapter(type, Path(folder))
    cuda = [torch.device(device)] if device.startswith("cuda") else []
    with _LOADING, torch.random.fork_rng(devices=cuda):  # networks are initialised before they are loaded
        try:
            with _data_only(Path(folder)):
                model, _ = _package().dreamsim(
                    pretrained=True,
                    device=device,
                    cache_dir=folder,
                    dreamsim_type=type.removesuffix(files.PATCH),
                    use_patch_model=type.endswith(files.PATCH),
                )
        except Exception as error:  # damaged files raise all kinds
            raise RewardError(f"DreamSim {type} cannot be loaded from {folder}: {error}") from error
    if sha256 is None:
        files.remember(type, Path(folder), found)
    return model


def _package() -> Any:
    """Upstream's package, imported when a metric is made, so that what is missing is known before any image is."""
    try:
        return importlib.import_module("dreamsim")
    except Exception as error:  # a package that fits badly fails at import in its own way
        raise RewardError(
            f"the package dreamsim cannot be imported ({error}): pip install 'rlrefine[dreamsim]'"
        ) from error


@contextlib.contextmanager
def _data_only(folder: Path) -> Iterator[None]:
    """While upstream loads: no code but what is installed, no pickle but of tensors, and no adapter in part."""

    def installed_dino(repository: str, name: str) -> nn.Module:
        """What ``torch.hub`` would build from fetched code; the package has the same network."""
        from dreamsim.feature_extraction import vision_transformer

        network = vision_transformer.vit_base(patch_size=16)
        network.load_state_dict(torch.load(folder / files.DINO_FILE, map_location="cpu", weights_only=True))
        return network

    hub_load, hub_set_dir = torch.hub.load, torch.hub.set_dir
    forced = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    torch.hub.load, torch.hub.set_dir = installed_dino, lambda _: None
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # stands above what any call of torch.load asks for
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            warnings.filterwarnings("error", message="Found missing adapter keys")
            yield
    finally:
        torch.hub.load, torch.hub.set_dir = hub_load, hub_set_dir
        if forced is None:
            del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = forced
