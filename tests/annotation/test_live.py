"""services.live: from a message to a counted answer, in one thread and one split group."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.errors import BadInput, BadRanking, Conflict, NotAllowed
from annotation.models import (
    Comparison,
    Completion,
    Generation,
    LiveThread,
    LiveTurn,
    Outcome,
    Preference,
    Project,
    Prompt,
)
from annotation.services import ledger, live, queue, snapshots
from annotation.services.answers import Answer, Judgment
from annotation.services.live_setup import change_setup, setup_of
from annotation.services.projects import new_scheme
from annotation.services.rankings import AxisRanking
from annotation.services.review import revise_preference, void_preference
from tests.annotation.live_world import (
    make_chat,
    make_policy,
    open_chat,
    ready_turn,
    start,
    write,
)
from tests.annotation.making import (
    make_annotator,
    make_comparisons,
    make_project,
    require_invariant,
)

pytestmark = pytest.mark.django_db
FIRST = Answer(rankings=[AxisRanking(groups=[[1], [2]])])
SECOND = Answer(rankings=[AxisRanking(groups=[[2], [1]])])
TIE = Answer(rankings=[AxisRanking(outcome=Outcome.EQUAL, groups=[[1, 2]])])
BOTH_BAD = Answer(rankings=[AxisRanking(outcome=Outcome.BOTH_BAD)])


@pytest.fixture
def chat():
    return make_chat()


def texts(turn: LiveTurn) -> dict[int, str]:
    return {one.place: one.text for one in turn.answers.all()}


def left_no_rows() -> bool:
    return not (
        Prompt.objects.exists() or Completion.objects.exists() or Comparison.objects.exists()
    )


def test_a_chosen_turn_is_a_counted_answer_to_a_live_comparison(chat):
    project, annotator = chat
    turn = ready_turn(annotator)
    live.choose(turn=turn, answer=SECOND, key="k")
    turn.refresh_from_db()
    comparison = Comparison.objects.get()
    assert (comparison.purpose, comparison.answers_wanted, comparison.open_slots) == ("live", 1, 0)
    preference = Preference.objects.get()
    assert (preference.counted, preference.annotator) == (True, annotator)
    shown = [Completion.objects.get(pk=pk).text for pk in preference.presented_order]
    assert shown == [texts(turn)[1], texts(turn)[2]]
    assert preference.rankings.get().groups == [[pk] for pk in preference.presented_order[::-1]]
    assert turn.continued_with == texts(turn)[2]
    assert (turn.comparison, turn.preference) == (comparison, preference)
    require_invariant(project)


def test_who_wrote_what_is_kept_by_side_whatever_the_place():
    project = make_project()
    first, second = make_policy(project), make_policy(project)
    open_chat(project, version_a=first, version_b=second)
    for number in range(6):
        turn = ready_turn(make_annotator(project), f"Question {number}?")
        live.choose(turn=turn, answer=FIRST, key=f"k {number}")
    written = Generation.objects.values_list(
        "completion__text", "model_version", "sampling", "seed"
    )
    assert set(map(str, written)) == {
        str(("In the shop.", first.pk, {"temperature": 0.7}, 1)),
        str(("By post.", second.pk, {"temperature": 1.0}, 2)),
    }
    assert {one.finish_reason for one in Generation.objects.all()} == {"end"}


def test_either_side_stands_on_the_left_now_and_then(chat):
    _project, annotator = chat
    sides = {start(annotator).turns.get().answers.get(place=1).side for _ in range(40)}
    assert sides == {"a", "b"}


def test_the_conversation_goes_on_from_the_chosen_answer_in_one_group(chat):
    _project, annotator = chat
    turn = ready_turn(annotator)
    thread = turn.thread
    live.choose(turn=turn, answer=FIRST, key="k1")
    turn.refresh_from_db()
    second = live.say(thread=thread, message="And without a receipt?", key="m2")
    expected = [
        {"role": "user", "content": "How do I return a jacket?"},
        {"role": "assistant", "content": turn.continued_with},
        {"role": "user", "content": "And without a receipt?"},
    ]
    assert live.messages_of(second) == expected
    write(second, "No.", "Yes.")
    live.choose(turn=second, answer=SECOND, key="k2")
    one, two = Prompt.objects.order_by("pk")
    assert two.messages == expected
    assert one.split_group == two.split_group == thread.split_group
    assert one.split == two.split == ledger.split_of_group(thread.split_group)


def test_two_threads_that_begin_alike_share_a_group_and_keep_their_own_questions(chat):
    project, annotator = chat
    other = make_annotator(project)
    for number, writer in enumerate((annotator, other, annotator)):
        live.choose(turn=ready_turn(writer), answer=FIRST, key=f"k {number}")
    assert Comparison.objects.count() == Preference.objects.filter(counted=True).count() == 3
    assert Prompt.objects.values("split_group").distinct().count() == 1
    require_invariant(project)


def test_an_opening_that_was_imported_keeps_the_imported_split(chat):
    project, annotator = chat
    source = project.sources.get()
    for group, split, opening in (("tree 7", "test", "Known?"), (None, "dev", "Known too?")):
        ledger.add_prompt(
            project=project,
            source=source,
            messages=[{"role": "user", "content": opening}],
            split_group=group,
            split=split,
        )
        live.choose(turn=ready_turn(annotator, opening), answer=FIRST, key=opening)
        prompt = Preference.objects.latest("pk").comparison.prompt
        assert (prompt.split_group, prompt.split) == (group or "known too?", split)


def test_an_edited_answer_is_gone_on_with_and_is_a_demonstration(chat):
    _project, annotator = chat
    turn = ready_turn(annotator)
    live.choose(turn=turn, answer=FIRST, key="k", edited="Bring it\r\nback. ")
    turn.refresh_from_db()
    assert turn.continued_with == "Bring it\nback."
    assert turn.preference.ideal.text == "Bring it\nback."
    assert turn.preference.ideal.prompt.split_group == turn.thread.split_group
    generation = turn.preference.ideal.generations.get()
    assert (generation.origin, generation.annotator) == ("demonstration", annotator)


@pytest.mark.parametrize("ideal", [None, ""])
def test_a_revision_keeps_the_edit_that_the_conversation_went_on_from(chat, ideal):
    """No form asks for it: the scheme need not want ideal answers."""
    _project, annotator = chat
    old = live.choose(
        turn=ready_turn(annotator), answer=FIRST, key="k", edited="Bring it back."
    ).preference
    turned = [AxisRanking(groups=[[one] for one in reversed(old.presented_order)])]
    new = revise_preference(preference=old, rankings=turned, cause="a slip", ideal=ideal)
    assert new.ideal == old.ideal is not None
    snapshot = snapshots.freeze(
        project=_project, kind="demonstrations", query={"splits": ["train", "dev"]}
    )
    assert snapshot.counts.get("superseded", 0) == 0


@pytest.mark.parametrize("given", [" In\nthe shop.\n", "In\r\nthe shop.", "By post. "])
def test_an_edit_that_changes_nothing_is_none(chat, given):
    """A browser's text field gives line ends back in its own way."""
    _project, annotator = chat
    turn = write(start(annotator).turns.get(), "In\rthe shop.", "By post.")
    live.choose(turn=turn, answer=FIRST, key="k", edited=given)
    turn.refresh_from_db()
    assert turn.preference.ideal is None
    assert turn.continued_with == texts(turn)[1]


