"""Two projects with everything in them, and everybody who may ask: the world of the matrix.

Every text of a project carries its mark, a word that is found nowhere else; so an answer that shows
a stranger anything at all of a project is caught by looking for a word.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db.models import CharField, F, ForeignKey, Model, TextField, Value
from django.db.models.functions import Concat

from annotation.exporters.folder import make_export
from annotation.models import (
    Annotator,
    AuditEntry,
    CompletionScore,
    FileImport,
    Generation,
    JobMetric,
    LiveThread,
    ModelVersion,
    Project,
    Promotion,
    Role,
    Scope,
    SendBack,
    TrainingJob,
    User,
)
from annotation.services.decisions import decide
from annotation.services.disagreements import look_again
from annotation.services.exports import order_export
from annotation.services.guidelines import add_entry
from annotation.services.imports import receive_file
from annotation.services.invitations import invite
from annotation.services.projects import add_member, annotator_for, remove_member
from annotation.services.questions import ask
from annotation.services.queue import claim_comparison, submit_preference
from annotation.services.reports import report_question
from annotation.services.tokens import issue_token
from tests.annotation.golden import make_item
from tests.annotation.live_world import make_policy, open_chat, ready_turn
from tests.annotation.making import as_shown, make_comparisons, make_member, make_project, make_user
from tests.annotation.voting import cast

MARKS = {"mine": "xylograph", "theirs": "quokkaville"}
"""Slug of a project -> the word in all its texts. The slugs themselves stand in addresses."""
UNMARKED = {
    *("slug", "sha256", "digest", "prefix", "path", "content_hash", "text_hash", "split_group"),
    *("language", "skill", "stage", "axis", "idempotency_key", "target", "action", "kind"),
}
"""Columns whose text means something to the program, or is unique by the program's own rule."""
APPEND_ONLY = (AuditEntry, Promotion)
SHARED_NAMES = {"slot": "reward", "file": "manifest.json", "number": 1}
"""What an address may name that is no row: every project has it."""


@dataclass
class World:
    """ids: project's slug -> whose rows -> name in an address -> value."""

    people: dict[str, User]
    keys: dict[str, str] = field(default_factory=dict)
    """Tokens: `key:read` ... of the admin for one scope each, `key:all` for all of them, and
    `key:theirs`, of whoever is in both projects, for theirs alone."""
    ids: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)


def rows_of(project: Project, user: User) -> dict[str, Any]:
    """One row of every kind that an address can name, the user's own where rows have an owner."""
    mark = MARKS[project.slug]
    make_comparisons(project, 2)
    annotator = annotator_for(user=user, project=project)
    answered = claim_comparison(annotator=annotator)
    preference = submit_preference(
        assignment=answered,
        rankings=as_shown(answered),
        key=f"{user.pk}-{project.pk}",
        note=f"note {mark}",
    )
    cast(answered.comparison, outcome="both_bad", note=f"note {mark}")
    look_again(answered.comparison_id)
    decision = decide(
        comparison=answered.comparison,
        by=make_member(project, Role.REVIEWER),
        seen=0,
        undecidable=True,
        reason=f"reason {mark}",
    )
    lease = claim_comparison(annotator=annotator)
    job = TrainingJob.objects.create(
        project=project,
        kind="reward",
        config={"note": mark},
        inputs={"note": mark},
        log_tail="end of the log",
        error="it broke",
        reason="because",
        requested_by=user,
    )
    version = _version(project, job)
    for completion in answered.comparison.completions.all():
        Generation.objects.create(completion=completion, origin="policy", model_version=version)
        CompletionScore.objects.create(completion=completion, model_version=version, score=0.5)
    JobMetric.objects.create(job=job, phase="train", step=1, values={f"loss {mark}": 0.5})
    question = ask(annotator=annotator, comparison=lease.comparison, text=f"{mark}?")
    sent = SendBack.objects.create(
        project=project, preference=preference, annotator=annotator, comment="Look again.", by=user
    )
    words = {"en": {"question": f"{mark}?", "answer": f"{mark}."}}
    guideline, entry = add_entry(project=project, texts=words, by=user)
    return {
        "question_id": question.pk,
        "import_id": _file(project, user).pk,
        "item_id": make_item([user, make_user()], answered.comparison, "practice").pk,
        "annotator_id": annotator.pk,
        "report_id": report_question(
            comparison=answered.comparison, annotator=annotator, words=f"wrong {mark}"
        ).pk,
        "send_back_id": sent.pk,
        "guideline_id": guideline.pk,
        "entry_id": entry,
        "assignment_id": lease.pk,
        "comparison_id": answered.comparison_id,
        "batch_id": answered.comparison.batch_id,
        "preference_id": preference.pk,
        "decision_id": decision.pk,
        "job_id": job.pk,
        "step": 1,
        "version_id": version.pk,
        "member_id": add_member(
            project=project, user=make_user(f"{mark}-{job.pk}"), role=Role.LABELER, by=user
        ).pk,
        "invitation_id": invite(project=project, role=Role.LABELER, by=user, note="for her")[0].pk,
        "thread_id": _thread(project, annotator).pk,
        "token_id": issue_token(user=user, name="script")[0].pk,
        **SHARED_NAMES,
    }


