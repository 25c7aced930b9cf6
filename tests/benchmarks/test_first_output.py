"""The benchmark of first output: it tells a command that is too slow from one that is not."""

import pytest

from benchmarks import first_output


@pytest.mark.parametrize(("limit", "code", "mark"), [(1e6, False, False), (0, True, True)])
def test_a_command_beyond_its_limit_is_marked(limit, code, mark, monkeypatch, capsys):
    monkeypatch.setattr(first_output, "LIMITS", {"--help": limit})
    monkeypatch.setattr(first_output, "REPEATS", 1)
    with pytest.raises(SystemExit) as end:
        first_output.main()
    assert bool(end.value.code) is code
    assert ("too slow" in capsys.readouterr().out) is mark


def test_what_is_measured_parses():
    from tests.cli.test_commands import parse

    for line in first_output.LIMITS:
        if "--help" not in line:
            parse(line.split())
