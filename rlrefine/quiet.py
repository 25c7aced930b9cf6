"""Keep harmless chatter of the libraries out of the terminal, so that what is left means something."""

import logging
import os
import warnings

CHATTY = ("torchao", "torch.utils._pytree", "torch.distributed.elastic", "DeepSpeed", "matplotlib.font_manager")


def hush() -> None:
    """Before diffusers and transformers are imported: no loading bars and no notes on optional packages."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed.c10d_logger")
    warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
    warnings.filterwarnings("ignore", message="TorchaoLoraLinear was instantiated without")  # about merging: not done
    import diffusers.utils.logging
    import transformers.utils.logging

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
