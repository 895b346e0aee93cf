"""What a scheme's options let through, against tables; ideal answers as demonstrations."""

import pytest

from annotation.errors import BadInput, BadRanking
from annotation.models import CompletionJudgment, Preference, Scheme
from annotation.services import answers, snapshots
from annotation.services.answers import Answer, Judgment
from annotation.services.projects import new_scheme
from annotation.services.queue import claim_comparison, submit_preference
from annotation.services.rankings import AxisRanking
from annotation.services.review import revise_preference, void_preference
from annotation.services.schemes import Attribute, Options
from tests.annotation.making import make_annotator, make_comparisons, make_project, make_user

PAIR, LIST = [71, 42], [5, 3, 9]
STRICT = [[71], [42]]


def checked(options, *, rankings=None, order=PAIR, **answer):
    rankings = rankings or [AxisRanking(groups=STRICT)]
    scheme = Scheme(axes=["overall"], options=options)
    return answers.checked(
        Answer(rankings=rankings, **answer), scheme=scheme, presented_order=order
    )


@pytest.mark.parametrize(
    ("steps", "strengths", "words"),
    [
        (0, [], None),
        (0, [1], "no strength is asked for"),
        (2, [1], None),
        (2, [2], None),
        (2, [3], "from 1 to 2; seen: .3."),
        (2, [], "from 1 to 2; seen: "),
        (4, [4], None),
        (4, [5], "from 1 to 4"),
        (4, [0], "above 0: 0"),
        (4, [1.5], "from 1 to 4"),
        (7, [3], None),
        (7, [4], "from 1 to 3"),
        (7, [1, 1], "1 gaps"),
    ],
)
def test_how_much_better(steps, strengths, words):
    rankings = [AxisRanking(groups=STRICT, strengths=strengths)]
    if words is None:
        assert checked({"strength_steps": steps}, rankings=rankings).rankings == rankings
    else:
        with pytest.raises(BadRanking, match=words):
            checked({"strength_steps": steps}, rankings=rankings)


def test_strength_is_asked_of_strict_pairs_alone():
    asks = {"strength_steps": 4}
    for outcome in ("equal", "both_bad", "cannot_tell"):
        assert checked(asks, rankings=[AxisRanking(outcome=outcome)])
    assert checked(asks, rankings=[AxisRanking(groups=[[3], [5], [9]])], order=LIST)
    with pytest.raises(BadRanking, match="no strength is asked for here"):
        checked(asks, rankings=[AxisRanking(groups=[[3], [5]], strengths=[1])], order=LIST)


def test_a_list_in_part_where_the_scheme_wants_it_whole():
    part, whole = [AxisRanking(groups=[[3], [5]])], [AxisRanking(groups=[[3], [5, 9]])]
    assert checked({}, rankings=part, order=LIST)
    assert checked({"allow_partial": False}, rankings=whole, order=LIST)
    assert checked({"allow_partial": False}, rankings=[AxisRanking(outcome="both_bad")], order=LIST)
    with pytest.raises(BadRanking, match=r"without one: \[9\]"):
        checked({"allow_partial": False}, rankings=part, order=LIST)


@pytest.mark.parametrize(("line", "fits"), [(0, True), (2, True), (3, False), (-1, False)])
def test_an_acceptability_line(line, fits):
    rankings = [AxisRanking(groups=STRICT, acceptable=line)]
    with pytest.raises(BadRanking, match=r"no acceptability line|from 0 to 2"):
        checked({}, rankings=rankings)
    if fits:
        assert checked({"acceptability": True}, rankings=rankings).rankings[0].acceptable == line
    else:
        with pytest.raises(BadRanking, match="lies from 0 to 2"):
            checked({"acceptability": True}, rankings=rankings)


CORRECT = {"ratings": [{"name": "correct", "low": 1, "high": 5}], "flags": ["unsafe"]}


