"""What the documentation shows of a study is what the study found."""

import json
from pathlib import Path

import pytest

from rlrefine.ablation.table import costs_table, differences_table, values_table
from rlrefine.report.table import markdown
from studies.guidance import table

DOCS = Path(__file__).parent.parent.parent / "docs" / "studies"
STUDIES = sorted(DOCS.glob("*.json"))


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_the_page_of_a_study_holds_its_tables(file):
    summary, page = json.loads(file.read_text()), file.with_suffix(".md").read_text()
    tables = [costs_table(summary), values_table(summary)]
    tables += [differences_table(summary, reference) for reference in summary["against"]]
    assert all(table in page for table in tables)


@pytest.mark.parametrize("file", sorted((DOCS / "ready").glob("*.json")), ids=lambda file: file.stem)
def test_the_page_of_ready_studies_holds_their_tables(file):
    summary, page = json.loads(file.read_text()), (DOCS / "ready.md").read_text()
    tables = [values_table(summary), *(differences_table(summary, reference) for reference in summary["against"])]
    assert all(table in page for table in tables)
    assert f"`{file.stem}`" in page


def test_the_page_of_spie_holds_what_was_measured():
    page, found = (DOCS / "spie.md").read_text(), DOCS / "spie"
    assert markdown(json.loads((found / "summary.json").read_text())) in page
    assert table(json.loads((found / "guidance.json").read_text())) in page


def test_the_readme_shows_how_methods_compare():
    summary = json.loads((DOCS / "methods.json").read_text())
    assert differences_table(summary, "sft") in (DOCS.parent.parent / "README.md").read_text()
