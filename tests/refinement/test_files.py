"""Files in, files out: formats, hostile files, and lists of jobs."""

import csv
import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from rlrefine.cli import main
from rlrefine.errors import DataError, UsageError
from rlrefine.refinement.jobs import Job, read_jobs, refine_file, refine_files
from rlrefine.refinement.picture import open_picture
from rlrefine.refinement.refiner import Request
from rlrefine.training.progress import LineReporter
from tests.refinement.conftest import noise

INSIDE = np.s_[10:34, 20:50]


class Notes(LineReporter):
    """Remembers what was said."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture
def report():
    return Notes()


@pytest.fixture
def folder(tmp_path, reference):
    noise("RGB").save(tmp_path / "draft.png")
    reference.save(tmp_path / "reference.png")
    return tmp_path


@pytest.fixture
def refine(refiner, folder, report):
    """Refine the draft, or another one, into a file of the folder."""

    def now(out, draft="draft.png"):
        job = Job(draft=folder / draft, reference=folder / "reference.png", box="20,10,30,24", out=folder / out)
        refine_file(refiner, job, Request(), report)
        return Image.open(folder / out)

    return now


def outside(image):
    pixels = np.array(image).copy()
    pixels[INSIDE] = 0
    return pixels


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *((mode, suffix) for mode in ("L", "LA", "RGB", "RGBA", "I;16") for suffix in (".png", ".tif")),
        ("RGB", ".webp"),
        ("RGBA", ".webp"),
    ],
)
def test_files_without_loss_keep_every_bit_outside(refine, folder, mode, suffix):
    noise(mode).save(folder / "own.png")
    result = refine(f"out{suffix}", "own.png")
    assert result.mode == mode
    assert np.array_equal(outside(result), outside(noise(mode)))
    assert not np.array_equal(np.asarray(result), np.asarray(noise(mode)))


def test_profile_resolution_and_description_travel_along(refine, folder):
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a picture", 3
    noise("RGB").save(folder / "own.jpg", exif=exif, icc_profile=b"not really a profile", dpi=(300, 300))
    for name in ("out.png", "out.tif", "out.jpg"):
        result = refine(name, "own.jpg")
        assert result.info["icc_profile"] == b"not really a profile"
        assert round(float(result.info["dpi"][0])) == 300
        assert result.getexif()[0x010E] == "a picture"
        assert result.getexif().get(0x0112, 1) == 1


def test_a_lossy_result_says_so(refine, report):
    refine("out.jpg")
    assert any("stored with losses" in line for line in report.lines)


def test_an_ink_jpeg_becomes_rgb_and_says_so(refine, folder, report):
    noise("CMYK").save(folder / "own.jpg")
    result = refine("out.png", "own.jpg")
    assert result.mode == "RGB"
    assert np.array_equal(outside(result), outside(Image.open(folder / "own.jpg").convert("RGB")))
    assert any("has inks (CMYK)" in line for line in report.lines)


@pytest.mark.parametrize(
    ("mode", "out"), [("RGBA", "out.jpg"), ("LA", "out.webp"), ("I;16", "out.webp"), ("I;16", "out.jpg")]
)
def test_a_format_that_would_lose_something_is_refused(refine, folder, mode, out):
    noise(mode).save(folder / "own.png")
    with pytest.raises(UsageError, match=rf"cannot hold the {mode} pixels of .*own\.png; use \.png"):
        refine(out, "own.png")
    assert not (folder / out).exists()


@pytest.mark.parametrize("name", ["out.gif", "out", "out.bmp"])
def test_other_formats_are_not_written(refine, name):
    with pytest.raises(UsageError, match=r"expected a name that ends in \.png"):
        refine(name)


def png_16_bit_rgb(size=4):
    """A PNG with 16 bits in each colour, which Pillow reads as 8."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 16, 2, 0, 0, 0)
    lines = zlib.compress((b"\0" + bytes(6 * size)) * size)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def hostile(folder):
    """Files that must not be refined, and why."""
    whole = (folder / "draft.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    noise("RGB").save(folder / "whole.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:-500])
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.png").write_text("<html>not found</html>")
    (folder / "deep.png").write_bytes(png_16_bit_rgb())
    noise("RGB").save(folder / "moving.gif", save_all=True, append_images=[noise("RGB", seed=1)])
    Image.new("1", (8001, 8000)).save(folder / "huge.png")
    Image.new("F", (8, 8)).save(folder / "float.tif")
    os.mkfifo(folder / "pipe.png")
    return {
        "truncated.png": "cannot read",
        "truncated.jpg": "cannot read",
        "empty.png": "cannot read",
        "page.png": "cannot read",
        "missing.png": "cannot read",
        "deep.png": "16 bits in each colour",
        "moving.gif": "2 frames",
        "huge.png": "at most 64,000,000",
        "float.tif": "mode F",
        "pipe.png": "expected a file",
    }