@pytest.mark.parametrize(
    ("judgments", "words"),
    [
        ([], "71 needs a 'correct' from 1 to 5: None"),
        ([(71, {"correct": 3}, [])], "42 needs a 'correct'"),
        ([(71, {"correct": 6}, []), (42, {"correct": 1}, [])], "71 needs .* 6"),
        ([(71, {"correct": True}, []), (42, {"correct": 1}, [])], "71 needs .* True"),
        ([(71, {"polite": 3}, [])], "no rating 'polite'; the ratings are correct"),
        ([(8, {"correct": 3}, [])], "Completion 8 was not shown"),
        ([(71, {"correct": 3}, []), (71, {"correct": 3}, [])], "judged twice"),
        ([(71, {"correct": 3}, ["rude"])], "no flag 'rude'; the flags are unsafe"),
        ([(71, {"correct": 3}, ["unsafe", "unsafe"])], "'unsafe' twice"),
    ],
)
def test_judgments_that_do_not_fit(judgments, words):
    said = [
        Judgment(completion=pk, ratings=ratings, flags=flags) for pk, ratings, flags in judgments
    ]
    with pytest.raises(BadRanking, match=words):
        checked(CORRECT, judgments=said)


def test_judgments_come_in_the_order_shown_and_empty_ones_are_left_out():
    said = [
        Judgment(completion=42, ratings={"correct": 1}, flags=["unsafe"]),
        Judgment(completion=71, ratings={"correct": 5}),
    ]
    assert checked(CORRECT, judgments=said).judgments == said[::-1]
    assert checked({"flags": ["unsafe"]}, judgments=[Judgment(completion=42)]).judgments == []


@pytest.mark.parametrize(
    ("reason", "note", "words"),
    [
        ("optional", "", None),
        ("optional", "Because.", None),
        ("required", "Because.", None),
        ("required", " ", "asks for a reason"),
        ("off", "", None),
        ("off", "Because.", "asks for no reason: 'Because.'"),
    ],
)
def test_a_reason(reason, note, words):
    if words is None:
        assert checked({"reason": reason}, note=note).note == note
    else:
        with pytest.raises(BadInput, match=words):
            checked({"reason": reason}, note=note)


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ({"strength_steps": 3}, "0, 2, 4 or 7 steps: 3"),
        ({"reason": "maybe"}, "off, optional, required: 'maybe'"),
        ({"ideal": "yes"}, "ideal is true or false: 'yes'"),
        ({"stars": 5}, "not 'stars'"),
        ({"ratings": [{"name": "x", "low": 5, "high": 1}]}, "5 to 1"),
        ({"ratings": [{"name": "x", "low": 0, "high": 11}]}, "0 to 11"),
        ({"ratings": [{"low": 1, "high": 5}]}, "a name, a low and a high end"),
        ({"ratings": [{"name": "x"}, {"name": "x"}]}, "two ratings 'x'"),
        ({"flags": ["unsafe", "unsafe"]}, "two flags 'unsafe'"),
        ({"flags": [""]}, "1 to 40 characters: ''"),
        ({"flags": [str(n) for n in range(13)]}, "at most 12 flags, not 13"),
    ],
)
def test_options_that_make_no_sense(stored, words):
    with pytest.raises(BadInput, match=words):
        Options.of(stored)


def test_options_go_to_json_and_back_and_a_plain_scheme_keeps_none():
    assert Options().as_json() == {}
    full = Options(
        strength_steps=7,
        allow_partial=False,
        acceptability=True,
        ratings=(Attribute(name="correct", low=0, high=4),),
        flags=("unsafe",),
        reason="off",
        ideal=True,
    )
    assert Options.of(full.as_json()) == full
    assert [Options(strength_steps=steps).levels for steps in (0, 2, 4, 7)] == [0, 2, 4, 3]


# --- stored, revised, voided --------------------------------------------------------------------


@pytest.fixture
def asked(db, settings, tmp_path):
    """A project whose scheme asks for all of it, and a lease in it."""
    settings.ARTIFACTS_DIR = tmp_path
    project = make_project()
    new_scheme(project=project, by=None, options={**CORRECT, "ideal": True})
    make_comparisons(project, batch="after the scheme")
    project.prompts.update(split="train")
    return project, claim_comparison(annotator=make_annotator(project))


def submit(lease, *, ideal="", key="k"):
    first, second = lease.presented_order
    return submit_preference(
        assignment=lease,
        rankings=[AxisRanking(groups=[[second], [first]])],
        judgments=[
            Judgment(completion=first, ratings={"correct": 2}, flags=["unsafe"]),
            Judgment(completion=second, ratings={"correct": 5}),
        ],
        ideal=ideal,
        key=key,
    )


