"""policy.comparisons: rows of both kinds, pair tables against hand-made ones, refusals."""

import json
from pathlib import Path

import pytest

from policy.comparisons import PairTable, Vote, parse_row, parse_transcript, read_comparisons
from policy.config import BadInput
from policy.rows import LARGEST_WEIGHT, SMALLEST_WEIGHT


def vote(ranking, **fields):
    plain = {
        "axis": "helpful",
        "strength": None,
        "weight": None,
        "annotator": "a1",
        "kind": "human",
    }
    return plain | {"ranking": ranking} | fields


def row(votes, k=3, **fields):
    return {
        "id": "c1",
        "split": "train",
        "prompt": [{"role": "user", "content": "Hello?"}],
        "completions": [{"id": f"x{i}", "text": f"Answer {i}.", "model": None} for i in range(k)],
        "votes": votes,
    } | fields


def table_of(votes, k=3) -> PairTable:
    return parse_row(row(votes, k), line=1).table


def write(path: Path, *rows) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    return path


def test_one_ranking_of_three_gives_three_pairs_that_share_one_weight():
    table = table_of([vote([["x2"], ["x0"], ["x1"]])])
    assert table.pairs == ((0, 1), (0, 2), (1, 2))
    assert table.targets == (1.0, 0.0, 0.0)
    assert table.weights == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert (table.num_answers, table.num_strict, table.num_ties) == (1, 3, 0)


def test_tied_completions_give_no_pair_and_are_counted():
    table = table_of([vote([["x1"], ["x0", "x2"]])])
    assert table.pairs == ((0, 1), (1, 2))
    assert table.targets == (0.0, 1.0)
    assert table.weights == (0.5, 0.5)
    assert table.num_ties == 1


def test_a_completion_that_was_not_ranked_is_in_no_pair():
    table = table_of([vote([["x0"], ["x2"]])])
    assert table.pairs == ((0, 2),)
    assert table.weights == (1.0,)


def test_disagreeing_votes_become_the_share_of_votes():
    table = table_of([vote([["x0"], ["x1"]]), vote([["x0"], ["x1"]]), vote([["x1"], ["x0"]])], k=2)
    assert table.pairs == ((0, 1),)
    assert table.targets == pytest.approx((2 / 3,))
    assert table.weights == pytest.approx((1.0,))


def test_vote_weights_count_and_weight_zero_is_left_out():
    votes = [
        vote([["x0"], ["x1"]], weight=3),
        vote([["x1"], ["x0"]], weight=1),
        vote([["x1"], ["x0"]], weight=0),
    ]
    table = table_of(votes, k=2)
    assert table.targets == pytest.approx((0.75,))
    assert table.num_answers == 2


def test_weights_at_both_ends_of_what_is_taken_still_give_shares():
    little = Vote(((0,), (1,), (2,)), weight=SMALLEST_WEIGHT)
    table = PairTable.of([little, Vote(((1,), (0,)), weight=LARGEST_WEIGHT)])
    assert sum(table.weights) == pytest.approx(1.0)
    assert table.targets == pytest.approx((0.0, 1.0, 1.0))


def test_each_vote_shares_its_own_weight_among_its_own_pairs():
    # One full ranking (3 pairs, 1/6 each) and one answer about a single pair (1/2).
    table = table_of([vote([["x0"], ["x1"], ["x2"]]), vote([["x1"], ["x0"]])])
    assert table.pairs == ((0, 1), (0, 2), (1, 2))
    assert table.weights == pytest.approx((1 / 6 + 1 / 2, 1 / 6, 1 / 6))
    assert table.targets == pytest.approx((0.25, 1.0, 1.0))


@pytest.mark.parametrize("k", [2, 5, 9])
@pytest.mark.parametrize("num_votes", [1, 4])
def test_the_weights_of_a_comparison_sum_to_one(k, num_votes):
    names = [f"x{i}" for i in range(k)]
    votes = [vote([[name] for name in names[turn:] + names[:turn]]) for turn in range(num_votes)]
    assert sum(table_of(votes, k).weights) == pytest.approx(1.0)


def test_a_vote_that_ties_everything_does_not_dilute_the_others():
    table = table_of([vote([["x0", "x1"]]), vote([["x0"], ["x1"]])], k=2)
    assert (table.targets, table.weights) == ((1.0,), (1.0,))
    assert (table.num_answers, table.num_ties) == (1, 1)


def test_a_comparison_without_a_strict_pair_has_an_empty_table():
    assert table_of([vote([["x0", "x1"]]), vote([["x2"]]), vote([])]).pairs == ()
    assert PairTable.of([]).pairs == ()


def test_only_votes_on_the_wanted_axis_are_kept():
    votes = [vote([["x0"], ["x1"]], axis="helpful"), vote([["x1"], ["x0"]], axis="safe")]
    comparison = parse_row(row(votes, 2), line=1, axis="safe")
    assert comparison.votes == (Vote(((1,), (0,)), axis="safe", kind="human", annotator="a1"),)
    assert comparison.table.targets == (0.0,)


def test_rows_with_the_same_prompt_are_one_group_unless_they_name_another():
    one, two = parse_row(row([]), line=1), parse_row(row([], id="c2"), line=2)
    other = parse_row(row([], prompt=[{"role": "user", "content": "Other"}]), line=3)
    named = parse_row(row([], group=17), line=4)
    assert one.group == two.group != other.group
    assert named.group == "17"