@pytest.mark.parametrize("answer", [TIE, BOTH_BAD])
def test_without_a_better_one_the_writer_says_how_it_goes_on(chat, answer):
    _project, annotator = chat
    turn = ready_turn(annotator)
    with pytest.raises(BadInput, match="Say which answer the conversation goes on from"):
        live.choose(turn=turn, answer=answer, key="k")
    assert left_no_rows()
    live.choose(turn=turn, answer=answer, key="k", go_on_with=2)
    turn.refresh_from_db()
    assert turn.continued_with == texts(turn)[2]


def test_both_bad_and_the_end_closes_the_thread(chat):
    _project, annotator = chat
    turn = ready_turn(annotator)
    live.choose(turn=turn, answer=BOTH_BAD, key="k", end=True)
    turn.thread.refresh_from_db()
    assert turn.thread.closed_at is not None
    assert Preference.objects.get().rankings.get().outcome == "both_bad"
    with pytest.raises(Conflict, match="has ended"):
        live.say(thread=turn.thread, message="Hello?", key="m")


def test_the_same_key_is_one_answer_and_another_key_a_conflict(chat):
    _project, annotator = chat
    turn = ready_turn(annotator)
    one = live.choose(turn=turn, answer=FIRST, key="k")
    two = live.choose(turn=turn, answer=SECOND, key="k")
    assert one.preference == two.preference
    with pytest.raises(Conflict, match="not to be chosen"):
        live.choose(turn=turn, answer=SECOND, key="another")
    assert Preference.objects.count() == 1


def test_axes_that_disagree_ask_how_it_goes_on(chat):
    project, annotator = chat
    new_scheme(project=project, axes=["helpful", "safe"], by=None)
    turn = ready_turn(annotator)
    apart = Answer(
        rankings=[
            AxisRanking(axis="helpful", groups=[[1], [2]]),
            AxisRanking(axis="safe", groups=[[2], [1]]),
        ]
    )
    with pytest.raises(BadInput, match="Say which answer"):
        live.choose(turn=turn, answer=apart, key="k")
    live.choose(turn=turn, answer=apart, key="k", go_on_with=1)
    assert Preference.objects.get().rankings.count() == 2


