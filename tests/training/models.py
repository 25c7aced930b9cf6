"""Every policy and its variants, on small random models of the real classes."""

MODELS = {
    "flux_kontext": ("make_kontext", {}),
    "flux_kontext, `position_ids: mask`": ("make_kontext", {"position_ids": "mask"}),
    "flux2, `klein_base`": ("make_flux2", {"variant": "klein_base"}),
    "flux2, `klein`": ("make_flux2", {"variant": "klein"}),
    "flux2, `dev`": ("make_flux2", {"variant": "dev"}),
    "qwen_image_edit_plus, as 2511": ("make_qwen", {"zero_cond_t": True}),
    "qwen_image_edit_plus, as 2509": ("make_qwen", {"zero_cond_t": False}),
    "instruct_pix2pix": ("make_pix2pix", {}),
}
"""By what the table of the docs calls it: the fixture that makes the policy, and its settings."""
SCALES = {("image", "text"): {"image": 1.5, "text": 7.5}, ("text",): 4.0, (): 2.5}
"""By the conditions that have one."""


def policy_of(request, model, **settings):
    """A policy of its own."""
    fixture, own = MODELS[model]
    return request.getfixturevalue(fixture)(**own, **settings)


def guidance_of(policy):
    """A scale that the policy takes, with a second evaluation where it has one."""
    return SCALES[policy.settings.scales] if getattr(policy.settings, "guided", True) else 1.0