def test_a_row_without_a_split_is_trained_on():
    comparison = parse_row({"prompt": "Hi", "chosen": "Good.", "rejected": "Bad."}, line=5)
    assert comparison.split is None
    assert comparison.in_split("train")
    assert comparison.in_split("all")
    assert not comparison.in_split("dev")


def test_trl_rows_of_strings_are_comparisons_of_two():
    comparison = parse_row({"prompt": "Hi", "chosen": "Good.", "rejected": "Bad."}, line=5)
    assert comparison.id == "line-5"
    assert comparison.prompt == ({"role": "user", "content": "Hi"},)
    assert comparison.texts == ("Good.", "Bad.")
    assert (comparison.table.pairs, comparison.table.targets) == (((0, 1),), (1.0,))


USER = {"role": "user", "content": "Hi"}
GOOD = {"role": "assistant", "content": "Good."}
BAD = {"role": "assistant", "content": "Bad."}


@pytest.mark.parametrize(
    "preference",
    [
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Good.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Bad.",
        },
    ],
    ids=["conversational", "implicit conversational", "implicit transcript"],
)
def test_conversational_and_implicit_prompts_give_the_same_comparison(preference):
    comparison = parse_row(preference, line=1)
    assert comparison.prompt == (USER,)
    assert comparison.texts == ("Good.", "Bad.")


def test_answers_that_open_with_the_same_words_stay_whole():
    comparison = parse_row(
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: I would go.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: I would stay.",
        },
        line=1,
    )
    assert comparison.texts == ("I would go.", "I would stay.")


def test_a_transcript_becomes_its_turns():
    text = "Be kind.\n\nHuman: One\n\nAssistant: Two\nlines\n\nHuman: Three"
    assert parse_transcript(text) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two\nlines"},
        {"role": "user", "content": "Three"},
    ]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (row([]) | {"completions": None}, "completions must be a list: null"),
        ({"id": "c1", "split": "dev", "prompt": "Hi"}, "the row lacks completions, votes"),
        (row([{"ranking": []}]), "a vote lacks axis, strength, weight, annotator, kind"),
        (row([vote([["x0"], ["x7"]])]), 'names a completion that the row has not: "x7"'),
        (row([vote([["x0"], ["x0"]])]), "names a completion twice"),
        (row([vote(["x0", "x1"])]), "must be a list of lists"),
        (
            row([vote([["x0"]], weight=-1)]),
            "weight of a vote must be 0 or a number from 1e-100 to 1e+100: -1",
        ),
        (row([vote([["x0"]], weight=1e308)] * 2), "from 1e-100 to 1e+100: 1e+308"),
        (row([vote([["x0"]], weight=5e-324)]), "from 1e-100 to 1e+100: 5e-324"),
        (row([vote([["x0"]], weight=10**400)]), "from 1e-100 to 1e+100: 1000"),
        (row([], k=1), "needs two completions or more: it has 1"),
        (row([]) | {"prompt": []}, "must be a list of messages that is not empty, got []"),
        (row([]) | {"prompt": [{"role": "user"}]}, "a message must be {role, content} with text"),
        (row([]) | {"prompt": [GOOD]}, "the last turn of a prompt must be the user's"),
        (row([], split="gold"), "split must be train, dev or test, got 'gold'"),
        ({"prompt": "Hi", "chosen": "Same", "rejected": "Same"}, "have the same text"),
        ({"prompt": "Hi", "chosen": "Good"}, "a preference row lacks rejected"),
        ({"prompt": "Hi", "chosen": "Good", "rejected": " "}, "rejected must be a string with"),
        ({"chosen": [USER, GOOD], "rejected": [BAD]}, "share no message"),
        ({"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, BAD]}, "must part at one last"),
        ({"chosen": "One thing", "rejected": "One other"}, "must be transcripts"),
    ],
)
def test_a_bad_row_is_refused_with_file_line_and_what_was_seen(tmp_path, bad, said):
    path = write(tmp_path / "rows.jsonl", row([vote([["x0"], ["x1"]])]), bad)
    with pytest.raises(BadInput) as refusal:
        list(read_comparisons(path))
    assert said in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "line 2" in str(refusal.value)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "name", ["preference_conversational", "preference_implicit_prompt", "preference_zh"]
)
def test_real_trl_files_are_read_whole(shared_data, name):
    comparisons = list(read_comparisons(shared_data / "formats" / "trl" / f"{name}.jsonl"))
    assert len(comparisons) == 20
    assert all(comparison.table.targets == (1.0,) for comparison in comparisons)


@pytest.mark.shared_data
def test_the_implicit_and_the_conversational_file_hold_the_same_conversations(shared_data):
    folder = shared_data / "formats" / "trl"
    spoken, implicit = (
        list(read_comparisons(folder / f"preference_{name}.jsonl"))
        for name in ("conversational", "implicit_prompt")
    )
    same = [
        (one.texts, [m["content"].strip() for m in one.prompt])
        == (other.texts, [m["content"].strip() for m in other.prompt])
        for one, other in zip(spoken, implicit, strict=True)
    ]
    assert all(same)