def _file(project: Project, user: User) -> FileImport:
    """A file that was handed in."""
    text = f'{{"prompt": "{MARKS[project.slug]} {user.pk}", "chosen": "A.", "rejected": "B."}}\n'
    return receive_file(project=project, name="votes.jsonl", pieces=[text.encode()], by=user)


def _thread(project: Project, annotator: Annotator) -> LiveThread:
    """A conversation whose first message is answered."""
    make_policy(project, MARKS[project.slug])
    open_chat(project)
    annotator.project = project
    return ready_turn(annotator).thread


def _version(project: Project, job: TrainingJob) -> ModelVersion:
    folder = Path(settings.ARTIFACTS_DIR) / "models" / f"reward-{job.pk}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(f'{{"note": "{MARKS[project.slug]}"}}')
    (folder / "texts").mkdir()
    answer = {"text": MARKS[project.slug], "score": 0.5, "kl": 1.0, "tokens": 2}
    (folder / "texts" / "step-00001.jsonl").write_text(json.dumps(answer) + "\n")
    version = ModelVersion.objects.create(
        kind="reward",
        stage="reward",
        name=f"reward-{job.pk}",
        path=f"models/{folder.name}",
        sha256="b" * 64,
        job=job,
        metrics={"note": MARKS[project.slug]},
    )
    Promotion.objects.create(project=project, slot="reward", version=version, verdict="by_admin")
    return version


def make_world() -> World:
    """Both projects. Whoever is named like a role has that role in `mine`; `left` had one and owns
    rows there still; `both` is an admin of both; `outsider` belongs to nothing."""
    mine, theirs = make_project("mine"), make_project("theirs")
    people: dict[str, User] = {}
    for name in (*Role.values, "left", "both", "colleague"):
        people[name] = make_user(f"{name}")
        role = name if name in Role.values else Role.ADMIN
        add_member(project=mine, user=people[name], role=role, by=None, skills=[MARKS["mine"]])
    for name in ("both", "their-admin"):
        people.setdefault(name, make_user(f"{MARKS['theirs']}-{name}"))
        add_member(project=theirs, user=people[name], role=Role.ADMIN, by=None)
    people["root"] = make_user("root", is_superuser=True, is_staff=True)
    people["staff"] = make_user("staff", is_staff=True)
    people["outsider"] = make_user("outsider")
    people["gone"] = make_member(mine, Role.ADMIN)
    world = World(people)
    world.ids["mine"] = {
        name: rows_of(mine, people[name]) for name in (*Role.values, "left", "both", "colleague")
    }
    world.ids["theirs"] = {name: rows_of(theirs, people[name]) for name in ("both", "their-admin")}
    for name in ("outsider", "staff", "root"):
        token, _ = issue_token(user=people[name], name="own")
        world.ids["mine"][name] = {"token_id": token.pk}
    admin, both = people["admin"], people["both"]
    for scope in Scope.values:
        world.keys[f"key:{scope}"] = issue_token(user=admin, name=scope, scopes=[scope])[1]
    world.keys["key:all"] = issue_token(user=admin, name="all")[1]
    world.keys["key:theirs"] = issue_token(user=both, name="theirs", project=theirs)[1]
    remove_member(membership=mine.memberships.get(user=people["left"]), by=None)
    for project in (mine, theirs):
        plant(project)
        export = make_export(project=project, format="raw").name
        order = order_export(project=project, format="raw").pk
        for rows in world.ids[project.slug].values():
            rows["export_id"] = export
            rows["before_id"] = rows["after_id"] = rows["snapshot_id"] = project.snapshots.get(
                kind="comparisons"
            ).pk
            rows["order_id"] = order
    return world


def plant(project: Project) -> None:
    """Put the project's mark into every text column of every row that belongs to it."""
    mark = MARKS[project.slug]
    for model in apps.get_app_config("annotation").get_models():
        path = path_to_project(model)
        if path is None or model in APPEND_ONLY:
            continue
        for column in _texts(model):
            room = (column.max_length or 10_000) - len(mark) - 1
            rows = model._default_manager.filter(**{path: project.pk})
            for pk, text in rows.values_list("pk", column.name):
                if text and mark not in text and len(text) <= room:
                    marked = Concat(Value(f"{mark} "), F(column.name))
                    model._default_manager.filter(pk=pk).update(**{column.name: marked})
    for prompt in project.prompts.all():
        prompt.messages = [
            {**one, "content": f"{mark} {one['content']}"} for one in prompt.messages
        ]
        prompt.save(update_fields=["messages"])


def _texts(model: type[Model]) -> Iterator[Any]:
    for column in model._meta.concrete_fields:
        is_text = isinstance(column, CharField | TextField) and not column.choices
        if is_text and column.name not in UNMARKED:
            yield column


def path_to_project(model: type[Model], depth: int = 3) -> str | None:
    """How a row is asked for its project, e.g. preference__project; None where it has none."""
    if model is Project:
        return "pk"
    steps = [one for one in model._meta.concrete_fields if isinstance(one, ForeignKey)]
    for step in steps:
        if step.related_model is Project:
            return step.name
    for step in steps if depth > 1 else ():
        further = path_to_project(step.related_model, depth - 1)
        if further is not None and step.related_model is not User:
            return f"{step.name}__{further}"
    return None
