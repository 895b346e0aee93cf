"""Where versions and votes come from and what came of them, read in few queries."""

import pytest

from annotation.models import ModelVersion, TrainingJob
from annotation.services.ledger import record_generation
from annotation.services.lineage import lineage_of_preference, lineage_of_version
from annotation.services.review import void_preference
from annotation.services.snapshots import freeze, rows_of
from annotation.services.versions import promote
from tests.annotation.making import make_project, make_user, numbers
from tests.annotation.voting import cast, compare, make_voter, revise

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"


@pytest.fixture
def project():
    return make_project(open_target=0)


def make_version(project, kind="policy", **edges):
    number = next(numbers)
    job = TrainingJob.objects.create(
        project=project, kind="ppo" if kind == "policy" else "reward", status="done"
    )
    return ModelVersion.objects.create(
        kind=kind, stage=job.kind, name=f"v{number}", path=f"models/{number}", job=job, **edges
    )


def write(comparison, version):
    """Let the version have written the comparison's completions."""
    for seed, completion in enumerate(comparison.completions.all()):
        record_generation(
            completion=completion,
            origin="policy",
            model_version=version,
            job=version.job,
            seed=seed,
        )


def frozen(project, **query):
    return freeze(project=project, kind="comparisons", query=query)


def test_the_whole_way_round_from_policy_to_policy(project):
    sft = make_version(project)
    comparison = compare(project)
    write(comparison, sft)
    vote = cast(comparison)
    snapshot = frozen(project)
    reward = make_version(project, "reward", init=sft, snapshot=snapshot)
    ppo = make_version(project, init=sft, reference=sft, reward=reward)
    promote(project=project, slot="reward", version=reward, verdict="first")

    found = lineage_of_version(sft, project)
    assert found.parents == {}
    assert found.children == {
        "init": [ppo, reward],
        "reference": [ppo],
    }
    assert (found.num_completions, found.num_comparisons, found.num_votes) == (2, 1, 1)
    assert found.comparisons == [comparison]
    assert found.snapshots == [snapshot]
    assert found.trained == [reward]

    of_reward = lineage_of_version(reward, project)
    assert of_reward.parents == {"init": sft}
    assert (of_reward.snapshot, of_reward.job) == (snapshot, reward.job)
    assert of_reward.children == {"reward": [ppo]}
    assert [promotion.slot for promotion in of_reward.promotions] == ["reward"]

    of_vote = lineage_of_preference(vote)
    assert of_vote.comparison == comparison
    written = [completion.generations.all()[0].model_version for completion in of_vote.completions]
    assert written == [sft, sft]
    assert of_vote.snapshots == [(snapshot, "trained")]
    assert of_vote.trained == [reward]


def in_rows(snapshot, preference):
    """The slow way: look into the file."""
    ids = {vote["preference"] for row in rows_of(snapshot) for vote in row["votes"]}
    return preference.pk in ids


def test_a_snapshot_holds_a_vote_exactly_where_its_file_does(project):
    comparison = compare(project, language="en")
    votes = [cast(comparison) for _ in range(3)]
    votes.append(cast(compare(project, split="dev"), make_voter(project, "simulated")))
    votes.append(cast(compare(project, purpose="gold")))
    votes.append(cast(compare(project, split="test", purpose="evaluation")))
    snapshots = [frozen(project)]
    votes.append(revise(votes[0], order=[[1], [0]]))
    void_preference(preference=votes[1], by=make_user(), reason="spam")
    snapshots += [
        frozen(project),
        frozen(project, annotators=["simulated", "person"]),
        frozen(project, splits=["dev", "test"]),
        frozen(project, languages=["en"]),
    ]
    votes.append(cast(compare(project)))
    snapshots.append(frozen(project))
    for vote in votes:
        vote.refresh_from_db()
        expected = [snapshot for snapshot in snapshots if in_rows(snapshot, vote)]
        found = [snapshot for snapshot, _ in lineage_of_preference(vote).snapshots]
        assert found == expected
    assert any(in_rows(snapshots[0], vote) for vote in votes[:2])


def test_a_vote_knows_its_revisions(project):
    first = cast(compare(project))
    second = revise(first, order=[[1], [0]])
    assert lineage_of_preference(first).revisions == [first, second]


def test_other_projects_are_left_out(project):
    version = make_version(project)
    other = make_project(open_target=0)
    there = compare(other)
    write(there, version)
    cast(there)
    make_version(other, init=version)
    found = lineage_of_version(version, project)
    assert (found.num_completions, found.comparisons, found.children) == (0, [], {})


def test_a_vote_is_held_by_snapshots_of_its_own_project_alone(project):
    other = make_project(open_target=0)
    vote = cast(compare(project))
    cast(compare(other))  # so that the other project's snapshot reaches past the vote
    make_version(other, "reward", snapshot=frozen(other))
    assert lineage_of_preference(vote).snapshots == []
    assert lineage_of_preference(vote).trained == []
    mine = frozen(project)
    assert [one for one, _ in lineage_of_preference(vote).snapshots] == [mine]


def grown(project, number):
    """A version whose completions stand in so many comparisons."""
    version = make_version(project)
    for _ in range(number):
        comparison = compare(project)
        write(comparison, version)
        cast(comparison)
        frozen(project)
        make_version(project, "reward", init=version, snapshot=frozen(project))
    return version


@pytest.mark.parametrize("number", [1, 6])
def test_the_number_of_queries_does_not_grow(project, django_assert_max_num_queries, number):
    version = grown(project, number)
    vote = project.preferences.first()
    with django_assert_max_num_queries(16):
        found = lineage_of_version(version, project)
        assert [comparison.prompt.pk for comparison in found.comparisons]
    with django_assert_max_num_queries(14):
        of_vote = lineage_of_preference(vote)
        assert [
            generation.model_version
            for completion in of_vote.completions
            for generation in completion.generations.all()
        ]
