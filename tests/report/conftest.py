import pytest

from tests.report.runs import make_rows, make_run


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return make_rows(tmp_path_factory.mktemp("report") / "rows")


@pytest.fixture
def finished(rows, tmp_path):
    return make_run(tmp_path, rows)
