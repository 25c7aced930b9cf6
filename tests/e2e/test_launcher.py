"""The command line with ``--nproc``: it starts the processes of a run, speaks for them once, and ends with them."""

import shutil
import signal
import subprocess
import sys
import time

import pytest

DDP = "engine.name=ddp"


def command(recipe_file, *arguments):
    full = [sys.executable, "-m", "rlrefine", *arguments]
    return subprocess.run(full, cwd=recipe_file.parent, capture_output=True, text=True, timeout=300)


def test_the_launcher_starts_processes_and_speaks_for_them_once(recipe_file, small_rows, tmp_path):
    """Through the command line: a picture that one process cannot read is one message, with that process's code."""
    rows = shutil.copytree(small_rows / "train", tmp_path / "rows")
    for file in rows.glob("*-draft.png"):
        file.write_bytes(file.read_bytes()[:90])
    done = command(
        recipe_file, "train", str(recipe_file), f"data.train={rows}", "data.validation=null", "data.heldout=null",
        "run.name=launched", DDP, "--nproc", "2",
    )  # fmt: skip
    assert done.returncode == 3
    told = [line for line in done.stderr.splitlines() if line.startswith("rlrefine:")]
    assert len(told) == 1
    assert "cannot read" in told[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["engine.name=single"], "engine.name: single is one process, and 3 are to be started"),
        (
            ["engine.name=ddp"],
            "cannot share the rows of a step equally: stages.sft.prompts_per_step: 4 rows leave 1",
        ),
    ],
)
def test_what_processes_cannot_share_is_said_before_they_are_started(recipe_file, changes, message):
    done = command(recipe_file, "train", str(recipe_file), "run.name=never", *changes, "--nproc", "3")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (recipe_file.parent / "runs" / "never").exists()


def test_ctrl_c_ends_every_process_with_one_message(recipe_file, tmp_path):
    full = [
        sys.executable, "-m", "rlrefine", "train", str(recipe_file), "run.name=stopped", f"run.out={tmp_path}",
        "stages.sft.steps=500", DDP, "--nproc", "2",
    ]  # fmt: skip
    with subprocess.Popen(full, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        until = time.monotonic() + 200
        while not (tmp_path / "stopped" / "metrics.jsonl").exists() and time.monotonic() < until:
            time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=120)
    assert running.returncode == 130
    assert told.count("rlrefine: stopped; what was saved is there") == 1
    assert "Traceback" not in told
