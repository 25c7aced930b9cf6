"""Pipes that close, disks that are full, keys that interrupt: one line or none, and never a traceback."""

import errno
import os
import subprocess
import sys

import pytest

from rlrefine.ablation.command import run_study
from rlrefine.ablation.finding import find_study
from rlrefine.ablation.recipes import read_recipes
from rlrefine.cli import main
from rlrefine.recipe.load import load_recipe
from rlrefine.training.progress import LineReporter
from rlrefine.training.run import start

RUN = f"{sys.executable} -m rlrefine"


def shell(line, folder, **variables):
    """A line of bash; gives its exit codes, one for each part of the pipe, and what it said."""
    script = f"{line}; echo ${{PIPESTATUS[@]}} >codes"
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    return (folder / "codes").read_text().split(), done.stdout, done.stderr


@pytest.mark.parametrize(
    ("line", "codes", "said"),
    [
        (f"{RUN} show omnirefiner_tiny >&-", ["0"], ""),
        (f"{RUN} show omnirefiner_tiny nowhere >&- 2>&-", ["2"], ""),
        (
            f"{RUN} show omnirefiner_tiny >/dev/full",
            ["3"],
            "rlrefine: cannot write the output: No space left on device\n",
        ),
        (f"{RUN} init my.yaml </dev/null", ["0"], ""),
    ],
    ids=["closed", "all closed", "full", "no input"],
)
def test_output_that_goes_nowhere_is_no_crash(line, codes, said, tmp_path):
    assert shell(line, tmp_path)[::2] == (codes, said)


def test_output_that_nobody_reads_ends_the_command_as_it_ends_others():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*RUN.split(), "ls"], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_letters_that_a_terminal_cannot_show_are_no_crash(tmp_path):
    codes, told, said = shell(f"{RUN} validate omnirefiner_tiny", tmp_path, PYTHONIOENCODING="ascii")
    assert codes == ["0"]
    assert "the recipe is valid" in told
    assert said == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_must_not_be_written_is_named(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    codes, _, said = shell(f"{RUN} init closed/my.yaml", tmp_path)
    assert codes == ["2"]
    assert said == "rlrefine: cannot write closed/my.yaml: Permission denied\n"


def test_an_interrupted_command_says_what_its_outermost_part_knows(monkeypatch, capsys):
    stop = KeyboardInterrupt()

    def interrupt(*_given, **_named):
        raise stop

    monkeypatch.setattr("rlrefine.catalogue.catalogue", interrupt)
    for note, said in [
        (None, "stopped\n"),
        ("of a run", "stopped; of a run\n"),
        ("of a study", "stopped; of a study\n"),
    ]:
        if note is not None:
            stop.add_note(note)
        with pytest.raises(SystemExit) as end:
            main(["ls"])
        assert end.value.code == 130
        assert capsys.readouterr().err == said


def test_an_interrupted_run_and_study_say_how_to_go_on(monkeypatch, tmp_path):
    def interrupt(*_given, **_named):
        raise KeyboardInterrupt

    monkeypatch.setattr("rlrefine.training.run.open_rows", interrupt)
    recipe = load_recipe("omnirefiner_tiny", [f"run.out={tmp_path}", "run.name=first"])
    with pytest.raises(KeyboardInterrupt) as stopped:
        start(recipe, "first", LineReporter())
    assert stopped.value.__notes__ == [f"what was saved is there: rlrefine resume {tmp_path / 'first'}"]
    with pytest.raises(KeyboardInterrupt) as stopped:
        run_study(read_recipes(find_study("group_size", [], seeds=[0])[0], tmp_path / "study"), LineReporter())
    assert stopped.value.__notes__[-1] == "the same command goes on with the study"


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied", "my.yaml"), ValueError("a bug")])
def test_what_the_system_refuses_is_told_and_a_bug_is_not_hidden(error, monkeypatch, capsys):
    def fail(*_given, **_named):
        raise error

    monkeypatch.setattr("rlrefine.catalogue.catalogue", fail)
    with pytest.raises(SystemExit if isinstance(error, OSError) else ValueError) as end:
        main(["ls"])
    if isinstance(error, OSError):
        assert end.value.code == 3
        assert capsys.readouterr().err == "rlrefine: my.yaml: Permission denied\n"


def test_a_pipe_that_is_not_the_output_may_break_and_is_told(monkeypatch):
    def fail(*_given, **_named):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("rlrefine.catalogue.catalogue", fail)
    with pytest.raises(BrokenPipeError):
        main(["ls"])
