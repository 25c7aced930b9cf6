"""What can go wrong with a model."""


class PolicyError(RuntimeError):
    """A model cannot be loaded, or is given what it cannot work with."""

    exit_code = 2
