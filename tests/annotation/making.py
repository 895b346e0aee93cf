"""Small worlds for the tests of the ledger: users, comparisons, answers, and the invariant."""

from collections.abc import Iterable, Sequence
from itertools import count

from annotation.models import (
    Annotator,
    Assignment,
    Comparison,
    Preference,
    Project,
    Prompt,
    Role,
    User,
)
from annotation.services.ledger import (
    add_completion,
    add_prompt,
    batch_for,
    open_comparison,
)
from annotation.services.projects import add_member, annotator_for, create_project
from annotation.services.rankings import AxisRanking

numbers = count(1)


def make_user(name: str = "", **fields) -> User:
    """A user who signs in with the password `secret`."""
    return User.objects.create_user(name or f"user-{next(numbers)}", password="secret", **fields)


def make_project(slug: str = "", *, axes: Sequence[str] = ("overall",), **settings) -> Project:
    """A project without members."""
    slug = slug or f"project-{next(numbers)}"
    project = create_project(name=slug.title(), slug=slug, by=None, axes=axes)
    for name, value in settings.items():
        setattr(project, name, value)
    project.save()
    return project


def make_member(project: Project, role: str = Role.LABELER, **pool) -> User:
    """A new user with a role."""
    user = make_user(f"{role}-{next(numbers)}")
    add_member(project=project, user=user, role=role, by=None, **pool)
    return user


def make_annotator(project: Project, **pool) -> Annotator:
    """A new labeler's annotator."""
    return annotator_for(user=make_member(project, **pool), project=project)


def make_prompts(project: Project, splits: Iterable[str]) -> list[Prompt]:
    """One prompt per split that is named, each with words of its own."""
    return [
        add_prompt(
            project=project,
            source=project.sources.get(),
            messages=[{"role": "user", "content": f"{split} {number}?"}],
            split=split,
        )[0]
        for number, split in enumerate(splits)
    ]


def make_comparisons(
    project: Project,
    number: int = 1,
    *,
    k: int = 2,
    answers_wanted: int = 1,
    language: str = "",
    batch: str = "first",
    purpose: str = "production",
    **batch_settings,
) -> list[Comparison]:
    """Open comparisons of k completions each, all in one batch."""
    source = project.sources.get()
    of = batch_for(project=project, name=batch, source=source, purpose=purpose, **batch_settings)
    made = []
    for _ in range(number):
        prompt, _ = add_prompt(
            project=project,
            source=source,
            messages=[{"role": "user", "content": f"Question {next(numbers)}?"}],
            language=language,
        )
        completions = [
            add_completion(prompt=prompt, source=source, text=f"Answer {place}.")[0]
            for place in range(k)
        ]
        comparison, _ = open_comparison(
            batch=of, prompt=prompt, completions=completions, answers_wanted=answers_wanted
        )
        made.append(comparison)
    return made


def as_shown(assignment: Assignment) -> list[AxisRanking]:
    """The answer that ranks the completions in the order shown."""
    return [AxisRanking(groups=[[identity] for identity in assignment.presented_order])]


def require_invariant(project: Project) -> None:
    """unreleased leases + counted answers + open_slots == answers_wanted, counted row by row."""
    leases = list(Assignment.objects.filter(project=project, holds_slot=True))
    counted = list(Preference.objects.filter(project=project, counted=True))
    for comparison in Comparison.objects.filter(project=project):
        held = sum(lease.comparison_id == comparison.pk for lease in leases)
        answers = sum(one.comparison_id == comparison.pk for one in counted)
        assert held + answers + comparison.open_slots == comparison.answers_wanted, comparison.pk
        assert comparison.open_slots >= 0
