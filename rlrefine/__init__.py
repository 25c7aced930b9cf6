"""rlrefine: post-train image editors with reinforcement learning; rewards, policies and recipes that compose."""

__version__ = "0.1.0"