def test_hostile_files_are_named_as_draft_reference_and_mask(refiner, folder, report):
    for name, message in hostile(folder).items():
        roles = {"draft": "draft.png", "reference": "reference.png", "mask": "draft.png"}
        for role in roles:
            files = {part: folder / file for part, file in {**roles, role: name}.items()}
            with pytest.raises(DataError, match=message) as found:
                refine_file(refiner, Job(**files, out=folder / "out.png"), Request(), report)
            assert name in str(found.value)
    assert not (folder / "out.png").exists()


def test_inputs_are_never_written_over(refiner, folder, report):
    (folder / "link.png").symlink_to(folder / "draft.png")
    (folder / "hard.png").hardlink_to(folder / "reference.png")
    for name in ("draft.png", "reference.png", "link.png", "hard.png", "../" + folder.name + "/draft.png"):
        job = Job(draft=folder / "draft.png", reference=folder / "reference.png", out=folder / name)
        with pytest.raises(UsageError, match="is an input"):
            refine_file(refiner, job, Request(), report)


def write_list(folder, rows, columns=("draft", "reference", "box", "prompt", "out")):
    with open(folder / "jobs.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return folder / "jobs.csv"


def test_bad_rows_are_named_and_the_others_are_done(refiner, folder, report):
    (folder / "broken.png").write_bytes(b"")
    listed = write_list(
        folder,
        [
            ("draft.png", "reference.png", "20,10,30,24", "", "a.png"),  # line 2
            ("missing.png", "reference.png", "", "", "b.png"),
            ("draft.png", "broken.png", "", "", "c.png"),
            ("draft.png", "reference.png", "1,2", "", "d.png"),
            ("draft.png", "reference.png", "900,0,5,5", "", "e.png"),
            ("", "reference.png", "", "", "f.png"),
            ("draft.png", "reference.png", "", "", "../g.png"),
            ("draft.png", "reference.png", "", "", "a.png"),
            ("draft.png", "reference.png", "", "x" * 500, "h.png"),  # more tokens than the policy reads
            ("draft.png", "reference.png", "", "restore the text", ""),  # line 11
        ],
    )
    jobs = read_jobs(listed, folder / "out")
    with pytest.raises(DataError) as found:
        refine_files(refiner, jobs, Request(), report, overwrite=False)
    problems = str(found.value).splitlines()
    assert problems[0] == "8 of 10 jobs could not be done"
    expected = (
        "missing.png",
        "broken.png",
        "found '1,2'",
        "columns 900",
        "found nothing",
        "inside",
        "line 2",
        "tokens",
    )
    for line, problem, part in zip(range(3, 11), problems[1:], expected, strict=True):
        assert problem.startswith(f"  line {line}: "), problem
        assert part in problem
    assert found.value.exit_code == 3
    assert sorted(file.name for file in (folder / "out").iterdir()) == ["a.png", "draft.png"]
    assert not (folder / "g.png").exists()
    assert report.lines[-1] == "2 refined, 0 were there already, 8 could not be done"


def test_a_list_goes_on_where_it_stopped(refiner, folder, report):
    rows = [("draft.png", "reference.png", f"{x},10,8,8", "", f"{x}.png") for x in (10, 20, 30)]
    jobs = read_jobs(write_list(folder, rows), folder / "out")
    refine_files(refiner, jobs[:1], Request(), report, overwrite=False)
    first = (folder / "out" / "10.png").stat()
    (folder / "out" / ".tmp-20.png").write_bytes(b"half")  # what a kill leaves behind
    refine_files(refiner, jobs, Request(), report, overwrite=False)
    assert report.lines[-1] == "2 refined, 1 were there already, 0 could not be done"
    assert (folder / "out" / "10.png").stat().st_mtime_ns == first.st_mtime_ns
    before = {file.name: file.read_bytes() for file in (folder / "out").iterdir()}
    refine_files(refiner, jobs, Request(), report, overwrite=True)
    assert {file.name: file.read_bytes() for file in (folder / "out").iterdir()} == before
    assert sorted(before) == ["10.png", "20.png", "30.png"]


def test_a_row_does_not_depend_on_its_neighbours(refiner, folder, report):
    rows = [("draft.png", "reference.png", "20,10,30,24", "", name) for name in ("one.png", "two.png")]
    refine_files(refiner, read_jobs(write_list(folder, rows), folder / "out"), Request(seed=5), report, overwrite=False)
    assert (folder / "out" / "one.png").read_bytes() == (folder / "out" / "two.png").read_bytes()


def test_a_folder_of_rows_is_a_list_too(refiner, folder, report):
    white = np.zeros((70, 90), dtype=np.uint8)
    white[INSIDE] = 255
    Image.fromarray(white).save(folder / "mask.png")
    row = {
        "id": "first",
        "prompt": "restore the text",
        "draft_file_name": "draft.png",
        "reference_file_names": ["reference.png"],
        "mask_file_name": "mask.png",
    }
    (folder / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    refine_files(refiner, read_jobs(folder, folder / "out"), Request(), report, overwrite=False)
    result = Image.open(folder / "out" / "first.png")
    assert np.array_equal(outside(result), outside(noise("RGB")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"draft,refrence\na,b\n", "unknown column 'refrence'; did you mean 'reference'"),
        (b"draft,reference\n", "no jobs"),
        (b"", "no jobs"),
        (b"draft\n\xff\xfe\n", "cannot be read as a list of jobs"),
    ],
)
def test_a_list_that_is_none_is_an_error(tmp_path, content, message):
    (tmp_path / "jobs.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_jobs(tmp_path / "jobs.csv", tmp_path / "out")
    with pytest.raises(DataError, match="cannot be read"):
        read_jobs(tmp_path / "nowhere.csv", tmp_path / "out")


def code_of(arguments):
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_the_command_refines_once_and_overwrites_only_when_told(shared_run, folder, capfd):
    command = ["refine", shared_run, folder / "draft.png", folder / "reference.png", "-o", folder / "out.png"]
    assert code_of([*command, "--box", "20,10,30,24"]) == 0
    assert "30 × 24 pixels at (20, 10) refined, out of 60 × 60" in capfd.readouterr().out
    first = (folder / "out.png").read_bytes()
    assert code_of(command) == 2
    assert "exists; choose another -o, or --overwrite" in capfd.readouterr().err
    assert (folder / "out.png").read_bytes() == first
    assert code_of([*command, "--overwrite", "--seed", "4"]) == 0
    assert (folder / "out.png").read_bytes() != first
    assert np.array_equal(outside(open_picture(folder / "draft.png", "d").image), outside(noise("RGB")))


def test_the_command_ends_with_the_code_of_the_error(shared_run, folder, capfd):
    listed = write_list(folder, [("missing.png", "reference.png", "", "", "b.png")])
    assert code_of(["refine", shared_run, "--jobs", listed, "-o", folder / "out"]) == 3
    assert "line 2: data: cannot read" in capfd.readouterr().err
    assert code_of(["refine", shared_run, "-o", folder / "out.png"]) == 2
    assert code_of(["refine", shared_run, folder / "draft.png", "--jobs", listed, "-o", folder / "out"]) == 2
    assert code_of(["refine", folder, folder / "draft.png", "-o", folder / "out.png"]) == 2
    assert "holds no run" in capfd.readouterr().err
