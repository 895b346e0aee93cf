"""A project with people of every role and work of every kind, for the tests of the pages.

Built through the services alone, so that the pages are tested on what really happens.
"""

from dataclasses import dataclass, field

from django.contrib.auth import get_user_model

from annotation.models import Comparison, Project, Role, User
from annotation.services import ledger, projects

PASSWORD = "correct horse"
SHORT = {
    "How do I return a jacket?": [
        "Of course! You can return it within **30 days**. Open *My orders*, choose the jacket and "
        "press *Return*; the label comes by e-mail at once.",
        "Returns are possible. Please read our terms.",
    ]
}


@dataclass
class Cast:
    """A project and its people; `lab` is the labeler's language list."""

    project: Project
    labeler: User
    reviewer: User
    admin: User
    researcher: User
    stranger: User
    comparisons: list[Comparison] = field(default_factory=list)

    def ask(self, prompt: str, completions: list[str], *, language: str = "en") -> Comparison:
        """Open one more comparison of these texts."""
        source = self.project.sources.get()
        batch = ledger.batch_for(project=self.project, name="first", source=source)
        row, _ = ledger.add_prompt(
            project=self.project,
            source=source,
            messages=[{"role": "user", "content": prompt}],
            task="dialogue",
            language=language,
        )
        texts = [
            ledger.add_completion(prompt=row, source=source, text=text)[0] for text in completions
        ]
        comparison, _ = ledger.open_comparison(
            batch=batch, prompt=row, completions=texts, answers_wanted=1
        )
        self.comparisons.append(comparison)
        return comparison


def person(username: str, **more: object) -> User:
    """A user who signs in with PASSWORD."""
    return get_user_model().objects.create_user(username=username, password=PASSWORD, **more)


def make_cast(slug: str = "shop", *, axes: tuple[str, ...] = ("overall",)) -> Cast:
    """The project `slug` with ann (admin), rob (reviewer), lea (labeler), rey (researcher)."""
    admin = person(f"ann-{slug}")
    project = projects.create_project(name="Shop assistant", slug=slug, by=admin, axes=axes)
    people = {}
    for role, name in ((Role.LABELER, "lea"), (Role.REVIEWER, "rob"), (Role.RESEARCHER, "rey")):
        people[role.value] = person(f"{name}-{slug}")
        projects.add_member(project=project, user=people[role.value], role=role, by=admin)
    return Cast(project=project, admin=admin, stranger=person(f"sam-{slug}"), **people)
