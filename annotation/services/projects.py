"""Projects, their members and rules."""

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_slug
from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext, gettext_lazy

from annotation.errors import BadInput, Conflict
from annotation.models import (
    Annotator,
    AnnotatorKind,
    FaqEntry,
    Guideline,
    Membership,
    Project,
    RetrainRule,
    Role,
    Scheme,
    Source,
    User,
)
from annotation.permissions import SINGULAR
from annotation.prepared import Prepared
from annotation.services.audit import record
from annotation.services.schemes import Options
from annotation.storable import require_storable

DEFAULT_GUIDELINE = {
    "en": "Choose the answer that helps the person who asked more. Prefer what is correct and to "
    "the point over what is long; say *tie* when you would be as happy with either, and *both bad* "
    "when neither would do.",
    "zh-hans": "选择对提问的人更有帮助的回答。正确、切题比长更重要；两个回答一样好就选*平局*，"
    "哪个都不行就选*都不好*。",
}
DEFAULT_SOURCE = "default"
RETRAIN_AFTER_PREFERENCES = 100
LANGUAGE = re.compile("[a-z]{2,3}(-[a-z0-9]{2,8})*")
"""Of a guideline's text: the tags of the interface's languages, and others like them."""
NO_LANGUAGE = gettext_lazy("A language is a tag such as en or zh-hans: %(seen)r.")
MAX_GUIDELINE = 40_000
"""Characters of one language."""
MAX_NAME = 40
"""Characters of a language or a skill."""


@transaction.atomic
def create_project(
    *,
    name: str,
    slug: str,
    by: User | None,
    description: str = "",
    axes: Sequence[str] = ("overall",),
    guideline: Mapping[str, str] = DEFAULT_GUIDELINE,
) -> Project:
    """A project ready for work: scheme 1, guideline 1, a source, a retrain rule, its first admin.

    by: becomes admin; None for a command. Raises BadInput for a bad or taken slug.
    """
    name = name.strip()
    if not name or len(name) > 120:
        raise BadInput(
            gettext("A project needs a name of 1 to 120 characters: %(seen)r.")
            % {"seen": name[:130]}
        )
    try:
        validate_slug(slug)
    except ValidationError:
        raise BadInput(
            gettext("A project's short name has letters, digits, - and _ alone: %(seen)r.")
            % {"seen": slug}
        ) from None
    if len(slug) > 60:
        raise BadInput(
            gettext("A project's short name has at most 60 characters, not %(seen)s.")
            % {"seen": len(slug)}
        )
    project, created = Project.objects.get_or_create(
        slug=slug, defaults={"name": name, "description": description}
    )
    if not created:
        raise BadInput(gettext("There is a project %(seen)r already.") % {"seen": slug})
    new_scheme(project=project, axes=axes, by=by)
    new_guideline(project=project, texts=guideline, by=by)
    Source.objects.create(project=project, name=DEFAULT_SOURCE)
    RetrainRule.objects.create(project=project, after_preferences=RETRAIN_AFTER_PREFERENCES)
    record(action="project.create", target=project, project=project, actor=by, slug=slug)
    if by is not None:
        add_member(project=project, user=by, role=Role.ADMIN, by=by)
    return project


