"""Small random DreamSim weights for the tests of the real package."""

import pytest

from tests.rewards.random_dreamsim import make_small, write_weights


@pytest.fixture(scope="session")
def dreamsim_folder(tmp_path_factory):
    """The folder of random weights of a DreamSim model, made once; tests must not change it."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)

        def folder(model, *, hub=False):
            if (model, hub) not in made:
                made[model, hub] = write_weights(model, tmp_path_factory.mktemp(model) / "weights", hub=hub)
            return made[model, hub]

        yield folder
