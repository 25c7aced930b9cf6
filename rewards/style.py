"""The style score of DyRef: does an image have the style of a reference, as CSD sees style?

Shapes: P rows · B samples · N images · D features.

CSD is OpenAI's CLIP ViT-L/14 with a projection of its own, released as the file of a training run in the names of
OpenAI's code. Its tensors are put into transformers' network of the same form; only tensors are loaded from the file.
"""

import argparse
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards import pretrained
from rewards.encoders import first_references, in_batches
from rewards.features import FeatureCache
from rewards.preparation import Preparation, prepare
from rewards.types import RewardError, RewardInputs

REPOSITORY = "tomg-group-umd/CSD-ViT-L"
FILES = ("model.safetensors", "pytorch_model.bin", "checkpoint.pth")
HEAD_WIDTH = 64  # of attention, in all of OpenAI's CLIP networks
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

RENAMED = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
OUTSIDE = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}


class StyleSimilarity:
    """Cosine similarity of an image's style to that of its row's style reference.

        r = ⟨e(y), e(s)⟩ / (‖e(y)‖·‖e(s)‖)

    References are embedded once a row. To a row without a style reference the reward does not apply.

    Args:
        checkpoint: the released file, a folder that has it, or a repository of the hub.
        revision: of a repository.
        role: of the reference that shows the style, the first one if there are more; None for any role.
        download: fetch what is missing.
        batch: images that go through the network at once.
        keep_references: rows whose style is kept for the next calls.

    Raises:
        RewardError: the package or the weights are missing or damaged, or hold more than tensors.

    Cost: a ViT-L/14 forward pass of 224 × 224 pixels for each sample, and one for each style reference.

    Hacked by: copying the style reference itself, which scores 1: it knows nothing of content. A colour cast or a
        canvas texture goes far, too; never use it alone.

    Reference: Somepalli et al., Measuring Style Similarity in Diffusion Models, arXiv 2404.01292; as a reward in DyRef,
        arXiv 2606.26947.
    """

    needs: frozenset[str] = frozenset()
    uses = frozenset({"references.style"})
    range = (-1.0, 1.0)

    def __init__(
        self,
        *,
        checkpoint: str = REPOSITORY,
        revision: str | None = None,
        role: str | None = "style",
        download: bool = False,
        batch: int = 16,
        keep_references: int = 0,
    ) -> None:
        pretrained.package("transformers")
        self.file = find(checkpoint, revision, download)
        self.role, self.batch, self.kept = role, batch, FeatureCache(units=keep_references)
        self.uses = frozenset({f"references.{role}" if role else "references"})

    def embed(self, images: Tensor) -> Tensor:
        """Style ``[N, D]``, of unit length, of images ``[N, 3, H, W]`` in [0, 1]."""
        network = load(self.file, str(images.device))
        with torch.autocast(images.device.type, enabled=False):
            made = [network(prepare(some, preparation(network))) for some in images.float().split(self.batch)]
        return F.normalize(torch.cat([output.image_embeds for output in made]), dim=-1)

    def __call__(self, inputs: RewardInputs) -> Tensor:
        references = [image[None] for image in first_references(inputs, self.role)]
        style_PD = torch.cat([style for image in references for style in self.kept(self.embed, [image])])
        scores = [
            F.cosine_similarity(self.embed(images), style_PD[rows], dim=-1)
            for images, rows in in_batches(inputs, self.batch)
        ]
        return torch.cat(scores)


def find(checkpoint: str, revision: str | None, download: bool) -> Path:
    """The released file.

    Raises:
        RewardError: it is not there.
    """
    return pretrained.file_of(checkpoint, FILES, FILES[1], revision=revision, download=download)


def preparation(network: Any) -> Preparation:
    """As CSD prepares images: CLIP's way, the shorter side to the network's size and the middle of it."""
    side = network.config.image_size
    return Preparation(size=(("shortest_edge", side),), crop=(side, side), mean=MEAN, std=STD, filter="bicubic")


@functools.lru_cache(maxsize=2)
def load(file: Path, device: str) -> Any:
    """CSD's network with its projection to style, frozen and in evaluation mode; loaded once a process.

    Raises:
        RewardError: the file is damaged, holds more than tensors, or lacks a part.
    """
    classes = pretrained.package("transformers")
    released = read(file)
    try:
        state, config = converted(released), classes.CLIPVisionConfig(**sizes(released))
        with pretrained.loading(device):
            network = classes.CLIPVisionModelWithProjection(config)
            network.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError) as error:
        raise RewardError(f"{file} is not the CLIP network with a projection to style that CSD is: {error}") from error
    return network.to(device).eval().requires_grad_(False)


def read(file: Path) -> dict[str, Tensor]:
    """The tensors in the released file, without the prefix of distributed training.

    Raises:
        RewardError: it is damaged, or holds what is neither tensor nor number nor option of the training run.
    """
    try:
        if file.suffix == ".safetensors":
            content = pretrained.package("safetensors.torch").load_file(file)
        else:
            with torch.serialization.safe_globals([argparse.Namespace, *_numbers()]):
                content = torch.load(file, map_location="cpu", weights_only=True)
    except RewardError:
        raise
    except Exception as error:  # damaged files raise all kinds
        raise RewardError(f"{file} cannot be loaded: {error}") from error
    state = content.get("model_state_dict", content) if isinstance(content, dict) else {}
    return {name.removeprefix("module."): value.float() for name, value in state.items() if torch.is_tensor(value)}


def _numbers() -> list[Any]:
    """What single numbers of numpy are pickled as, such as learning rates in the state of an optimizer."""
    try:
        import numpy
    except ImportError:
        return []
    scalar = numpy._core.multiarray.scalar  # type: ignore[attr-defined]
    return [numpy.dtype, type(numpy.dtype("float64")), scalar, (scalar, "numpy.core.multiarray.scalar")]


def sizes(released: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the shapes of CSD's tensors say about its network."""
    kernel = released["backbone.conv1.weight"]
    width, patch = kernel.shape[0], kernel.shape[-1]
    cells = len(released["backbone.positional_embedding"]) - 1
    names = [name.split(".") for name in released if name.startswith("backbone.transformer.resblocks.")]
    return {
        "hidden_size": width,
        "intermediate_size": len(released["backbone.transformer.resblocks.0.mlp.c_fc.weight"]),
        "num_hidden_layers": 1 + max((int(name[3]) for name in names), default=-1),
        "num_attention_heads": width // HEAD_WIDTH,
        "patch_size": patch,
        "image_size": patch * round(cells**0.5),
        "projection_dim": released["last_layer_style"].shape[1],
        "hidden_act": "quick_gelu",
    }


def converted(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CSD's tensors under transformers' names; the projection to content is left out."""
    state = {f"vision_model.{ours}": released[f"backbone.{theirs}"] for theirs, ours in OUTSIDE.items()}
    state["visual_projection.weight"] = released["last_layer_style"].T
    for name, value in released.items():
        if not name.startswith("backbone.transformer.resblocks."):
            continue
        layer, part = name.removeprefix("backbone.transformer.resblocks.").split(".", 1)
        prefix = f"vision_model.encoder.layers.{layer}."
        if part.startswith("attn.in_proj_"):
            kind = part.removeprefix("attn.in_proj_")
            for head, piece in zip("qkv", value.chunk(3), strict=True):
                state[f"{prefix}self_attn.{head}_proj.{kind}"] = piece
        else:
            module, kind = part.rsplit(".", 1)
            state[f"{prefix}{RENAMED[module]}.{kind}"] = value
    return state
