import pytest
import torch


@pytest.fixture(scope="session")
def saved_pix2pix(random_pix2pix, tmp_path_factory):
    """The random InstructPix2Pix as a folder."""
    folder = tmp_path_factory.mktemp("policies") / "pix2pix"
    random_pix2pix.save_pretrained(folder)
    return folder


@pytest.fixture
def load(random_checkpoint):
    """Load the random model with settings of a recipe."""
    from policies.flux_kontext import FluxKontext
    from policies.settings import FluxKontextSettings

    def make(precision="fp32", device="cpu", **settings):
        given = {"checkpoint": str(random_checkpoint), "prompt_tokens": 16} | settings
        return FluxKontext.load(FluxKontextSettings(**given), device, precision)

    return make


@pytest.fixture(scope="session")
def saved_flux2(random_flux2, tmp_path_factory):
    """The random FLUX.2 pipelines as folders, by variant."""
    made = {}

    def folder(variant="klein_base"):
        if variant not in made:
            made[variant] = tmp_path_factory.mktemp("policies") / variant
            random_flux2(variant).save_pretrained(made[variant])
        return made[variant]

    return folder


@pytest.fixture(scope="session")
def saved_qwen(random_qwen, tmp_path_factory):
    """The random Qwen-Image-Edit-Plus as a folder."""
    folder = tmp_path_factory.mktemp("policies") / "qwen"
    random_qwen().save_pretrained(folder)
    return folder


@pytest.fixture
def load_any(load, saved_pix2pix, saved_flux2, request):
    """Load the random model of any kind."""
    from policies.registry import POLICIES
    from pretraining.flux2_components import LAYERS
    from pretraining.qwen_components import PIXELS

    def make(name, precision="fp32", **settings):
        if name == "flux_kontext":
            return load(precision, **settings)
        given = {"checkpoint": str(saved_pix2pix)}
        if name == "flux2":
            folder = saved_flux2(settings.get("variant", "klein_base"))
            given = {"checkpoint": str(folder), "prompt_tokens": 192, "text_layers": LAYERS}
        if name == "qwen_image_edit_plus":
            given = {"checkpoint": str(request.getfixturevalue("saved_qwen")), **PIXELS}
        entry = POLICIES[name]
        return entry.load(entry.settings(**given, **settings), "cpu", precision)

    return make


@pytest.fixture
def rows():
    """Two rows: prompts, a draft of 64 × 64 and a reference of 32 × 96 pixels each, and their masks."""
    generator = torch.Generator().manual_seed(1)
    images = [[torch.rand(3, 64, 64, generator=generator), torch.rand(3, 32, 96, generator=generator)] for _ in "ab"]
    masks = [[torch.zeros(1, 64, 64), torch.zeros(1, 32, 96)] for _ in "ab"]
    masks[0][0][:, :32], masks[1][0][:, 32:], masks[0][1][:, :, 48:], masks[1][1][:, :, :48] = 1, 1, 1, 1
    return ["restore the text", "restore the logo"], images, masks


@pytest.fixture
def latents():
    """For the two rows."""
    return torch.randn(2, 64, 32)
