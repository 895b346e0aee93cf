"""workers.reward_gate: its rules against tables, what it measures of real (tiny) models."""

import json
import math

import pytest

from annotation.services import jobs, queue, snapshots, versions
from annotation.services.rankings import AxisRanking
from policy.backbone import score_model_from
from policy.comparisons import PairTable
from policy.score_scale import ScoreScale
from rewardmodel.evaluate import Evaluation, Judged, PairRow
from rewardmodel.invariance import Invariance
from tests.annotation.making import as_shown, make_annotator, make_comparisons, make_project
from tests.workers.tiny import save_again
from workers import promotion
from workers.promotion import judge_version
from workers.reward_figures import Seen, examined
from workers.reward_gate import dev_comparisons, first_reward, reward_against


def rows(*groups, log_loss=0.5):
    """(group, correct) pairs as PairRow."""
    return [PairRow(group, log_loss, correct, 1.0) for group, correct in groups]


def mixed(share, count=100):
    """`count` groups, of which a share is right."""
    return rows(*[(str(n), float(n < share * count)) for n in range(count)])


@pytest.mark.parametrize(
    ("groups", "correct", "verdict"),
    [
        (40, 0.51, "first"),
        (40, 0.5, "failed"),
        (40, 0.2, "failed"),
        (19, 0.2, "unjudged"),
        (0, 0.0, "unjudged"),
    ],
)
def test_a_first_reward_model_beats_a_coin_unless_dev_is_too_small(groups, correct, verdict):
    found = first_reward(rows(*[(str(n), correct) for n in range(groups)]))
    assert found.verdict == verdict
    assert found.passed is (verdict != "failed")


def test_a_first_reward_model_whose_interval_holds_a_coin_fails():
    assert not first_reward(mixed(0.55)).passed  # 0.55 +- 0.1 on a hundred groups
    assert first_reward(mixed(0.65)).passed


@pytest.mark.parametrize(
    ("new", "passed"),
    [(0.9, True), (0.8, True), (0.79, True), (0.6, False)],  # the old one has 0.8
)
def test_a_reward_model_may_be_worse_within_the_interval_and_not_beyond(new, passed):
    verdict = reward_against(mixed(new), mixed(0.8), "reward-1")
    assert verdict.passed is passed
    assert "against reward-1" in verdict.why.lower()


def test_a_worse_log_loss_alone_fails_it_too():
    new = [row._replace(log_loss=0.9) for row in mixed(0.8)]
    assert not reward_against(new, mixed(0.8), "r").passed


def test_without_dev_answers_it_passes_and_says_so():
    verdict = reward_against([], [], "r")
    assert (verdict.passed, verdict.verdict) == (True, "unjudged")
    assert "unjudged" in verdict.why


def seen(*pairs, deviation=1.0, difference=0.0):
    """(score margin of the first, characters of both, share of votes for the first) as a model saw
    them, a group each."""
    judged = [
        Judged(
            place=number,
            kept=(0, 1),
            group=f"g{number}",
            scores=(margin, 0.0),
            chars=chars,
            votes=(),
            table=PairTable(((0, 1),), (share,), (1.0,), num_strict=1, num_answers=1, num_ties=0),
            labels={},
        )
        for number, (margin, chars, share) in enumerate(pairs)
    ]
    evaluation = Evaluation(scale=ScoreScale(deviation=deviation), judged=judged)
    return Seen(evaluation, Invariance(2, difference))


BETTER_ONE = promotion.Verdict(passed=True, verdict="passed", why="Better.", numbers={"x": 1})


@pytest.mark.parametrize("sound", [True, False])
def test_a_reward_model_whose_scores_depend_on_the_batch_is_refused(sound):
    model = seen((1.0, (5, 5), 1.0), difference=9e-4 if sound else 1.1e-3)
    found = examined(BETTER_ONE, model)
    assert (found.passed, found.verdict) == ((True, "passed") if sound else (False, "failed"))
    assert sound or found.why.endswith("differs by 1.1e-03, and 1e-03 is allowed.")
    assert found.numbers["x"] == 1


@pytest.mark.parametrize(
    ("margin", "difference"), [(math.nan, 0.0), (math.inf, 0.0), (1.0, math.inf)]
)
def test_a_reward_model_with_one_score_that_is_no_number_is_refused(margin, difference):
    pairs = [(1.0, (5, 5), 1.0), (margin, (5, 5), 1.0)]
    found = examined(BETTER_ONE, seen(*pairs, difference=difference))
    assert (found.passed, found.why[:26]) == (False, "Some of its scores are no ")
    json.dumps(found.as_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("deviation", "warned"),
    [
        (1.0, ""),
        (5.0, "Too sure of itself"),
        (500.0, "Far too sure of itself: its log odds times 0.01, or less,"),
        (0.2, "Less sure"),
        (1e-3, "Far less sure than it could be: its log odds times 100.00, or more,"),
        (-1.0, "It prefers what people reject"),
    ],
)
def test_certainty_that_is_off_warns_and_passes(deviation, warned):
    # 88 of a hundred right at log odds of 2 is as it should be
    pairs = [(2.0, (5, 5), float(number % 100 < 88)) for number in range(400)]
    found = examined(BETTER_ONE, seen(*pairs, deviation=deviation))
    assert found.passed
    assert [one.startswith(warned) for one in found.warnings] == [True] * bool(warned)


