"""One thread, one seed, and small things that many tests need."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest


def pytest_configure(config):
    """GPUs are for ``-m gpu`` alone: all other tests run on the CPU, and some of them fork."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_finish(session):
    """Modules stay: without them in its way, collecting garbage takes a tenth of the time, and stages do it often."""
    gc.freeze()


@pytest.fixture(autouse=True)
def one_thread_and_seed(request):
    """Results must not depend on the machine or on the order of tests."""
    if request.path.parent.name in ("contracts", "recipe", "cli"):
        return
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def random_kontext():
    """A FLUX.1-Kontext pipeline of the real classes with random weights; tests must not change it."""
    import torch

    from pretraining.components import autoencoder, pipeline
    from pretraining.edits import corpus

    torch.manual_seed(0)
    vae = autoencoder()
    vae.register_to_config(shift_factor=0.1, scaling_factor=0.7)
    pipe = pipeline(corpus(), vae)
    for part in (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        part.eval().requires_grad_(False)
    with torch.no_grad():  # the output layer starts at a tenth of its usual size; larger velocities test more
        pipe.transformer.proj_out.weight.mul_(3)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def make_kontext(random_kontext):
    """Policies of their own around copies of the random pipeline, with settings of a recipe."""
    import copy

    from policies.flux_kontext import FluxKontext
    from policies.settings import FluxKontextSettings

    def make(**settings):
        given = FluxKontextSettings(**{"checkpoint": "random", "prompt_tokens": 16, **settings})
        return FluxKontext(copy.deepcopy(random_kontext), given)

    return make


@pytest.fixture
def kontext_policy(make_kontext):
    """A policy of its own around a copy of the random pipeline."""
    return make_kontext()


@pytest.fixture(scope="session")
def random_pix2pix():
    """An InstructPix2Pix pipeline of the real classes with random weights; tests must not change it."""
    import torch

    from pretraining.components import autoencoder
    from pretraining.edits import corpus
    from pretraining.pix2pix_components import pipeline

    torch.manual_seed(0)
    vae = autoencoder()
    vae.register_to_config(scaling_factor=0.7)
    pipe = pipeline(corpus(), vae)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def make_pix2pix(random_pix2pix):
    """Policies of their own around copies of the random pipeline, with settings of a recipe."""
    import copy

    from policies.instruct_pix2pix import InstructPix2Pix
    from policies.settings import InstructPix2PixSettings

    def make(**settings):
        given = InstructPix2PixSettings(checkpoint="random", **settings)
        return InstructPix2Pix(copy.deepcopy(random_pix2pix), given)

    return make


@pytest.fixture(scope="session")
def random_flux2():
    """FLUX.2 pipelines of the real classes with random weights, by variant; tests must not change them."""
    import torch

    from pretraining import flux2_components as components
    from pretraining.edits import corpus

    makers = {
        "klein_base": components.klein,
        "klein": lambda sentences: components.klein(sentences, distilled=True),
        "dev": components.dev,
    }
    made = {}

    def pipeline(variant):
        if variant not in made:
            torch.manual_seed(0)
            made[variant] = _frozen(makers[variant](corpus()))
        return made[variant]

    return pipeline


@pytest.fixture
def make_flux2(random_flux2):
    """Policies of their own around copies of the random pipelines, with settings of a recipe."""
    import copy

    from policies.flux2 import Flux2
    from policies.settings import Flux2Settings
    from pretraining.flux2_components import LAYERS

    def make(variant="klein_base", **settings):
        given = {"checkpoint": "random", "prompt_tokens": 192, "text_layers": LAYERS} | settings
        return Flux2(copy.deepcopy(random_flux2(variant)), Flux2Settings(variant=variant, **given))

    return make


@pytest.fixture(scope="session")
def random_qwen():
    """Qwen-Image-Edit-Plus pipelines of the real classes with random weights; tests must not change them.

    Takes whether conditioning tokens are modulated as at noise level 0, as in 2511.
    """
    import torch

    from pretraining.edits import corpus
    from pretraining.qwen_components import pipeline

    made = {}

    def make(zero_cond_t=True):
        if zero_cond_t not in made:
            torch.manual_seed(0)
            made[zero_cond_t] = _frozen(pipeline(corpus(), zero_cond_t=zero_cond_t))
        return made[zero_cond_t]

    return make


@pytest.fixture
def make_qwen(random_qwen):
    """Policies of their own around copies of the random pipelines, with settings of a recipe."""
    import copy

    from policies.qwen_image_edit_plus import QwenImageEditPlus
    from policies.settings import QwenImageEditPlusSettings
    from pretraining.qwen_components import PIXELS

    def make(zero_cond_t=True, **settings):
        given = QwenImageEditPlusSettings(**{"checkpoint": "random", **PIXELS, **settings})
        return QwenImageEditPlus(copy.deepcopy(random_qwen(zero_cond_t)), given)

    return make


def _frozen(pipe):
    """A pipeline whose parts do not learn, and whose network says more than it does at first."""
    import torch

    for part in (pipe.transformer, pipe.vae, pipe.text_encoder):
        part.eval().requires_grad_(False)
    with torch.no_grad():
        pipe.transformer.proj_out.weight.mul_(3)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def dreamsim_folder(tmp_path_factory):
    """The folder of random weights of a DreamSim model, made once; tests must not change it."""
    from tests.rewards.random_dreamsim import make_small, write_weights

    made = {}
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)

        def folder(model, *, hub=False):
            if (model, hub) not in made:
                made[model, hub] = write_weights(model, tmp_path_factory.mktemp(model) / "weights", hub=hub)
            return made[model, hub]

        yield folder