def test_what_else_the_scheme_asks_for_is_taken_by_places(chat):
    project, annotator = chat
    options = {
        "strength_steps": 2,
        "ratings": [{"name": "correct", "low": 1, "high": 5}],
        "flags": ["unsafe"],
    }
    new_scheme(project=project, by=None, options=options)
    turn = ready_turn(annotator)
    answer = Answer(
        rankings=[AxisRanking(groups=[[2], [1]], strengths=[2])],
        judgments=[
            Judgment(completion=1, ratings={"correct": 2}, flags=["unsafe"]),
            Judgment(completion=2, ratings={"correct": 5}),
        ],
        note="the first is rude",
    )
    live.choose(turn=turn, answer=answer, key="k")
    preference = Preference.objects.get()
    left, right = preference.presented_order
    assert {
        j.completion_id: (j.ratings["correct"], j.flags) for j in preference.judgments.all()
    } == {
        left: (2, ["unsafe"]),
        right: (5, []),
    }
    assert (preference.rankings.get().strengths, preference.note) == ([2], "the first is rude")


@pytest.mark.parametrize(
    ("answer", "more", "error", "words"),
    [
        (Answer(rankings=[AxisRanking(groups=[[3], [1]])]), {}, BadRanking, "there is no 3"),
        (FIRST, {"go_on_with": 3}, BadInput, "answer 1 or 2, not 3"),
        (Answer(rankings=[]), {"go_on_with": 1}, BadRanking, "lacks 'overall'"),
        (FIRST, {"key": ""}, BadInput, "1 to 80"),
        (FIRST, {"edited": "x" * 100_001}, BadInput, "1 to 100000"),
    ],
)
def test_a_bad_choice_says_why_and_leaves_nothing(chat, answer, more, error, words):
    _project, annotator = chat
    turn = ready_turn(annotator)
    with pytest.raises(error, match=words):
        live.choose(turn=turn, answer=answer, **{"key": "k", **more})
    assert left_no_rows()
    turn.refresh_from_db()
    assert turn.state == "ready"


def test_a_lease_of_the_writers_on_the_labeling_page_is_in_nobodys_way(chat):
    project, annotator = chat
    make_comparisons(project)
    lease = queue.claim_comparison(annotator=annotator)
    live.choose(turn=ready_turn(annotator), answer=FIRST, key="k")
    lease.refresh_from_db()
    assert lease.holds_slot
    require_invariant(project)