def demonstrations(project):
    frozen = snapshots.freeze(project=project, kind="demonstrations")
    counts = {bucket: number for bucket, number in frozen.counts.items() if number}
    return [row["completion"] for row in snapshots.rows_of(frozen)], counts


def test_judgments_are_kept_by_completion_and_come_out_in_the_snapshot(asked):
    project, lease = asked
    preference = submit(lease)
    first, second = lease.presented_order
    kept = {row.completion_id: (row.ratings, row.flags) for row in preference.judgments.all()}
    assert kept == {first: ({"correct": 2}, ["unsafe"]), second: ({"correct": 5}, [])}
    frozen = snapshots.freeze(project=project, kind="comparisons")
    (row,) = snapshots.rows_of(frozen)
    said = {one["completion"]: (one["ratings"], one["flags"]) for one in row["judgments"]}
    assert said == {str(first): ({"correct": 2}, ["unsafe"]), str(second): ({"correct": 5}, [])}
    assert [one["scales"] for one in row["judgments"]] == [{"correct": [1, 5]}] * 2


@pytest.mark.django_db
def test_a_strength_comes_out_with_the_highest_that_was_asked_and_the_line(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path
    project = make_project()
    new_scheme(project=project, by=None, options={"strength_steps": 7, "acceptability": True})
    make_comparisons(project, batch="after the scheme")
    project.prompts.update(split="train")
    lease = claim_comparison(annotator=make_annotator(project))
    groups = [[pk] for pk in lease.presented_order]
    ranking = AxisRanking(groups=groups, strengths=[2], acceptable=1)
    submit_preference(assignment=lease, rankings=[ranking], key="k")
    frozen = snapshots.freeze(project=project, kind="comparisons")
    ((vote,),) = [row["votes"] for row in snapshots.rows_of(frozen)]
    assert (vote["strength"], vote["strength_levels"], vote["acceptable"]) == ([2], 3, 1)


def test_an_ideal_answer_is_a_demonstration_until_its_answer_goes(asked):
    project, lease = asked
    preference = submit(lease, ideal="As it should be.")
    assert preference.ideal.text == "As it should be."
    assert demonstrations(project) == (["As it should be."], {"train": 1})
    before = snapshots.freeze(project=project, kind="demonstrations")
    revised = revise_preference(
        preference=preference,
        rankings=[AxisRanking(groups=[[pk] for pk in lease.presented_order])],
        cause="second thoughts",
        ideal="Better still.",
    )
    assert demonstrations(project) == (["Better still."], {"superseded": 1, "train": 1})
    assert revised.judgments.count() == CompletionJudgment.objects.count() / 2 == 2
    void_preference(preference=revised, by=make_user(), reason="spam")
    assert demonstrations(project) == ([], {"superseded": 1, "voided": 1})
    snapshots.path_of(before).unlink()  # so that it is rendered again, knowing what came later
    again = snapshots.freeze(
        project=project, kind="demonstrations", query={"up_to": before.ledger_position}
    )
    assert again == before


def test_an_ideal_answer_that_another_stands_by_stays(asked):
    project, lease = asked
    preference = submit(lease, ideal="As it should be.")
    make_comparisons(project, batch="more")
    project.prompts.update(split="train")
    other = claim_comparison(annotator=make_annotator(project))
    other.comparison.prompt = lease.comparison.prompt  # the same words to the same prompt
    other.comparison.save()
    second = submit(other, ideal="As it should be.", key="k2")
    assert second.ideal == preference.ideal
    void_preference(preference=preference, by=make_user(), reason="spam")
    assert demonstrations(project) == (["As it should be."], {"train": 1})


def test_a_refused_answer_leaves_nothing(asked):
    project, lease = asked
    with pytest.raises(BadRanking):
        submit_preference(
            assignment=lease,
            rankings=[AxisRanking(groups=[[pk] for pk in lease.presented_order])],
            ideal="Lost?",
            key="k",
        )
    assert not Preference.objects.exists()
    assert demonstrations(project) == ([], {})
