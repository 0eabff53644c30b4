"""The document of results: where nothing is recorded, and that the project's own is made of its records."""

import pytest

from benchmarks.results import rewritten
from wukong_jax.errors import DataError

EMPTY = "<!-- records: results; first: tiny -->\nold\n<!-- end of records -->\n"


def test_the_document_says_where_nothing_is_recorded(tmp_path):
    assert "No run is recorded in `results` yet." in rewritten(EMPTY, tmp_path)


def test_a_document_without_markers_is_refused(tmp_path):
    with pytest.raises(DataError, match="no `<!-- records:"):
        rewritten("# Results\n", tmp_path)


def test_the_projects_document_is_up_to_date(pytestconfig):
    text = (pytestconfig.rootpath / "docs" / "results.md").read_text()
    assert rewritten(text) == text