@transaction.atomic
def new_scheme(
    *,
    project: Project,
    by: User | None,
    axes: Sequence[str] = ("overall",),
    allow_tie: bool = True,
    allow_both_bad: bool = True,
    allow_cannot_tell: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Scheme:
    """The next scheme of a project; batches made from now on use it, older ones keep theirs.

    options: what else it asks for, as services.schemes.Options has it. Raises BadInput.
    """
    axes = list(axes)
    if not axes or len(set(axes)) != len(axes):
        raise BadInput(
            gettext("A scheme needs one or more different axes: %(seen)r.") % {"seen": axes}
        )
    if bad := [axis for axis in axes if not axis.strip() or len(axis) > 40]:
        raise BadInput(gettext("An axis has 1 to 40 characters: %(seen)r.") % {"seen": bad[0]})
    require_storable(axes)
    lock_project(project)
    scheme = Scheme.objects.create(
        project=project,
        version=(project.schemes.aggregate(last=Max("version"))["last"] or 0) + 1,
        axes=axes,
        allow_tie=allow_tie,
        allow_both_bad=allow_both_bad,
        allow_cannot_tell=allow_cannot_tell,
        options=Options.of(options or {}).as_json(),
        created_by=by,
    )
    record(action="scheme.new", target=scheme, project=project, actor=by, version=scheme.version)
    return scheme


@transaction.atomic
def new_guideline(
    *,
    project: Project,
    texts: Mapping[str, str],
    by: User | None,
    faq: Sequence[FaqEntry] | None = None,
    base: int | None = None,
) -> Guideline:
    """The next guideline of a project; leases drawn from now on show it.

    texts: language -> Markdown; empty ones are left out. faq: the entries below it, None = those
    of the version before. base: the version that was edited; Conflict where it is the newest no
    more. Raises BadInput.
    """
    texts = checked_texts(texts)
    lock_project(project)
    before = current_guideline(project)
    if base is not None and before is not None and base != before.version:
        raise Conflict(
            gettext("Guideline %(newest)s was made meanwhile; yours was begun from %(base)s.")
            % {"newest": before.version, "base": base}
        )
    guideline = Guideline.objects.create(
        project=project,
        version=before.version + 1 if before else 1,
        texts=texts,
        faq=list(faq) if faq is not None else before.faq if before else [],
        created_by=by,
    )
    record(
        action="guideline.new",
        target=guideline,
        project=project,
        actor=by,
        version=guideline.version,
    )
    return guideline


def checked_texts(texts: Mapping[str, str]) -> dict[str, str]:
    """The texts of a guideline that can be kept. Raises BadInput with what was seen."""
    kept = {
        language: text.replace("\r\n", "\n") for language, text in texts.items() if text.strip()
    }
    if not kept:
        raise BadInput(gettext("A guideline can't be empty."))
    for language, text in kept.items():
        if not LANGUAGE.fullmatch(language):
            raise BadInput(NO_LANGUAGE % {"seen": language[:40]})
        if len(text) > MAX_GUIDELINE:
            raise BadInput(
                gettext("A guideline has at most %(most)s characters, not %(seen)s (%(language)s).")
                % {"most": MAX_GUIDELINE, "seen": len(text), "language": language}
            )
    require_storable(kept)
    return kept


def current_scheme(project: Project) -> Scheme:
    """The newest scheme; every project has one from its birth."""
    return project.schemes.order_by("-version")[0]


_NEWEST_GUIDELINE = Prepared(
    lambda project: Guideline.objects.filter(project=project).order_by("-version")[:1], project=1
)


def current_guideline(project: Project) -> Guideline | None:
    """The newest guideline, or None where a project was made without."""
    return _NEWEST_GUIDELINE.first(project=project.pk)


@transaction.atomic
def add_member(
    *,
    project: Project,
    user: User,
    role: str,
    by: User | None,
    languages: Sequence[str] = (),
    skills: Sequence[str] = (),
) -> Membership:
    """Let a user into a project. Raises Conflict for one who is a member already."""
    require_role(role)
    membership, created = Membership.objects.get_or_create(
        project=project,
        user=user,
        defaults={
            "role": role,
            "languages": clean_names(languages, "language"),
            "skills": clean_names(skills, "skill"),
        },
    )
    if not created:
        raise Conflict(
            gettext("%(name)s is a %(role)s of this project already.")
            % {"name": user.get_username(), "role": SINGULAR[Role(membership.role)]}
        )
    record(
        action="member.add",
        target=user,
        project=project,
        actor=by,
        role=role,
        languages=membership.languages,
        skills=membership.skills,
    )
    return membership


@transaction.atomic
def change_member(
    *,
    membership: Membership,
    by: User | None,
    role: str | None = None,
    languages: Sequence[str] | None = None,
    skills: Sequence[str] | None = None,
) -> Membership:
    """Change a member's role, languages and skills, all of it or nothing; None = as it is.

    Raises what change_role and change_pool raise.
    """
    if role not in (None, membership.role):
        change_role(membership=membership, role=role, by=by)
    languages = membership.languages if languages is None else list(languages)
    skills = membership.skills if skills is None else list(skills)
    if (languages, skills) != (membership.languages, membership.skills):
        change_pool(membership=membership, languages=languages, skills=skills, by=by)
    return membership


@transaction.atomic
def change_role(*, membership: Membership, role: str, by: User | None) -> Membership:
    """Give a member another role. Raises Conflict where it would leave no admin."""
    require_role(role)
    if role != Role.ADMIN:
        _require_other_admin(membership)
    before, membership.role = membership.role, role
    membership.save(update_fields=["role"])
    record(
        action="member.role",
        target=membership.user,
        project=membership.project,
        actor=by,
        before=before,
        role=role,
    )
    return membership


@transaction.atomic
def change_pool(
    *, membership: Membership, languages: Sequence[str], skills: Sequence[str], by: User | None
) -> Membership:
    """Set which languages a member reads (none = all) and which skills they have."""
    membership.languages = clean_names(languages, "language")
    membership.skills = clean_names(skills, "skill")
    membership.save(update_fields=["languages", "skills"])
    record(
        action="member.pool",
        target=membership.user,
        project=membership.project,
        actor=by,
        languages=membership.languages,
        skills=membership.skills,
    )
    return membership


@transaction.atomic
def remove_member(*, membership: Membership, by: User | None) -> None:
    """Take the project from a user; answers stay. Raises Conflict for the last admin.

    A lease the user holds runs out like any other.
    """
    _require_other_admin(membership)
    record(
        action="member.remove",
        target=membership.user,
        project=membership.project,
        actor=by,
        role=membership.role,
    )
    membership.delete()


_ANNOTATOR = Prepared(
    lambda project, user: Annotator.objects.filter(project=project, user=user), project=1, user=1
)


def annotator_for(*, user: User, project: Project, kind: str = AnnotatorKind.PERSON) -> Annotator:
    """The user's annotator in a project, made at the first call with a random pseudonym."""
    annotator = _ANNOTATOR.first(project=project.pk, user=user.pk)
    if annotator is None:
        annotator, _ = Annotator.objects.get_or_create(
            project=project, user=user, defaults={"kind": kind, "pseudonym": _pseudonym()}
        )
    annotator.project = project  # whose settings every claim asks for
    return annotator


def outside_annotator(
    *, project: Project, external_id: str, kind: str = AnnotatorKind.OUTSIDE
) -> Annotator:
    """Who judged in an imported dataset, by the id it has there; made at the first call."""
    if not external_id:
        raise BadInput("An outside annotator needs an id, and it is empty.")
    annotator, _ = Annotator.objects.get_or_create(
        project=project,
        kind=kind,
        external_id=external_id,
        defaults={"pseudonym": _pseudonym()},
    )
    return annotator


def _pseudonym() -> str:
    return f"annotator-{secrets.token_hex(5)}"


def lock_project(project: Project) -> None:
    """Those who look at a project before they add to it take turns, until their transaction ends
    (SQLite has taken the write lock already)."""
    Project.objects.select_for_update(no_key=True).get(pk=project.pk)


def require_role(role: str) -> None:
    """Raises BadInput for a role that there is not."""
    if role not in Role.values:
        raise BadInput(f"A role is one of {', '.join(Role.values)}: {role!r}.")


def _require_other_admin(membership: Membership) -> None:
    if membership.role != Role.ADMIN:
        return
    lock_project(membership.project)
    others = Membership.objects.filter(project=membership.project, role=Role.ADMIN)
    if not others.exclude(pk=membership.pk).exists():
        raise Conflict(gettext("A project keeps at least one admin."))


def clean_names(names: Sequence[str], what: str) -> list[str]:
    """Cleaned, each once, in the order given."""
    cleaned = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    if long := [name for name in cleaned if len(name) > MAX_NAME]:
        raise BadInput(f"A {what} has at most {MAX_NAME} characters: {long[0]!r}.")
    require_storable(cleaned)
    return cleaned
