"""Pipes that close, disks that are full, keys that interrupt: one line or none, and never a traceback."""

import errno
import os
import subprocess
import sys

import pytest

from rlrefine.cli import main

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


@pytest.mark.parametrize(
    ("words", "where", "said"),
    [
        (
            ["train", "omnirefiner_tiny"],
            "rlrefine.recipe.load.load_recipe",
            "what was saved is there: rlrefine resume RUN",
        ),
        (
            ["resume", "runs/first"],
            "rlrefine.training.progress.reporting",
            "what was saved is there: rlrefine resume RUN",
        ),
        (["ablate", "group_size"], "rlrefine.ablation.finding.find_study", "the same command goes on with the study"),
        (["ls"], "rlrefine.catalogue.catalogue", ""),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_interrupted_command_says_how_to_go_on_if_there_is_anything(words, where, said, monkeypatch, capsys):
    def interrupt(*_given, **_named):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupt)
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 130
    assert capsys.readouterr().err == f"stopped; {said}\n".replace("; \n", "\n")


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