@pytest.mark.parametrize(("share", "warned"), [(0.5, True), (0.88, False)])
def test_following_length_more_than_people_do_warns_and_passes(share, warned):
    pairs = [(2.0, (50, 5), float(number % 100 < 100 * share)) for number in range(400)]
    found = examined(BETTER_ONE, seen(*pairs))
    assert found.passed
    assert any("the longer answer to win 88.1%" in one for one in found.warnings) is warned
    assert found.numbers["length_bias"]["new"]["excess"]["groups"] == 400


@pytest.fixture
def dev_answers(project):
    """Six, to a prompt each."""
    annotator = make_annotator(project)
    make_comparisons(project, 6)
    project.prompts.update(split="dev")
    for _ in range(6):
        lease = queue.claim_comparison(annotator=annotator)
        queue.submit_preference(assignment=lease, rankings=as_shown(lease), key=str(lease.pk))


@pytest.mark.django_db
def test_reward_models_are_judged_on_dev_answers_the_second_against_the_first(
    project, make_version, dev_answers
):
    trunk = make_version("p")
    first = make_version("r1", kind="reward", stage="reward", trunk=trunk, seed=1)
    verdict = judge_version(first.pk)
    assert (verdict.verdict, verdict.numbers["groups"]) == ("unjudged", 6)
    assert versions.in_force(project, "reward") is None  # an admin decides
    versions.promote(project=project, slot="reward", version=first, verdict="by_admin")
    second = make_version("r2", kind="reward", stage="reward", trunk=trunk, seed=2)
    numbers = judge_version(second.pk).numbers
    assert numbers["batch_difference"] < 1e-5
    assert numbers["length_bias"]["new"] is None  # the texts are of one length
    assert numbers["calibration"]["old"] != numbers["calibration"]["new"]
    assert numbers["against"] == "r1"
    assert numbers["accuracy_difference"]["groups"] == 6
    assert numbers["accuracy_difference"]["mean"] == pytest.approx(
        numbers["accuracy"] - verdict.numbers["accuracy"]
    )
    assert numbers["log_loss_difference"]["mean"] == pytest.approx(
        numbers["log_loss"] - verdict.numbers["log_loss"]
    )


@pytest.mark.django_db
def test_a_reward_model_whose_scores_are_no_numbers_is_refused_once_and_for_all(
    project, make_version, dev_answers
):
    trunk = make_version("p")
    first = make_version("r1", kind="reward", stage="reward", trunk=trunk, seed=1)
    versions.promote(project=project, slot="reward", version=first, verdict="by_admin")
    broken = make_version("r2", kind="reward", stage="reward", trunk=trunk, seed=2)
    model, tokenizer = score_model_from(versions.directory_of(broken), seed=0)
    model.score.weight.data.fill_(math.nan)
    save_again(broken, model, tokenizer)
    assert judge_version(broken.pk).why == "Some of its scores are no numbers (NaN or infinite)."
    broken.refresh_from_db()
    gate = broken.metrics["gate"]
    assert (gate["passed"], gate["verdict"]) == (False, "failed")
    numbers = gate["numbers"]
    assert (numbers["batch_difference"], numbers["log_loss"]) == (None, None)
    assert numbers["log_loss_difference"] == {"mean": None, "interval": [None] * 2, "groups": 6}
    assert numbers["old_log_loss"] > 0
    assert broken not in versions.versions_without_verdict()
    assert judge_version(broken.pk) is None


@pytest.mark.django_db
def test_a_reward_model_is_judged_on_dev_answers_of_its_axis_alone(make_version):
    project = make_project(axes=("helpful", "brief"))
    annotator = make_annotator(project)
    make_comparisons(project, 4)
    for split, prompt in zip(["dev", "dev", "train", "test"], project.prompts.all()):
        prompt.split = split
        prompt.save()
    for _ in range(4):
        lease = queue.claim_comparison(annotator=annotator)
        order = [[pk] for pk in lease.presented_order]
        rankings = [
            AxisRanking(axis="helpful", groups=order),
            AxisRanking(axis="brief", groups=order[::-1]),
        ]
        queue.submit_preference(assignment=lease, rankings=rankings, key=str(lease.pk))
    job = jobs.request_training(project=project, kind="reward", config={"axis": "brief"})
    version = make_version("r", kind="reward", stage="reward", trunk=make_version("p"))
    version.job = job
    version.snapshot = snapshots.freeze(project=project, kind="comparisons")
    found = dev_comparisons(version, project)
    assert len(found) == 2
    by_text = {row.id: row for row in found}
    for comparison in project.comparisons.filter(prompt__split="dev"):
        shown = comparison.assignments.get().presented_order
        stored = list(comparison.entries.values_list("completion_id", flat=True))
        row = by_text[str(comparison.pk)]
        [(first, second)], [target] = row.table.pairs, row.table.targets
        assert stored[first if target == 1.0 else second] == shown[1]  # brief's order
    for axes in [("brief",), ("brief", "helpful")]:
        job.config = {"axes": dict.fromkeys(axes, 1.0)}
        told = dev_comparisons(version, project)
        assert [sorted(vote.axis for vote in row.votes) for row in told] == [list(axes)] * 2
