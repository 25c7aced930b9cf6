"""Which tests belong to the slow tier, ``make test-slow``: those that repeat the idea of one that stays."""

from collections.abc import Iterable

import pytest


def slow_but(kept, values: Iterable) -> list:
    """Parameters of a test or fixture: those that are kept run with all other tests, the rest in the slow tier.

    Raises:
        AssertionError: one that is to be kept is no parameter, so that the idea would be in the slow tier alone.
    """
    values = list(values)
    assert set(kept) <= set(values), f"{set(kept) - set(values)} of {values}"
    return [value if value in kept else pytest.param(value, marks=pytest.mark.slow) for value in values]
