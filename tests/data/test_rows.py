import json

import numpy as np
import pytest
import torch
from PIL import Image

from rlrefine.data.folder import read_rows
from rlrefine.data.loading import Rows
from rlrefine.data.sampler import rows_of_step
from rlrefine.errors import DataError

SIZE = (64, 64)


def test_a_folder_loads_with_its_columns(folder):
    rows = Rows(folder, SIZE)
    batch = rows.batch([4, 1])
    assert batch.prompts == ["restore number 4", "restore number 1"]
    assert batch.drafts.shape == (2, 3, 64, 64)
    assert batch.masks.shape == (2, 1, 64, 64)
    assert batch.examples[0].extras == {"kind": "noise"}
    expected = np.asarray(Image.open(folder / "4-target.png"), dtype=np.float32) / 255
    assert torch.equal(batch.targets[0], torch.from_numpy(expected).permute(2, 0, 1))


def test_images_are_brought_to_the_recipes_size(folder):
    assert Rows(folder, (32, 48)).batch([0]).drafts.shape == (1, 3, 32, 48)


def test_conditioning_images_come_in_the_order_of_the_roles(folder):
    example = Rows(folder, SIZE).example(2)
    draft, reference = example.draft, example.references[0].image
    assert [id(image) for image in example.conditioning_images(["reference", "draft"])] == [id(reference), id(draft)]
    with pytest.raises(DataError, match=r"row row-2 has no image of the role 'style'.*draft, reference"):
        example.conditioning_images(["style"])


def test_several_references_with_roles(folder, rewrite):
    for number in range(6):
        rewrite(number, reference_file_names=["0-reference.png", "1-reference.png"], reference_roles=["logo", "style"])
    example = Rows(folder, SIZE).example(0)
    assert [reference.role for reference in example.references] == ["logo", "style"]
    assert len(example.conditioning_images(["draft", "style", "logo"])) == 3


def test_rows_without_target_or_mask(folder, rewrite):
    for number in range(6):
        rewrite(number, target_file_name=..., mask_file_name=...)
    batch = Rows(folder, SIZE).batch([0, 1])
    assert batch.targets is None
    assert batch.masks is None


def test_a_truncated_picture_names_the_file_and_the_row(folder):
    content = (folder / "3-target.png").read_bytes()
    (folder / "3-target.png").write_bytes(content[: len(content) // 2])
    rows = Rows(folder, SIZE)
    rows.example(2)
    with pytest.raises(DataError, match=r"3-target\.png \(target of row-3\)"):
        rows.example(3)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"draft_file_name": "none.png"}, r"line 3: draft_file_name: no file 'none\.png'"),
        ({"draft_file_name": ...}, "line 3: draft_file_name: expected text, found no such column"),
        ({"prompt": 7}, "line 3: prompt: expected text, found 7"),
        ({"target_file_name": "../secret.png"}, r"expected a file inside the folder, found '\.\./secret\.png'"),
        ({"target_file_name": "/etc/passwd"}, "expected a file inside the folder, found '/etc/passwd'"),
        ({"mask_file_name": "https://example.com/x.png"}, "expected a file inside the folder"),
        ({"reference_file_names": "0-reference.png"}, "reference_file_names: expected a list of files"),
        ({"reference_roles": ["a", "b"]}, "expected one role for each of 1 references"),
    ],
)
def test_a_row_that_is_wrong_is_shown_with_its_line(folder, rewrite, columns, message):
    rewrite(2, **columns)
    with pytest.raises(DataError, match=message):
        read_rows(folder)


def test_a_link_that_leads_out_of_the_folder_is_refused(folder, rewrite, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (64, 64)).save(secret)
    (folder / "link.png").symlink_to(secret)
    rewrite(0, draft_file_name="link.png")
    with pytest.raises(DataError, match="leads out of the folder"):
        read_rows(folder)


def test_problems_are_listed_together_and_the_list_is_short(folder, rewrite):
    for number in range(6):
        rewrite(number, draft_file_name="a.png", target_file_name="b.png", mask_file_name="c.png", prompt=None)
    with pytest.raises(DataError, match="24 problems") as caught:
        read_rows(folder)
    assert "and 4 more" in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("{\n", "not JSON"), ("[1]\n", "expected a mapping"), ("", "no rows")])
