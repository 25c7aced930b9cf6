"""Random networks, made once."""

import pytest


@pytest.fixture(scope="session")
def network_folder(tmp_path_factory):
    """The folder of a random network of a kind; tests must not change it."""
    from tests.rewards.random_networks import write_network

    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = write_network(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def released_style(tmp_path_factory):
    """CSD's file with random weights; tests must not change it."""
    from tests.rewards.random_style import released

    file = tmp_path_factory.mktemp("csd") / "pytorch_model.bin"
    released(file)
    return file
