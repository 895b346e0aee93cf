"""The researcher's day: counts, exports, loads it with `datasets`, and imports it again."""

import tarfile

import pytest
from datasets import load_dataset
from django.core.management import call_command
from playwright.sync_api import Page

from annotation.models import DatasetSnapshot, Preference, Project
from annotation.services.projects import annotator_for
from annotation.services.queue import claim_comparison, submit_preference
from annotation.services.rankings import AxisRanking
from tests.annotation.making import as_shown

pytestmark = pytest.mark.django_db(transaction=True)
QUESTIONS = {
    "How do I return a jacket?": ["Bring it back within 30 days.", "You cannot."],
    "退货要多久？": ["七天之内都可以退。", "不知道。"],
    "Are you open on Sunday?": ["Yes, from 10 to 4.", "No idea."],
}


def vote(cast, equal=False):
    lease = claim_comparison(annotator=annotator_for(user=cast.labeler, project=cast.project))
    order = lease.presented_order
    said = [AxisRanking(outcome="equal", groups=[order])] if equal else as_shown(lease)
    submit_preference(assignment=lease, rankings=said, key=f"key {lease.pk}")


def test_a_researcher_exports_loads_and_imports_again(cast, visitor, settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    for question, answers in QUESTIONS.items():
        cast.ask(question, answers)
    vote(cast)
    vote(cast, equal=True)
    visitor.enter(cast.researcher, "/p/shop/export/")

    def count_and_make(page: Page) -> str:
        page.get_by_role("button", name="Count first").click()
        counted = page.get_by_role("status").inner_text()
        page.select_option("[name=format]", "raw")
        page.select_option("[name=file_kind]", "parquet")
        page.get_by_role("button", name="Make it").click()
        page.get_by_text("The export is ready.").wait_for()
        with page.expect_download() as download:
            page.get_by_role("link", name="The whole folder").click()
        download.value.save_as(tmp_path / "export.tar")
        return counted

    assert "2 rows would be frozen." in visitor.do(count_and_make)
    with tarfile.open(tmp_path / "export.tar") as archive:
        archive.extractall(tmp_path / "here", filter="data")
    (folder,) = (tmp_path / "here").iterdir()
    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert sum(loaded[split].num_rows for split in loaded) == 2
    call_command("import_raw", folder, slug="again", name="Again", admin=cast.admin.username)
    again = Project.objects.get(slug="again")
    assert Preference.objects.filter(project=again).count() == 2

    vote(cast)

    def once_more(page: Page) -> str:
        page.get_by_role("button", name="Make it").click()
        page.get_by_text("The export is ready.").wait_for()
        page.screenshot(path=tmp_path / "export.png", full_page=True)
        page.get_by_role("button", name="Compare").click()
        page.get_by_role("heading", name="What changed").wait_for()
        page.screenshot(path=tmp_path / "diff.png", full_page=True)
        return page.inner_text("main")

    assert "given later" in visitor.do(once_more)
    assert DatasetSnapshot.objects.filter(project=cast.project).count() == 2
    assert not visitor.problems
