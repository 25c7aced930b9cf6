"""The formats: how weights are written, and how a user's tool reads them back into the base model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY, LORA_WEIGHT_NAME_SAFE
from peft import LoraConfig, PeftModel
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor

from policies.base import Policy
from rlrefine.export.lora import Adapter, rank_of

Header = Mapping[str, str]


class PipelinePolicy(Policy, Protocol):
    """A policy around a diffusers pipeline, of which it trains one part."""

    pipeline: Any


class Format(Protocol):
    """One way to write a stage."""

    library: str
    """What reads it back."""

    kind: str
    """``lora`` or ``whole``."""

    def write(self, folder: Path, header: Header) -> None:
        """Write the files, with further fields for the header of the weights."""
        ...

    def reload(self, policy: PipelinePolicy, folder: Path) -> None:
        """Put what was written on a base model, as a user of the format does."""
        ...

    def usage(self, pipeline: str, base: str) -> Sequence[str]:
        """The lines of Python that load it into a pipeline class."""
        ...


@dataclass(frozen=True, kw_only=True)
class DiffusersLora:
    """A LoRA for ``pipeline.load_lora_weights``.

    Args:
        part: the pipeline's name for the module that was trained.
        base: the base model's name.
    """

    adapter: Adapter
    part: str
    base: str
    library = "diffusers"
    kind = "lora"

    def write(self, folder: Path, header: Header) -> None:
        config = {f"{self.part}.{key}": value for key, value in lora_config(self.adapter).items()}
        save_file(
            {f"{self.part}.{key}": value for key, value in self.adapter.state.items()},
            folder / LORA_WEIGHT_NAME_SAFE,
            metadata={"format": "pt", LORA_ADAPTER_METADATA_KEY: json.dumps(config, sort_keys=True), **header},
        )

    def reload(self, policy: PipelinePolicy, folder: Path) -> None:
        policy.pipeline.load_lora_weights(str(folder), weight_name=LORA_WEIGHT_NAME_SAFE)

    def usage(self, pipeline: str, base: str) -> Sequence[str]:
        return (
            f"from diffusers import {pipeline}",
            f"pipe = {pipeline}.from_pretrained({base})",
            f'pipe.load_lora_weights("FOLDER", weight_name="{LORA_WEIGHT_NAME_SAFE}")',
        )


@dataclass(frozen=True, kw_only=True)
class PeftLora:
    """A LoRA for ``PeftModel.from_pretrained``."""

    adapter: Adapter
    part: str
    base: str
    library = "peft"
    kind = "lora"

    def write(self, folder: Path, header: Header) -> None:
        save_file(
            {f"base_model.model.{key}": value for key, value in self.adapter.state.items()},
            folder / SAFETENSORS_WEIGHTS_NAME,
            metadata={"format": "pt", **header},
        )
        config = LoraConfig(**lora_config(self.adapter), inference_mode=True, base_model_name_or_path=self.base)
        plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
        (folder / CONFIG_NAME).write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n")

    def reload(self, policy: PipelinePolicy, folder: Path) -> None:
        PeftModel.from_pretrained(policy.trained, str(folder))  # changes the layers where they are

    def usage(self, pipeline: str, base: str) -> Sequence[str]:
        return (
            f"from diffusers import {pipeline}",
            "from peft import PeftModel",
            f"pipe = {pipeline}.from_pretrained({base})",
            f'PeftModel.from_pretrained(pipe.{self.part}, "FOLDER")  # changes its layers where they are',
        )


@dataclass(frozen=True, kw_only=True)
class WholeModel:
    """The trained module with all its weights, for ``from_pretrained``."""

    base: PipelinePolicy
    part: str
    weights: Mapping[str, Tensor]
    library = "diffusers"
    kind = "whole"

    def write(self, folder: Path, header: Header) -> None:
        self.base.trained.load_state_dict(self.weights)
        module: Any = self.base.trained
        module.save_pretrained(folder)

    def reload(self, policy: PipelinePolicy, folder: Path) -> None:
        module: Any = policy.trained
        loaded = type(module).from_pretrained(folder, torch_dtype=module.dtype).to(policy.device)
        policy.pipeline.register_modules(**{self.part: loaded})
        policy.trained = loaded

    def usage(self, pipeline: str, base: str) -> Sequence[str]:
        model = type(self.base.trained).__name__
        return (
            f"from diffusers import {pipeline}, {model}",
            f'{self.part} = {model}.from_pretrained("FOLDER")',
            f"pipe = {pipeline}.from_pretrained({base}, {self.part}={self.part})",
        )


def lora_config(adapter: Adapter) -> dict[str, Any]:
    """The settings of a LoRA that every version of peft knows, every layer by its full name."""
    return {
        "r": rank_of(adapter),
        "lora_alpha": rank_of(adapter),
        "rank_pattern": {},
        "alpha_pattern": {},
        "target_modules": sorted(adapter.modules),
        "use_dora": False,
        "lora_bias": False,
    }
