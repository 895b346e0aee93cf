"""The Django admin looks at the ledger; it changes it through services or not at all."""

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse

from annotation.models import (
    ApiToken,
    Assignment,
    AuditEntry,
    Batch,
    DatasetSnapshot,
    ModelVersion,
    Preference,
    Promotion,
    Source,
    TrainingJob,
    User,
)
from annotation.services.queue import claim_comparison, submit_preference
from annotation.services.tokens import issue_token
from tests.annotation.making import (
    as_shown,
    make_annotator,
    make_comparisons,
    make_project,
    make_user,
    require_invariant,
)

pytestmark = pytest.mark.django_db

EDITED = (User, Source)
LOOKED_AT = sorted(
    (model for model in apps.get_app_config("annotation").get_models() if model not in EDITED),
    key=lambda model: model.__name__,
)
REGISTERED = [model for model in LOOKED_AT if admin.site.is_registered(model)]


@pytest.fixture
def root():
    client = Client()
    client.force_login(make_user("root", is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def project():
    return make_project("helpdesk")


@pytest.fixture
def preference(project):
    """A world with a row in nearly every table."""
    make_comparisons(project, 2)
    annotator = make_annotator(project)
    lease = claim_comparison(annotator=annotator)
    stored = submit_preference(assignment=lease, rankings=as_shown(lease), key="k")
    claim_comparison(annotator=annotator)
    job = TrainingJob.objects.create(project=project, kind="reward")
    version = ModelVersion.objects.create(
        kind="reward", stage="reward", name="first", path="models/first", sha256="b", job=job
    )
    Promotion.objects.create(project=project, slot="reward", version=version, verdict="first")
    DatasetSnapshot.objects.create(
        project=project,
        kind="comparisons",
        query={},
        ledger_position={},
        sha256="a" * 64,
        path="snapshots/a.jsonl",
        rows=0,
        counts={},
    )
    issue_token(user=annotator.user, name="script")
    return stored


def page(model, name, *args):
    return reverse(f"admin:annotation_{model._meta.model_name}_{name}", args=args)


def act(client, rows, action, **more):
    rows = list(rows)
    return client.post(
        page(type(rows[0]), "changelist"),
        {"action": action, "_selected_action": [row.pk for row in rows], **more},
        follow=True,
    )


def test_every_table_that_must_not_be_edited_is_looked_at_only():
    names = {model.__name__ for model in REGISTERED}
    assert names >= {
        "Assignment", "AuditEntry", "Comparison", "DatasetSnapshot", "ModelVersion",
        "Preference", "Promotion", "TrainingJob",
    }  # fmt: skip


@pytest.mark.parametrize("model", REGISTERED, ids=lambda model: model.__name__)
def test_not_even_a_superuser_adds_changes_or_deletes(model, root, preference):
    before = list(model.objects.order_by("pk").values())
    assert root.get(page(model, "changelist")).status_code == 200
    assert root.get(page(model, "add")).status_code == 403
    assert root.post(page(model, "add"), {}).status_code == 403
    if row := model.objects.first():
        assert root.get(page(model, "change", row.pk)).status_code == 200
        assert root.post(page(model, "change", row.pk), {"note": "x"}).status_code == 403
        assert root.post(page(model, "delete", row.pk), {"post": "yes"}).status_code == 403
        response = act(root, [row], "delete_selected", post="yes")
        assert b"delete_selected" not in response.content
    assert list(model.objects.order_by("pk").values()) == before


def test_selected_preferences_are_voided_by_the_service_with_a_reason(root, preference, project):
    act(root, [preference], "void", reason="")
    preference.refresh_from_db()
    assert preference.voided_at is None
    response = act(root, [preference], "void", reason="Clicked through")
    assert b"Done: 1" in response.content
    preference.refresh_from_db()
    assert preference.void_reason == "Clicked through"
    assert preference.voided_by.username == "root"
    assert AuditEntry.objects.filter(action="preference.void").count() == 1
    require_invariant(project)


def test_voiding_twice_is_told_and_changes_nothing(root, preference):
    act(root, [preference], "void", reason="First")
    assert b"void already" in act(root, [preference], "void", reason="Second").content
    preference.refresh_from_db()
    assert preference.void_reason == "First"


def test_staff_who_may_only_look_can_not_act_in_a_project_of_others(preference):
    staff = make_user(is_staff=True)
    staff.user_permissions.set(
        apps.get_model("auth", "Permission").objects.filter(codename="view_preference")
    )
    client = Client()
    client.force_login(staff)
    assert client.get(page(Preference, "changelist")).status_code == 200
    response = act(client, [preference], "void", reason="Mine now")
    assert b"you are not a member" in response.content
    preference.refresh_from_db()
    assert preference.voided_at is None


def test_batches_are_paused_and_resumed(root, preference):
    batches = Batch.objects.all()
    act(root, batches, "pause")
    assert Batch.objects.get().paused
    act(root, batches, "resume")
    assert not Batch.objects.get().paused
    actions = list(AuditEntry.objects.filter(action__startswith="batch").values_list("action"))
    assert [one for (one,) in actions] == ["batch.pause", "batch.resume"]


def test_leases_are_released_and_swept(root, preference, project):
    held = Assignment.objects.filter(holds_slot=True)
    response = act(root, held, "release")
    assert b"Done: 1" in response.content
    assert not held.all().exists()
    require_invariant(project)
    assert b"Swept: 0" in act(root, Assignment.objects.all(), "sweep").content


def test_jobs_are_cancelled_and_tokens_revoked(root, preference):
    act(root, TrainingJob.objects.all(), "cancel")
    assert TrainingJob.objects.get().status == "cancelled"
    act(root, ApiToken.objects.all(), "revoke")
    assert not ApiToken.objects.get().is_live


def test_the_digest_of_a_token_is_not_shown(root, preference):
    token = ApiToken.objects.get()
    for address in (page(ApiToken, "changelist"), page(ApiToken, "change", token.pk)):
        assert token.digest.encode() not in root.get(address).content


def test_editing_the_terms_of_a_source_is_in_the_log(root, project):
    source = project.sources.get()
    form = {"licence": "CC BY 4.0", "terms": "", "consent": "", "retention_days": ""}
    assert root.post(page(Source, "change", source.pk), form).status_code == 302
    source.refresh_from_db()
    assert source.licence == "CC BY 4.0"
    entry = AuditEntry.objects.get(action="source.change")
    assert (entry.target, entry.data) == (f"source:{source.pk}", {"fields": ["licence"]})


def test_a_new_user_is_in_the_log_without_their_password(root):
    form = {
        "username": "wen",
        "usable_password": "true",
        "password1": "correct horse battery",
        "password2": "correct horse battery",
    }
    assert root.post(page(User, "add"), form).status_code == 302
    entry = AuditEntry.objects.get(action="user.create")
    assert entry.target == f"user:{User.objects.get(username='wen').pk}"
    assert "correct horse" not in str(entry.data)


@pytest.mark.parametrize("usable", [True, False])
def test_a_password_that_is_set_or_taken_away_is_in_the_log(root, usable):
    user = make_user("wen")
    word = "correct horse battery"
    form = {"usable_password": "true", "password1": word, "password2": word}
    if not usable:
        form = {"usable_password": "false", "unset-password": "yes"}
    assert root.post(f"/admin/annotation/user/{user.pk}/password/", form).status_code == 302
    user.refresh_from_db()
    assert user.check_password(word) == usable
    entry = AuditEntry.objects.get(action="user.password")
    assert (entry.target, entry.actor.username) == (f"user:{user.pk}", "root")
    assert entry.data == {"usable": usable}


def test_a_password_that_is_not_taken_leaves_no_entry(root):
    user = make_user("wen")
    address = f"/admin/annotation/user/{user.pk}/password/"
    form = {"usable_password": "true", "password1": "x", "password2": "y"}
    assert root.get(address).status_code == root.post(address, form).status_code == 200
    assert root.get("/admin/annotation/user/x/password/").status_code == 404
    assert not AuditEntry.objects.filter(action="user.password").exists()


def test_ones_own_password_is_in_the_log(root):
    assert root.get("/admin/password_change/").headers["Location"] == "/password/"
    address, word = "/password/", "correct horse battery"
    user = User.objects.get(username="root")
    user.set_password("old word")
    user.save()
    root.force_login(user)
    wrong = {"old_password": "not this", "new_password1": word, "new_password2": word}
    assert root.get(address).status_code == root.post(address, wrong).status_code == 200
    assert not AuditEntry.objects.filter(action="user.password").exists()
    assert root.post(address, wrong | {"old_password": "old word"}).status_code == 302
    entry = AuditEntry.objects.get(action="user.password")
    assert (entry.target, entry.actor) == (f"user:{user.pk}", user)
    assert User.objects.get(username="root").check_password(word)


def test_groups_which_mean_nothing_here_are_not_offered(root):
    assert root.get("/admin/auth/group/").status_code == 404
    assert not admin.site.is_registered(Group)


def test_users_are_never_deleted(root):
    user = make_user("wen")
    assert root.post(page(User, "delete", user.pk), {"post": "yes"}).status_code == 403
    act(root, [user], "delete_selected", post="yes")
    assert User.objects.filter(pk=user.pk).exists()
