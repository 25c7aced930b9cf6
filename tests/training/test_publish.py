import errno
import os
from pathlib import Path

import pytest

from rlrefine.errors import CheckpointError
from rlrefine.training.publish import clear_leftovers, damage, publish, remove, write_text


def fill(partial):
    (partial / "a.bin").write_bytes(bytes(range(256)) * 20)
    (partial / "b.json").write_text("{}")


def test_what_is_published_is_whole(tmp_path):
    publish(tmp_path / "one", fill)
    assert damage(tmp_path / "one") is None
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["one"]


@pytest.mark.parametrize("name", ["a.bin", "b.json", "manifest.json"])
@pytest.mark.parametrize("fault", ["empty", "half", "last byte", "bit", "delete"])
def test_every_damage_is_seen(tmp_path, name, fault):
    publish(tmp_path / "one", fill)
    file = tmp_path / "one" / name
    content = bytearray(file.read_bytes())
    if fault == "delete":
        file.unlink()
    else:
        if fault == "bit":
            content[len(content) // 2] ^= 1
        size = {"empty": 0, "half": len(content) // 2, "last byte": len(content) - 1, "bit": len(content)}[fault]
        file.write_bytes(content[:size])
    if fault == "last byte" and name == "manifest.json":
        return  # the last byte is a line end, and the text still says the same
    assert damage(tmp_path / "one") is not None


def test_an_extra_file_and_swapped_files_are_seen(tmp_path):
    publish(tmp_path / "one", fill)
    (tmp_path / "one" / "c").write_text("")
    assert damage(tmp_path / "one") == "c is not listed"
    (tmp_path / "one" / "c").unlink()
    (tmp_path / "one" / "a.bin").rename(tmp_path / "x")
    (tmp_path / "one" / "b.json").rename(tmp_path / "one" / "a.bin")
    (tmp_path / "x").rename(tmp_path / "one" / "b.json")
    assert "not what was written" in (damage(tmp_path / "one") or "")


def test_a_failed_write_leaves_nothing(tmp_path):
    def no_space(partial):
        fill(partial)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CheckpointError, match=r"cannot write .*one.*No space left.*bytes are free"):
        publish(tmp_path / "one", no_space)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_writer_are_cleared(tmp_path):
    (tmp_path / ".tmp-one-12345678").mkdir()
    (tmp_path / ".del-two-12345678").mkdir()
    publish(tmp_path / "three", fill)
    clear_leftovers(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["three"]


def test_files_are_flushed_before_the_folder_gets_its_name(tmp_path, monkeypatch):
    order = []
    flush, rename = os.fsync, type(tmp_path).rename
    monkeypatch.setattr(
        os,
        "fsync",
        lambda descriptor: (order.append(str(Path(f"/proc/self/fd/{descriptor}").readlink())), flush(descriptor))[1],
    )
    monkeypatch.setattr(
        type(tmp_path), "rename", lambda path, to: (order.append(f"rename {to.name}"), rename(path, to))[1]
    )
    publish(tmp_path / "one", fill)
    renamed = order.index("rename one")
    assert {entry.rsplit("/", 1)[1] for entry in order[:renamed]} >= {"a.bin", "b.json", "manifest.json"}
    assert order[renamed + 1 :] == [str(tmp_path)]


def test_removing_never_leaves_a_half_published_folder(tmp_path):
    publish(tmp_path / "one", fill)
    remove(tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


def test_small_files_are_replaced_in_one_step(tmp_path):
    write_text(tmp_path / "x", "old")
    write_text(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_any_bit_of_the_manifest_may_flip_without_a_crash(tmp_path):
    """A changed file name, key or number is damage; only a space or line end may change without meaning anything."""
    publish(tmp_path / "one", fill)
    file = tmp_path / "one" / "manifest.json"
    content = file.read_bytes()
    unseen = []
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        if damage(tmp_path / "one") is None:
            unseen.append(chr(content[bit // 8]))
    assert set(unseen) <= {" ", "\n"}