@pytest.fixture(scope="session")
def random_checkpoint(random_kontext, tmp_path_factory):
    """The random pipeline on disk."""
    folder = tmp_path_factory.mktemp("random") / "random-kontext"
    random_kontext.save_pretrained(folder)
    return folder


RANDOM_RECIPE = """
policy: {{name: flux_kontext, checkpoint: {checkpoint}, prompt_tokens: 16, lora: {{rank: 4, alpha: 4}}}}
data: {{train: {rows}, size: [32, 32]}}
stages:
  sft: {{objective: sft, steps: 4, optimizer: {{lr: 1.0e-2}}}}
  grpo: {{objective: sft, init: sft, steps: 4, optimizer: {{lr: 1.0e-2}}}}
  later: {{objective: sft, init: grpo, steps: 4, optimizer: {{lr: 1.0e-2}}}}
evaluation: {{steps: 2}}
run: {{out: {out}, name: random, trackers: []}}
"""


@pytest.fixture(scope="session")
def make_run(random_checkpoint, tmp_path_factory):
    """Make the folder of a run whose finished stages have random weights; nothing is trained, no picture is there.

    Takes the adapter of each stage, as LoraSettings, or none where every parameter was trained.
    """
    import torch

    from rlrefine.recipe.load import load_resolved
    from rlrefine.training.folder import RunFolder
    from rlrefine.training.handover import load_policy, publish_weights

    def make(**stages):
        place = tmp_path_factory.mktemp("run")
        rows = place / "rows"
        rows.mkdir()
        prompts = ["restore the text", "restore the face", "restore the face"]
        (rows / "metadata.jsonl").write_text(
            "".join(f'{{"prompt": "{prompt}", "draft_file_name": "d.png"}}\n' for prompt in prompts)
        )
        file = place / "recipe.yaml"
        file.write_text(RANDOM_RECIPE.format(checkpoint=random_checkpoint, rows=rows, out=place))
        recipe = load_resolved(file)
        folder = RunFolder(place / "random")
        folder.create(recipe)
        policy, below = load_policy(recipe.policy, "cpu"), None
        for seed, (label, lora) in enumerate(stages.items()):
            policy.stage.begin(label, seed, lora)
            with torch.no_grad():
                for parameter in policy.stage.parameters.values():
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
            publish_weights(folder.weights(label), policy, below, f"fingerprint of {label}")
            below = folder.weights(label)
        return folder

    return make
