"""A project in which every figure of Analysis, Quality, head to head and a gate has votes.

Votes are claimed and submitted through the services, by three people; models, scores and the study
are rows, as their workers would have left them.
"""

from dataclasses import dataclass
from itertools import count

from django.utils import timezone

from annotation.errors import NothingToDo
from annotation.models import (
    Comparison,
    DatasetSnapshot,
    JobKind,
    JobStatus,
    ModelVersion,
    Preference,
    Project,
    Promotion,
    Purpose,
    Role,
    Split,
    Study,
    StudyState,
    TrainingJob,
    User,
)
from annotation.services import ledger, projects, studies
from annotation.services.projects import annotator_for
from annotation.services.queue import claim_comparison, submit_preference
from annotation.services.rankings import AxisRanking
from tests.pages_cast import Cast, person

PEOPLE = ("kim", "lou", "max")
SHORT, LONG = "You can.", "You can return it within thirty days; the label comes by e-mail at once."
ASKED = [
    ("How do I return a jacket?", "en", Split.TRAIN, (LONG, SHORT)),
    ("How long does a refund take?", "en", Split.TRAIN, (SHORT, LONG)),
    ("退货要多久？", "zh", Split.TRAIN, ("七天之内都可以退，运费由我们承担。", "不知道。")),
    ("Are you open on Sunday?", "en", Split.DEV, ("Yes, from 10 to 4.", "No idea, sorry, really.")),
    ("Which box fits the kettle?", "en", Split.TRAIN, ("The small one.", "Any box.", "None.")),
    ("Can I change my address?", "en", Split.TRAIN, ("Yes, in My orders.", "No.", "Perhaps.")),
]
GATE = {
    "passed": True,
    "verdict": "better",
    "why": "reward-1 is better than a coin on 24 groups of dev.",
    "numbers": {
        "log_loss": 0.61,
        "accuracy": 0.71,
        "accuracy_interval": [0.55, 0.86],
        "calibration": {"new": {"slope": 0.9, "interval": [0.4, 1.5], "ece": 0.04}},
    },
}


@dataclass(frozen=True)
class World:
    """What a walk needs to know."""

    reward: ModelVersion
    policies: list[ModelVersion]
    num_votes: int


def ask(
    project: Project,
    asked: str,
    answers: tuple[str, ...],
    *,
    language: str = "en",
    split: str = Split.TRAIN,
    writers: tuple[ModelVersion, ...] = (),
    job: TrainingJob | None = None,
    wanted: int = len(PEOPLE),
    purpose: str = Purpose.PRODUCTION,
) -> Comparison:
    """A comparison of these texts, each by the writer in its place."""
    source = project.sources.get()
    prompt, _ = ledger.add_prompt(
        project=project,
        source=source,
        messages=[{"role": "user", "content": asked}],
        language=language,
        split=split,
    )
    texts = [ledger.add_completion(prompt=prompt, source=source, text=text)[0] for text in answers]
    for seed, (writer, text) in enumerate(zip(writers, texts, strict=False)):
        ledger.record_generation(
            completion=text, origin="policy", model_version=writer, seed=seed, job=job
        )
    batch = ledger.batch_for(project=project, name=str(purpose), source=source, purpose=purpose)
    return ledger.open_comparison(
        batch=batch, prompt=prompt, completions=texts, answers_wanted=wanted
    )[0]


def answer_all(project: Project, user: User, *, turned: int = 0) -> None:
    """Everything that is open for this person; every `turned`-th answer the other way round."""
    annotator = annotator_for(user=user, project=project)
    for given in count(1):
        try:
            lease = claim_comparison(annotator=annotator)
        except NothingToDo:
            return
        order = sorted(lease.presented_order)
        if turned and given % turned == 0:
            order.reverse()
        said = [AxisRanking(groups=[[pk] for pk in order])]
        submit_preference(assignment=lease, rankings=said, key=f"{user.pk} {lease.pk}")


def make_version(project: Project, name: str, kind: str, **fields: object) -> ModelVersion:
    """A version in force."""
    version = ModelVersion.objects.create(
        kind=kind, stage="registered", name=name, path=name, sha256=name.rjust(64, "0"), **fields
    )
    Promotion.objects.create(project=project, slot=kind, version=version, verdict="registered")
    return version


def make_figures(cast: Cast) -> World:
    """Fill the cast's project."""
    project = cast.project
    policies = [make_version(project, name, "policy") for name in ("sft-1", "ppo-2")]
    for asked, language, split, answers in ASKED:
        writers = (policies[0], policies[1])
        ask(project, asked, answers, language=language, split=split, writers=writers)
    _head_to_head(project, policies)
    for number, name in enumerate(PEOPLE):
        user = person(f"{name}-{project.slug}")
        projects.add_member(project=project, user=user, role=Role.LABELER, by=cast.admin)
        answer_all(project, user, turned=number and number + 1)
    votes = Preference.objects.filter(project=project).order_by("pk")
    snapshot = DatasetSnapshot.objects.create(
        project=project, kind="comparisons", query={"annotators": ["outside", "person"]},
        ledger_position={"preference": votes[len(votes) - 1].pk}, sha256="c" * 64,
        path="snapshots/c.jsonl", rows=len(votes), counts={},
    )  # fmt: skip
    reward = make_version(project, "reward-1", "reward", snapshot=snapshot, metrics={"gate": GATE})
    completions = project.prompts.values_list("completions", flat=True)
    scored = sorted(pk for pk in completions if pk is not None)
    studies.store_scores(reward, {pk: (7 * pk % 11) / 5 - 1 for pk in scored})
    _study(project, reward, snapshot)
    return World(reward, policies, len(votes))


def _head_to_head(project: Project, policies: list[ModelVersion]) -> None:
    """Three dev prompts that both policies answered."""
    job = TrainingJob.objects.create(
        project=project,
        kind=JobKind.SAMPLE,
        init=policies[0],
        status=JobStatus.DONE,
        inputs={"against": policies[1].pk, "planned": [], "propensities": []},
    )
    for number in range(3):
        comparison = ask(
            project,
            f"Where is order {number}?",
            (f"On its way, number {number}.", f"Lost, number {number}."),
            split=Split.DEV,
            writers=(policies[0], policies[1]),
            job=job,
            wanted=1,
            purpose=Purpose.EVALUATION,
        )
        job.inputs["planned"].append(comparison.prompt_id)
        job.inputs["propensities"].append(1.0)
    job.save()


def _study(project: Project, reward: ModelVersion, snapshot: DatasetSnapshot) -> None:
    """What a worker found of every annotator, as it stores it."""
    found = [
        {
            "by": "annotator", "name": str(one.pk), "votes": one.preferences.count(),
            "comparisons": 5, "nats": 0.01, "low": -0.02, "high": 0.04,
        }
        for one in project.annotators.filter(preferences__isnull=False).distinct()
    ]  # fmt: skip
    result = {
        "contributions": found, "left_unmeasured": 0, "ridge": 0.001, "axis": None,
        "train_comparisons": 5, "dev_comparisons": 1, "dev_groups": 1, "dev_log_loss": 0.61,
    }  # fmt: skip
    Study.objects.create(
        project=project, reward=reward, state=StudyState.DONE, snapshot=snapshot,
        result=result, finished_at=timezone.now(),
    )  # fmt: skip
