"""Is a checkpoint there, and of the right kind? Answered in a moment, before data is built or weights are read.

No torch here.
"""

import json
from pathlib import Path
from typing import Any

from policies.errors import PolicyError

INDEX = "model_index.json"
TIMEOUT = 10  # seconds to wait for the hub, once
TRAINS = {"tiny-kontext": "omnirefiner_tiny", "tiny-pix2pix": "spie_tiny", "tiny-flux2": "dyref_tiny"}
"""For each embedded model the recipe that trains it, to try while a large one is not at hand."""


def check_checkpoint(checkpoint: str, revision: str | None, pipeline: str, embedded: dict[str, Path]) -> None:
    """Make sure that a checkpoint can be loaded as far as its index tells; nothing large is downloaded.

    Args:
        checkpoint: an embedded model, a local folder or a hub repository.
        revision: of a hub repository.
        pipeline: the class of diffusers that it must hold.
        embedded: the embedded models.

    Raises:
        PolicyError: it cannot be reached, or holds another kind of model.
    """
    place = embedded.get(checkpoint, Path(checkpoint).expanduser())
    if place.is_dir():
        index = place / INDEX
        if not index.is_file():
            raise PolicyError(f"policy.checkpoint: the folder {place} has no {INDEX}; expected a {pipeline}")
    else:
        index = _fetch_index(checkpoint, revision, pipeline, embedded)
    found = _class_in(index)
    if found != pipeline:
        raise PolicyError(f"policy.checkpoint: {checkpoint} holds a {found}, expected a {pipeline}")


def unavailable(checkpoint: str, reason: str, pipeline: str, embedded: dict[str, Path]) -> PolicyError:
    """The one message for a checkpoint that is not at hand: why, and every way on."""
    page = f"https://huggingface.co/{checkpoint}"
    at_hand = [name for name, folder in embedded.items() if _class_in(folder / INDEX) == pipeline]
    tries = [f"policy.checkpoint={name}" for name in at_hand] + [f"rlrefine train {TRAINS[name]}" for name in at_hand]
    no_download = f"\n  without any download: {', or '.join(tries)}" if tries else ""
    return PolicyError(
        f"policy.checkpoint: cannot load {checkpoint!r}: it is no folder here, and {reason}\n"
        f"  a gated repository, as FLUX.1-Kontext-dev is: accept its licence on {page},\n"
        "    then log in with `hf auth login`, or set HF_TOKEN\n"
        f"  a copy on disk: policy.checkpoint=/path/to/folder{no_download}"
    )


def _fetch_index(checkpoint: str, revision: str | None, pipeline: str, embedded: dict[str, Path]) -> Path:
    """The index of a hub repository, from the cache or else from the hub, which is asked once and not again."""
    import huggingface_hub as hub
    from huggingface_hub import errors

    try:
        cached = hub.try_to_load_from_cache(checkpoint, INDEX, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        hub.get_hf_file_metadata(hub.hf_hub_url(checkpoint, INDEX, revision=revision), timeout=TIMEOUT)
        return Path(hub.hf_hub_download(checkpoint, INDEX, revision=revision))
    except errors.HFValidationError:
        reason = "no name of a repository of the Hugging Face hub"
    except errors.OfflineModeIsEnabled:
        reason = "not in the cache of the Hugging Face hub, which HF_HUB_OFFLINE keeps from being asked"
    except errors.GatedRepoError:
        reason = "the Hugging Face hub does not give it to you: it is gated"
    except errors.RepositoryNotFoundError:
        reason = "the Hugging Face hub has no such repository, or does not show it to you"
    except errors.RevisionNotFoundError:
        reason = f"its repository has no revision {revision!r}"
    except errors.EntryNotFoundError:
        reason = f"its repository has no {INDEX}"
    except Exception as error:  # the hub's client raises whatever the network library below it does
        reason = f"the Hugging Face hub cannot be reached ({type(error).__name__}: {str(error).splitlines()[0]})"
    raise unavailable(checkpoint, reason, pipeline, embedded)


def _class_in(index: Path) -> str:
    try:
        content: Any = json.loads(index.read_text(encoding="utf-8"))
        return str(content["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PolicyError(f"policy.checkpoint: cannot read {index} as the index of a pipeline ({error!r})") from error
