"""The words of a plan: what memory is made of, and the phases of a step in which it is looked at. No torch here."""

Bytes = dict[str, int]
"""Bytes by component."""

Phases = dict[str, Bytes]
"""Components at the peak of each phase."""

TEMPORARY = "activations"
BASE, EARLIER, TRAINED = "base weights", "earlier adapters", "trained weights"
COPY, AVERAGE, OLD = "reference copy", "running average", "old weights"
UNMERGED = "weights from before merging"
GRADIENTS, OPTIMIZER = "gradients", "optimiser"
TEXT, AUTOENCODER, REWARDS = "text encoders", "autoencoder", "reward networks"
ROWS, ENCODED, TRAJECTORIES, IMAGES = "rows", "encoded rows", "trajectories", "images"
BUFFERS, GATHERED = "engine's buffers", "gathered weights"

COMPONENTS = (
    BASE, EARLIER, TRAINED, COPY, AVERAGE, OLD, UNMERGED, GRADIENTS, OPTIMIZER, GATHERED, BUFFERS, TEXT, AUTOENCODER,
    REWARDS, ROWS, ENCODED, TRAJECTORIES, IMAGES, TEMPORARY,
)  # fmt: skip
"""All of them, in the order in which they are shown."""

PROMPTS, ENCODE, ROLLOUT, DECODE = "prompts", "encode", "rollout", "decode"
REWARD, UPDATE, STEP, SAVE = "reward", "update", "optimiser step", "save"
EVALUATION_ENCODE, EVALUATION_ROLLOUT = "evaluation: encode", "evaluation: rollout"
EVALUATION_DECODE, EVALUATION_REWARD = "evaluation: decode", "evaluation: reward"

PHASES = (
    PROMPTS, ENCODE, ROLLOUT, DECODE, REWARD, UPDATE, STEP, SAVE, EVALUATION_ENCODE, EVALUATION_ROLLOUT,
    EVALUATION_DECODE, EVALUATION_REWARD,
)  # fmt: skip
"""All of them, in the order of a run."""

WAITING = frozenset({ROWS, COPY, UNMERGED})
"""What is in host memory, whatever the network runs on."""
NETWORK_PHASES = frozenset({ROLLOUT, UPDATE, EVALUATION_ROLLOUT})
"""Those in which the network that is trained is called."""
VISITS = {
    TEXT: frozenset({PROMPTS}),
    AUTOENCODER: frozenset({ENCODE, DECODE, EVALUATION_ENCODE, EVALUATION_DECODE}),
}
"""The phases in which parts work that may live in host memory otherwise."""
