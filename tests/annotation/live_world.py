"""A project whose chat is open, and turns answered without a model."""

from itertools import count

from annotation.models import Annotator, LiveThread, LiveTurn, ModelVersion, Project, VersionKind
from annotation.services import live, live_turns
from annotation.services.live_setup import change_setup
from annotation.services.live_turns import WholeAnswer
from annotation.services.versions import promote
from tests.annotation.making import make_annotator, make_project

numbers = count(1)


def make_policy(project: Project, name: str = "policy") -> ModelVersion:
    """A policy version of the project's, in force; it has no files."""
    number = next(numbers)
    version = ModelVersion.objects.create(
        kind=VersionKind.POLICY,
        stage="registered",
        name=f"{name}-{number}",
        path=f"models/{name}-{number}",
        sha256=f"{number:064d}",
    )
    promote(project=project, slot="policy", version=version, verdict="registered")
    return version


def open_chat(project: Project, **changes) -> None:
    """Let writers in."""
    change_setup(project=project, changes=changes, is_open=True, by=None)


def make_chat(**changes) -> tuple[Project, Annotator]:
    """A project with a policy and an open chat, and a writer."""
    project = make_project()
    make_policy(project)
    open_chat(project, **changes)
    return project, make_annotator(project)


def start(annotator: Annotator, message: str = "How do I return a jacket?") -> LiveThread:
    return live.start_thread(annotator=annotator, message=message, key=f"start {next(numbers)}")


def write(turn: LiveTurn, a: str = "In the shop.", b: str = "By post.") -> LiveTurn:
    """Do what a worker does, with these texts for the two sides."""
    held = live_turns.claim_turn(turn_id=turn.pk, worker="w")
    assert held is not None
    live_turns.finish_turn(turn_id=turn.pk, attempt=held.attempt, whole=whole(a, b))
    turn.refresh_from_db()
    return turn


def whole(a: str, b: str) -> dict[str, WholeAnswer]:
    return {
        side: WholeAnswer(text=text, seed=seed, sampling={"temperature": t}, finish_reason="end")
        for side, text, seed, t in (("a", a, 1, 0.7), ("b", b, 2, 1.0))
    }


def ready_turn(annotator: Annotator, message: str = "How do I return a jacket?") -> LiveTurn:
    """The first turn of a new thread, answered."""
    return write(start(annotator, message).turns.get())
