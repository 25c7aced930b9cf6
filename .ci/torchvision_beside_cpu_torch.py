"""Set-up only: let a CUDA build of torchvision be imported beside a CPU build of torch.

The index's torchvision wheels are CUDA builds. Beside a CPU torch their compiled operators cannot load, and the import
stops because the schemas of two of them are not defined; worse, transformers, diffusers and peft only ask whether
torchvision is installed, and fail with it. This script puts a module into the environment that defines the two schemas
just before torchvision is imported. Transforms and models then work; a compiled operator still raises its own error.
Beside a CUDA or ROCm torch it does nothing.

    python .ci/torchvision_beside_cpu_torch.py
"""

import sysconfig
from pathlib import Path

NAME = "_torchvision_beside_cpu_torch"
MODULE = '''"""Defines two operator schemas of torchvision beside a CPU torch, before torchvision is imported."""

import importlib.abc
import sys


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None and torch.version.hip is None:
                library = torch.library.Library("torchvision", "FRAGMENT")
                for operator in ("nms", "qnms"):
                    library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                torch._torchvision_schemas = library  # as long as it lives, so do the schemas
        return None


sys.meta_path.insert(0, _BeforeTorchvision())
'''

site = Path(sysconfig.get_path("purelib"))
(site / f"{NAME}.py").write_text(MODULE)
(site / f"{NAME}.pth").write_text(f"import {NAME}\n")