def test_live_comparisons_are_handed_to_nobody_else_and_train(chat, settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path
    project, annotator = chat
    turn = ready_turn(annotator)
    live.choose(turn=turn, answer=SECOND, key="k")
    Prompt.objects.update(split="train")
    snapshot = snapshots.freeze(project=project, kind="comparisons")
    assert snapshot.counts["trained"] == 1
    (row,) = snapshots.rows_of(snapshot)
    assert row["prompt"] == live.messages_of(turn)
    assert {one["text"] for one in row["completions"]} == {"In the shop.", "By post."}
    assert Comparison.objects.for_training().count() == 1


def test_a_voided_choice_reopens_its_slot(chat):
    project, annotator = chat
    live.choose(turn=ready_turn(annotator), answer=FIRST, key="k")
    void_preference(preference=Preference.objects.get(), by=None, reason="spam")
    assert Comparison.objects.get().open_slots == 1
    require_invariant(project)


def test_answers_that_are_alike_make_no_comparison_and_the_thread_goes_on(chat):
    _project, annotator = chat
    turn = write(start(annotator).turns.get(), "The same.", "The same. ")
    assert (turn.state, turn.continued_with) == ("alike", texts(turn)[1])
    with pytest.raises(Conflict, match="not to be chosen"):
        live.choose(turn=turn, answer=FIRST, key="k")
    second = live.say(thread=turn.thread, message="Go on.", key="m")
    assert live.messages_of(second)[1] == {"role": "assistant", "content": texts(turn)[1]}
    assert left_no_rows()


def test_a_thread_that_is_left_leaves_nothing_in_the_ledger(chat):
    _project, annotator = chat
    turn = ready_turn(annotator)
    live.end_thread(thread=turn.thread)
    closed_at = live.end_thread(thread=turn.thread).closed_at
    turn.thread.refresh_from_db()
    assert turn.thread.closed_at == closed_at
    turn.refresh_from_db()
    assert turn.state == "dropped"
    assert left_no_rows()
    with pytest.raises(Conflict, match="not to be chosen"):
        live.choose(turn=turn, answer=FIRST, key="k")


def test_the_next_message_waits_for_the_turn_before(chat):
    _project, annotator = chat
    thread = start(annotator)
    with pytest.raises(Conflict, match="not settled yet"):
        live.say(thread=thread, message="And?", key="m")
    write(thread.turns.get())
    with pytest.raises(Conflict, match="not settled yet"):
        live.say(thread=thread, message="And?", key="m")


def test_the_same_key_says_and_starts_once(chat):
    _project, annotator = chat
    thread = live.start_thread(annotator=annotator, message="One?", key="s")
    assert live.start_thread(annotator=annotator, message="One?", key="s") == thread
    turn = write(thread.turns.get())
    live.choose(turn=turn, answer=FIRST, key="k")
    said = live.say(thread=thread, message="Two?", key="m")
    assert live.say(thread=thread, message="Two?", key="m") == said
    assert LiveThread.objects.count() == 1
    assert LiveTurn.objects.count() == 2


def test_the_last_turn_ends_the_thread():
    _project, annotator = make_chat(max_turns=1)
    turn = ready_turn(annotator)
    live.choose(turn=turn, answer=TIE, key="k")  # nothing follows, so nothing is to be said
    turn.thread.refresh_from_db()
    assert turn.thread.closed_at is not None


def test_a_writer_starts_only_so_many_threads_in_a_day():
    project, annotator = make_chat(max_threads_per_day=2)
    first, _second = start(annotator), start(annotator)
    with pytest.raises(Conflict, match="as many conversations as are wanted"):
        start(annotator)
    start(make_annotator(project))
    LiveThread.objects.filter(pk=first.pk).update(
        created_at=timezone.now() - timedelta(hours=24, seconds=1)
    )
    start(annotator)


@pytest.mark.parametrize(
    ("message", "words"), [("  \n", "can't be empty"), ("x" * 8001, "8001"), ("a\x00", "NUL")]
)
def test_a_message_that_can_t_be_one(chat, message, words):
    _project, annotator = chat
    with pytest.raises(BadInput, match=words):
        start(annotator, message)


def test_a_closed_chat_starts_nothing_and_lets_threads_end(chat):
    project, annotator = chat
    turn = ready_turn(annotator)
    change_setup(project=project, changes={}, is_open=False, by=None)
    annotator.refresh_from_db()
    with pytest.raises(NotAllowed, match="closed"):
        start(annotator)
    live.choose(turn=turn, answer=FIRST, key="k")


def test_whom_the_bar_has_stopped_says_nothing_more(chat):
    _project, annotator = chat
    turn = ready_turn(annotator)
    live.choose(turn=turn, answer=FIRST, key="k")
    annotator.standing = "stopped"
    annotator.save()
    with pytest.raises(NotAllowed, match="paused"):
        live.say(thread=turn.thread, message="And?", key="m")
    with pytest.raises(NotAllowed, match="paused"):
        start(annotator)


def test_the_qualification_comes_before_the_chat(chat):
    project, annotator = chat
    project.checks = {"qualification_items": 3}
    project.save()
    annotator.refresh_from_db()
    with pytest.raises(NotAllowed, match="qualification"):
        start(annotator)


def test_a_thread_keeps_the_models_it_began_with(chat):
    project, annotator = chat
    thread = start(annotator)
    before = thread.version_a
    make_policy(project)
    turn = write(thread.turns.get())
    live.choose(turn=turn, answer=FIRST, key="k")
    assert {one.model_version for one in Generation.objects.all()} == {before}


def test_without_a_policy_nobody_can_answer():
    project = make_project()
    open_chat(project)
    with pytest.raises(Conflict, match="No policy is in force"):
        start(make_annotator(project))


def test_a_setup_is_the_policy_in_force_at_two_temperatures_until_changed():
    project = make_project()
    setup = setup_of(project)
    assert (setup.version_a, setup.version_b) == (None, None)
    assert setup.temperature_a != setup.temperature_b
    assert not Project.objects.get(pk=project.pk).chat_open


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temperature_a": 1.0}, "at one temperature"),
        ({"temperature_a": -1.0}, "live_setup_limits"),
        ({"max_turns": 0}, "live_setup_limits"),
        ({"lunch": 1}, "not 'lunch'"),
    ],
)
def test_a_setup_that_makes_no_sense_is_refused(changes, words):
    with pytest.raises(BadInput, match=words):
        open_chat(make_project(), **changes)


def test_another_projects_version_answers_nobody_here():
    stranger = make_policy(make_project())
    with pytest.raises(BadInput, match="not one of this project"):
        open_chat(make_project(), version_a=stranger)
