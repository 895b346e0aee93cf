"""The demo project: whole at the first call, untouched by the second, never off a laptop."""

import json
from collections import Counter
from io import StringIO

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command

from annotation.management.commands import load_demo
from annotation.models import (
    AuditEntry,
    Comparison,
    Completion,
    Generation,
    Membership,
    Project,
    Prompt,
    TrainingJob,
    User,
)
from annotation.services.gold import constraints_of
from annotation.services.projects import annotator_for
from annotation.services.queue import claim_comparison
from annotation.services.snapshots import freeze
from fixtures.gold import utility

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def small(monkeypatch, settings, tmp_path):
    """Few comparisons, and a few prompts and demonstrations of each split and language."""
    monkeypatch.setattr(load_demo, "OPEN_PER_SPLIT", {"train": 16, "dev": 2, "test": 2})
    read = load_demo._read

    def read_some(path):
        seen = Counter()
        for row in read(path):
            kind = (row["split"], row.get("language"))
            seen[kind] += 1
            if seen[kind] <= 8 or path.name == "completions.jsonl":
                yield row

    monkeypatch.setattr(load_demo, "_read", read_some)
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"


def load():
    said = StringIO()
    call_command("load_demo", stdout=said)
    return said.getvalue()


def counts():
    tables = (AuditEntry, Comparison, Generation, Membership, Prompt, TrainingJob, User)
    return {table.__name__: table.objects.count() for table in tables}


def test_labeling_can_start_at_once_in_the_language_one_reads():
    load()
    project = Project.objects.get(slug="demo")
    for name, language in (("labeler", "en"), ("labeler-zh", "zh")):
        user = User.objects.get(username=name)
        assert user.check_password(f"{name}-demo")
        lease = claim_comparison(annotator=annotator_for(user=user, project=project))
        assert lease.comparison.prompt.language == language


def test_roles_jobs_and_comparisons_are_there():
    load()
    project = Project.objects.get(slug="demo")
    roles = dict(project.memberships.values_list("user__username", "role"))
    assert roles == {
        "labeler": "labeler",
        "labeler-zh": "labeler",
        "reviewer": "reviewer",
        "admin": "admin",
        "researcher": "researcher",
    }
    assert project.auto_promote
    assert project.retrain_rule.after_preferences == load_demo.RETRAIN_AFTER
    assert list(project.jobs.order_by("pk").values_list("kind", flat=True)) == ["pretrain", "sft"]
    purposes = set(project.comparisons.values_list("purpose", "prompt__split"))
    assert purposes == {
        ("production", "train"),
        ("evaluation", "dev"),
        ("evaluation", "test"),
        ("gold", "train"),
    }
    of_practice = project.comparisons.filter(batch__name__contains="practice")
    assert set(project.comparisons.filter(open_slots=0)) == set(of_practice)
    sizes = {comparison.completions.count() for comparison in project.comparisons.all()}
    assert min(sizes) == 2
    assert max(sizes) > 2
    texts = project.guidelines.get().texts
    assert sorted(texts) == ["en", "zh-hans"]
    assert all("**" in text for text in texts.values())
    assert "哪个" not in texts["en"]


def test_practice_is_there_in_both_languages_and_the_experts_are_right():
    load()
    project = Project.objects.get(slug="demo")
    lines = (django_settings.BASE_DIR / "fixtures" / "prompts.jsonl").read_text().splitlines()
    prompts = {row["id"]: row for row in map(json.loads, lines)}
    languages = Counter()
    for item in project.gold_items.select_related("comparison__prompt"):
        prompt = item.comparison.prompt
        languages[prompt.language] += 1
        [constraint] = constraints_of(item)
        better, worse = (
            utility(prompts[prompt.external_id], Completion.objects.get(pk=pk).text).total
            for pk in (constraint.better, constraint.worse)
        )
        assert better - worse > 0.5, prompt.external_id
        assert item.state == "live"
    assert min(languages["en"], languages["zh"]) >= 2
    assert project.num_practice == sum(languages.values())


def test_the_demonstrations_can_be_frozen_for_sft():
    load()
    project = Project.objects.get(slug="demo")
    assert freeze(project=project, kind="demonstrations").rows >= 5


def test_loading_twice_changes_nothing():
    load()
    before = counts()
    assert "there already" in load()
    assert counts() == before


def test_a_user_who_was_there_keeps_their_password():
    User.objects.create_user("reviewer", password="my own")
    load()
    assert User.objects.get(username="reviewer").check_password("my own")


def test_it_is_refused_off_a_laptop(settings):
    settings.LAPTOP, settings.MODE = False, "team"
    with pytest.raises(CommandError, match="laptop alone: CONCORD_MODE is 'team'") as problem:
        load()
    assert problem.value.returncode == 2
    assert not User.objects.exists()


def test_half_a_set_of_fixtures_loads_nothing(settings, tmp_path):
    settings.FIXTURES_DIR = tmp_path
    for name in ("prompts.jsonl", "completions.jsonl"):
        (tmp_path / name).write_bytes((django_settings.BASE_DIR / "fixtures" / name).read_bytes())
    with pytest.raises(CommandError, match=r"demonstrations\.jsonl") as problem:
        load()
    assert problem.value.returncode == 2
    assert not Project.objects.exists()
    assert not User.objects.exists()