def test_broken_metadata(folder, text, message):
    (folder / "metadata.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        read_rows(folder)


def test_missing_folders_and_metadata_are_told_apart(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        read_rows(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no metadata\.jsonl"):
        read_rows(tmp_path)


def test_the_fingerprint_notices_a_changed_picture_or_prompt(folder, rewrite):
    before = Rows(folder, SIZE).fingerprint
    assert Rows(folder, SIZE).fingerprint == before
    rewrite(0, prompt="another")
    changed = Rows(folder, SIZE).fingerprint
    Image.new("RGB", (64, 64)).save(folder / "0-draft.png")
    assert len({before, changed, Rows(folder, SIZE).fingerprint}) == 3


def test_every_row_comes_once_in_an_epoch():
    total, count = 10, 4
    seen = [row for step in range(5) for row in rows_of_step(7, step, count, total)]
    assert sorted(seen[:10]) == list(range(10))
    assert sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_rows_of_a_step_are_a_pure_function():
    assert rows_of_step(0, 123, 4, 50) == rows_of_step(0, 123, 4, 50)
    assert rows_of_step(0, 123, 4, 50) != rows_of_step(1, 123, 4, 50)


def test_a_step_may_be_larger_than_the_data():
    assert len(rows_of_step(0, 0, 7, 3)) == 7


def test_metadata_may_have_empty_lines(folder):
    file = folder / "metadata.jsonl"
    file.write_text("\n" + file.read_text() + "\n\n")
    assert len(read_rows(folder)) == 6
    assert json.loads(file.read_text().splitlines()[1])["id"] == "row-0"


def test_two_rows_of_one_name_are_refused(folder, rewrite):
    rewrite(1, id="cup")
    rewrite(4, id="cup")
    with pytest.raises(DataError, match=r"line 5: id: expected each once, found 'cup' on line 2 too"):
        read_rows(folder)


def test_a_row_without_a_column_that_others_have_is_refused(folder, rewrite):
    rewrite(3, mask_file_name=None)
    with pytest.raises(DataError, match=r"line 4: mask_file_name: .*found nothing, unlike in the first row"):
        read_rows(folder)


def test_draft_target_and_mask_show_one_frame(folder):
    from rlrefine.data.images import check_files

    Image.new("L", (64, 48)).save(folder / "2-mask.png")
    expected = r"row row-2: expected draft, target and mask of one size, found .*mask 64 × 48"
    with pytest.raises(DataError, match=expected):
        Rows(folder, SIZE).example(2)
    with pytest.raises(DataError, match="of one size"):
        check_files(folder, read_rows(folder))


def test_a_list_in_another_encoding_is_one_message(folder):
    metadata = folder / "metadata.jsonl"
    metadata.write_bytes(metadata.read_text().replace("restore", "restauré").encode("latin-1"))
    with pytest.raises(DataError, match="line 1: not JSON"):
        read_rows(folder)


def test_the_fingerprint_sees_pictures_in_folders_and_nothing_else(folder, rewrite):
    (folder / "images").mkdir()
    (folder / "0-target.png").rename(folder / "images/t.png")
    rewrite(0, target_file_name="images/t.png")
    before = Rows(folder, SIZE).fingerprint
    (folder / ".DS_Store").write_text("x")
    assert Rows(folder, SIZE).fingerprint == before
    Image.new("RGB", (64, 64), "red").save(folder / "images/t.png")
    assert Rows(folder, SIZE).fingerprint != before


def test_no_id_is_the_name_that_another_row_has_by_its_place(folder, rewrite):
    rewrite(0, id=None)
    rewrite(2, id="row-00000")
    with pytest.raises(DataError, match=r"line 3: id: expected each once, found 'row-00000' on line 1 too"):
        read_rows(folder)


@pytest.fixture
def with_mask(rewrite):
    """Give the reference of one row a mask; those of the others have none."""

    def change(row, name):
        for number in range(6):
            rewrite(number, reference_mask_file_names=[name if number == row else None])

    return change


def test_masks_of_references_arrive_where_rows_have_them(folder, with_mask):
    with_mask(1, "4-mask.png")
    rows = Rows(folder, SIZE)
    batch = rows.batch([0, 1, 2])
    assert [example.references[0].mask is None for example in batch.examples] == [True, False, True]
    assert torch.equal(batch.examples[1].references[0].mask, rows.example(4).mask)
    masks = batch.conditioning_masks(["reference", "draft"])[1]
    assert torch.equal(masks[0], rows.example(4).mask)
    assert torch.equal(masks[1], rows.example(1).mask)


def test_borrowed_references_bring_their_masks(folder, with_mask):
    with_mask(1, "4-mask.png")
    rows = Rows(folder, SIZE)
    borrowed = rows.batch([0]).with_references_of(rows.batch([1]))
    assert torch.equal(borrowed.examples[0].references[0].mask, rows.example(4).mask)


@pytest.mark.parametrize("names", [["0-mask.png", "1-mask.png"], "0-mask.png"])
def test_a_reference_has_one_mask(folder, rewrite, names):
    rewrite(0, reference_mask_file_names=names)
    with pytest.raises(DataError, match="line 1: reference_mask_file_names: expected a mask or null for each of 1 ref"):
        read_rows(folder)


def test_a_reference_and_its_mask_show_one_frame(folder, with_mask):
    from rlrefine.data.images import check_files

    Image.new("L", (64, 48)).save(folder / "small.png")
    with_mask(0, "small.png")
    for look in (lambda: Rows(folder, SIZE).example(0), lambda: check_files(folder, read_rows(folder))):
        with pytest.raises(DataError, match="row row-0: expected a reference and its mask of one size, found 64 × 64"):
            look()


def test_the_fingerprint_sees_masks_of_references(folder, with_mask):
    Image.new("L", (64, 64)).save(folder / "region.png")
    with_mask(0, "region.png")
    before = Rows(folder, SIZE).fingerprint
    Image.new("L", (64, 64), 77).resize((64, 64)).save(folder / "region.png", compress_level=0)
    assert Rows(folder, SIZE).fingerprint != before


def test_masks_of_references_are_named_in_every_row_or_in_none(folder, rewrite):
    rewrite(0, reference_mask_file_names=["4-mask.png"])
    with pytest.raises(DataError, match="line 2: reference_mask_file_names: expected the same in every row"):
        read_rows(folder)


@pytest.fixture
def with_pairs(rewrite):
    """Give every row a pair: its target, and the draft that was worse."""
    for number in range(6):
        rewrite(number, chosen_file_name=f"{number}-target.png", rejected_file_name=f"{number}-draft.png")


def test_pairs_arrive_with_the_chosen_one_first(folder, with_pairs):
    batch = Rows(folder, SIZE).batch([4, 1])
    assert batch.pairs.shape == (2, 2, 3, 64, 64)
    assert torch.equal(batch.pairs[:, 0], batch.targets)
    assert torch.equal(batch.pairs[:, 1], batch.drafts)
    assert batch.examples[0].extras == {"kind": "noise"}
    assert batch[slice(1, 2)].pairs.shape[0] == 1


def test_rows_without_pairs_have_none(folder):
    assert Rows(folder, SIZE).batch([0]).pairs is None


def test_half_a_pair_is_refused(folder, rewrite, with_pairs):
    rewrite(2, rejected_file_name=None)
    expected = "line 3: rejected_file_name: expected a file, as the row has the other one of the pair, found nothing"
    with pytest.raises(DataError, match=expected):
        read_rows(folder)


def test_a_pair_shows_the_frame_of_its_row(folder, rewrite, with_pairs):
    Image.new("RGB", (64, 48)).save(folder / "small.png")
    rewrite(2, rejected_file_name="small.png")
    with pytest.raises(DataError, match="row row-2: expected draft, target, mask, chosen and rejected of one size"):
        Rows(folder, SIZE).example(2)


def test_the_fingerprint_sees_pairs(folder, with_pairs, rewrite):
    Image.new("RGB", (64, 64)).save(folder / "worse.png")
    rewrite(0, rejected_file_name="worse.png")
    before = Rows(folder, SIZE).fingerprint
    Image.new("RGB", (64, 64), "red").save(folder / "worse.png")
    assert Rows(folder, SIZE).fingerprint != before
