"""The benchmark of the shelf still fills a ledger, takes it out and brings it in again."""

import pytest

from annotation.models import Preference, Project
from tests.benchmarks import desk_data, shelf

pytestmark = pytest.mark.django_db


def test_every_step_runs_in_small(settings, tmp_path, monkeypatch):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    monkeypatch.setattr(desk_data, "_settle", lambda: None)  # no VACUUM inside a test
    monkeypatch.setattr(shelf, "PAGE_TIMES", 2)
    shelf.fill(40)
    assert shelf.freeze(tmp_path)["rows"] == 40
    for format, files in shelf.EXPORTS:
        found = shelf.export(tmp_path, format, files)
        assert found["rows"] == 40
        assert found["bytes"] > 0
    assert shelf.load(tmp_path) == {"rows": 40}
    assert shelf.restore(tmp_path) == {"rows": 40}
    assert Preference.objects.filter(project=Project.objects.get(slug="again")).count() == 40
    assert set(shelf.pages(tmp_path)["pages"]) == set(shelf.PAGES)
