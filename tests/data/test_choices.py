"""Templates and drawn references: the same for a row in every run, evenly spread over rows."""

import json
from collections import Counter

import pytest
from PIL import Image

from rlrefine.data.build import build_rows
from rlrefine.data.choices import RowChoices, fields_of
from rlrefine.data.loading import Rows
from rlrefine.data.sources import parse_source
from rlrefine.errors import DataError, RecipeError
from rlrefine.recipe.load import load_recipe

STYLES = [f"style-{number}.png" for number in range(5)]
ROWS = [
    {
        "id": f"row {number}",
        "input": "wooden chair",
        "reference_file_names": ["scene.png", *STYLES],
        "reference_roles": ["scene", *["style"] * 5],
    }
    for number in range(500)
]
TWO = RowChoices(templates=("turn the {input} into {style}", "a {input} of {style}"), fields={"style": "gold"})
ONE_STYLE = RowChoices(templates=TWO.templates, fields=TWO.fields, draw_one=("style",))


def test_every_row_takes_a_template_and_each_is_taken_as_often():
    prompts = Counter(TWO.prompt(row, index) for index, row in enumerate(ROWS))
    assert set(prompts) == {"turn the wooden chair into gold", "a wooden chair of gold"}
    assert min(prompts.values()) > 200  # 250 expected, standard deviation 11


def test_a_choice_belongs_to_the_row_and_the_seed_and_not_to_its_place():
    moved = [TWO.prompt(row, 499 - index) for index, row in enumerate(ROWS)]
    assert moved == [TWO.prompt(row, index) for index, row in enumerate(ROWS)]
    other = RowChoices(templates=TWO.templates, fields=TWO.fields, seed=1)
    assert moved != [other.prompt(row, index) for index, row in enumerate(ROWS)]


def test_one_reference_of_a_role_stays_and_those_of_others_do():
    applied = [ONE_STYLE.applied(row, index) for index, row in enumerate(ROWS)]
    assert all(row["reference_roles"] == ["scene", "style"] for row in applied)
    assert all(row["reference_file_names"][0] == "scene.png" for row in applied)
    styles = Counter(row["reference_file_names"][1] for row in applied)
    assert set(styles) == set(STYLES)
    assert min(styles.values()) > 60  # 100 expected, standard deviation 9


def test_without_choices_a_row_is_as_it_is():
    row = {**ROWS[0], "prompt": "as it is"}
    assert RowChoices().applied(row, 0) == row


def test_a_field_that_no_column_has_is_named():
    with pytest.raises(DataError, match=r"row row 0: expected text for \{colour\}, found None"):
        RowChoices(templates=("paint the {input} {colour}",)).prompt(ROWS[0], 0)
    for wrong in ("a {} b", "a {0}", "{a.b}"):
        with pytest.raises(ValueError, match="expected names in the braces"):
            fields_of(wrong)


def test_rows_on_disk_need_no_prompt_with_templates(tmp_path):
    folder = tmp_path / "rows"
    build_rows(parse_source("fur:validation"), (64, 64), folder, 2)
    lines = (folder / "metadata.jsonl").read_text().replace('"prompt"', '"said"')
    (folder / "metadata.jsonl").write_text(lines)
    with pytest.raises(DataError, match="prompt: expected text, found no such column"):
        Rows(folder, (64, 64))
    choices = RowChoices(templates=("{input}, {style}",), draw_one=("style",))
    rows = Rows(folder, (64, 64), choices)
    assert [rows.example(index).prompt for index in range(2)] == ["dark part, fur", "dark part, fur"]
    whole = Rows(folder, (64, 64), RowChoices(templates=("{input}, {style}",)))
    for index in range(2):
        one, five = rows.example(index).references, whole.example(index).references
        place = choices.kept(whole.columns[index], index)[0]
        assert (one[0].image == five[place].image).all()
    assert rows.fingerprint != whole.fingerprint


def test_a_recipe_says_so_before_anything_is_made():
    with pytest.raises(RecipeError) as caught:
        load_recipe("omnirefiner_tiny", ["data.train=fur:train", "data.prompts.templates=['paint it {colour}']"])
    assert "expected text for {colour}" in str(caught.value)
    with pytest.raises(RecipeError) as caught:
        load_recipe("omnirefiner_tiny", ["data.prompts.templates=['paint {it']"])
    assert "sentences with named fields in braces" in str(caught.value)
    with pytest.raises(RecipeError) as caught:
        load_recipe("omnirefiner_tiny", ["data.train=fur:train"])
    assert "target_file_name" in str(caught.value)  # rewards against a target, and these rows have none


def test_references_keep_their_shape_at_a_number_of_pixels(tmp_path):
    """A picture of 120 × 30 has the shape of 128 × 32, which is 4096 pixels; masks go with their references."""
    for name, size in {"draft": (64, 64), "wide": (120, 30), "square": (50, 50), "mask": (120, 30)}.items():
        Image.new("RGB", size, "white").save(tmp_path / f"{name}.png")
    row = {
        "prompt": "a",
        "draft_file_name": "draft.png",
        "target_file_name": "draft.png",
        "reference_file_names": ["wide.png", "square.png"],
        "reference_mask_file_names": ["mask.png", None],
    }
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    example = Rows(tmp_path, (32, 32), RowChoices(reference_pixels=4096)).example(0)
    assert [tuple(each.image.shape[1:]) for each in example.references] == [(32, 128), (64, 64)]
    assert example.references[0].mask.shape == (1, 32, 128)
    assert example.draft.shape == example.target.shape == (3, 32, 32)
    plain = Rows(tmp_path, (32, 32))
    assert [tuple(each.image.shape[1:]) for each in plain.example(0).references] == [(32, 32)] * 2
    assert plain.fingerprint != Rows(tmp_path, (32, 32), RowChoices(reference_pixels=4096)).fingerprint
