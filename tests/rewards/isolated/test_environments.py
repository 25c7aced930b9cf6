"""A reward whose pins conflict with ours, in an environment of its own that really has them."""

import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
import torch

from rewards import RewardError, RewardInputs
from rewards.isolated.client import isolated
from rewards.isolated.environments import NoEnvironmentError, build, built_in, environments_folder, lock
from rewards.isolated.settings import Isolation
from rewards.plugins import load_entry
from rewards.registry import REWARDS
from rewards.testing import check_reward
from tests.rewards.test_plugins import install

EXAMPLE = Path(__file__).parents[2] / "examples" / "old_numpy_reward"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RLREFINE_CACHE", str(tmp_path / "cache"))


def wheel_of(example, place):
    """The example as an installer wants it; written here, so that no build tool has to be fetched."""
    import tomllib

    project = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {need}\n" for need in project["dependencies"])
    points = project["entry-points"]["rlrefine.rewards"]
    files = {str(file.relative_to(example / "src")): file.read_bytes() for file in (example / "src").rglob("*.py")}
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    listed = "".join(f"{point} = {value}\n" for point, value in points.items())
    files[f"{info}/entry_points.txt"] = f"[rlrefine.rewards]\n{listed}".encode()
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"]).encode()
    target = place / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return target, points


@pytest.fixture
def known_here(tmp_path, monkeypatch):
    """Its settings can be read in this process, as after ``pip install --no-deps``; it itself cannot be built."""
    wheel, points = wheel_of(EXAMPLE, tmp_path)
    install(tmp_path / "site", "old_numpy_reward", points)
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setitem(REWARDS, "thumbnail", load_entry("thumbnail"))
    yield wheel
    for name in [name for name in sys.modules if name.partition(".")[0] == "old_numpy_reward"]:
        del sys.modules[name]


def test_it_cannot_live_here(known_here):
    """Its pins conflict with what this project asks for, and its code with what is installed."""
    ours = [need for need in requires("rlrefine") or () if need.startswith(("numpy", "pillow"))]
    assert any("numpy<3,>=2" in need or "numpy>=2" in need for need in ours), ours
    with pytest.raises(AttributeError):
        REWARDS["thumbnail"].build({"side": 4})


@pytest.mark.environments
def test_it_lives_in_an_environment_of_its_own(known_here, tmp_path):
    """Locked with hashes, built by pip, and asked from here: about a minute, and a gigabyte for its torch."""
    torch_here = f"torch=={torch.__version__.partition('+')[0]}"
    text = lock([str(known_here), torch_here], sys.executable)
    assert "numpy==1.26.4 --hash=sha256:" in text
    file = tmp_path / "old.txt"
    file.write_text(text.replace("old_numpy_reward==1.0", f"old_numpy_reward @ {known_here.as_uri()}"))
    said = []
    folder = build("old", file, sys.executable, said.append)
    assert build("old", file, sys.executable, said.append) == folder
    assert len(said) == 1  # the second time it was there
    reward = isolated("thumb", "thumbnail", {"side": 2}, Isolation(environment="old"))
    check_reward(reward)
    inputs = RewardInputs(images=torch.full((3, 3, 8, 8), 0.4))
    assert torch.allclose(reward(inputs).values, torch.full((3,), 102 / 255))  # 0.4·255 = 102
    broken = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages" / "numpy"
    assert broken.is_dir()


def test_an_environment_that_was_not_built(tmp_path):
    with pytest.raises(RewardError, match="'image_reward' is not there; make it with rlrefine rewards build image_rew"):
        isolated("x", "image_reward", {}, Isolation(environment="image_reward"))


@pytest.mark.parametrize("python", ["/nowhere/python", "false"])
def test_nothing_is_left_of_an_environment_that_cannot_be_made(tmp_path, python):
    file = tmp_path / "list.txt"
    file.write_text("torch==0.0.0\n")
    with pytest.raises(NoEnvironmentError):
        build("mine", file, python, print)
    assert not (environments_folder() / "mine").exists()


def test_names_that_are_none():
    for name in ("../up", "a/b", ""):
        with pytest.raises(NoEnvironmentError, match="a name of letters"):
            build(name, None, sys.executable, print)
    with pytest.raises(NoEnvironmentError, match="no environment 'nothing'; built in: image_reward"):
        build("nothing", None, sys.executable, print)


def test_what_is_built_in_asks_for_whole_versions():
    assert "image-reward==1.5" in built_in()["image_reward"]


def test_image_reward_says_how_it_is_installed():
    with pytest.raises(RewardError, match="make its environment with rlrefine rewards build image_reward"):
        REWARDS["image_reward"].build({})
