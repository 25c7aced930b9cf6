"""Where rlrefine keeps what it can make again. No torch here."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """``RLREFINE_CACHE``, or a folder of the user's cache; safe to delete.

    ``rewards.dreamsim_files.default_folder`` says the same once more, since rewards import nothing of rlrefine.
    """
    users = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RLREFINE_CACHE") or Path(users) / "rlrefine")
