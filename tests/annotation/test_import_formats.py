"""One row of a public format becomes a comparison, or one sentence that says why it can't."""

import json
from collections import Counter

import pytest

from annotation.importers import comparisons, demonstrations, hh_rlhf, oasst_zh, prompts, trl
from annotation.importers.lines import RawRow, read_rows
from annotation.importers.parsers import PREFERENCE_FORMATS
from annotation.importers.rows import Refused, parse_json

SHARED = "\n\nHuman: Hello?\n\nAssistant: Hi.\n\nHuman: Which is \n\n better?\n\nAssistant:"
ASKED = [
    {"role": "user", "content": "Hello?"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "Which is \n\n better?"},
]
QUESTION = [{"role": "user", "content": "Which?"}]


def answers(*texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


def texts_of(row):
    return [completion.text for completion in row.completions]


def test_transcripts_share_a_prompt_and_end_with_the_two_answers():
    row = hh_rlhf.parse({"chosen": f"{SHARED} Tea. ", "rejected": f"{SHARED} Coffee."})
    assert row.prompt.messages == ASKED
    assert texts_of(row) == ["Tea.", "Coffee."]
    assert [ranking.groups for ranking in row.votes[0].rankings] == [[[0], [1]]]
    assert row.votes[0].kind == "outside"


CHOSEN, REJECTED = answers("Tea.", "Coffee.")
TRL_SHAPES = [
    {"prompt": "Which?", "chosen": "Tea.", "rejected": "Coffee."},
    {"prompt": QUESTION, "chosen": CHOSEN, "rejected": REJECTED},
    {"chosen": QUESTION + CHOSEN, "rejected": QUESTION + REJECTED},
    {
        "chosen": "\n\nHuman: Which?\n\nAssistant: Tea.",
        "rejected": "\n\nHuman: Which?\n\nAssistant: Coffee.",
    },
]


@pytest.mark.parametrize("shape", TRL_SHAPES)
def test_the_four_shapes_of_trl_say_the_same(shape):
    row = trl.parse(shape)
    assert row.prompt.messages == QUESTION
    assert texts_of(row) == ["Tea.", "Coffee."]
    assert row == trl.parse(TRL_SHAPES[0])


def test_space_at_the_ends_of_a_text_is_kept_where_it_may_be_meant():
    row = trl.parse({"prompt": "    return x", "chosen": "a ", "rejected": "a"})
    assert row.prompt.messages[0]["content"] == "    return x"
    assert texts_of(row) == ["a ", "a"]


def test_oasst_answers_are_ranked_in_the_order_they_stand_in():
    row = oasst_zh.parse(
        {
            "instruction": "哪个？",
            "input": "茶或咖啡",
            "history": [["你好", "你好！"]],
            "output": ["茶", "咖啡", "水"],
        }
    )
    assert [message["content"] for message in row.prompt.messages] == [
        "你好",
        "你好！",
        "哪个？\n茶或咖啡",
    ]
    assert row.prompt.language == "zh"
    assert texts_of(row) == ["茶", "咖啡", "水"]
    assert row.votes[0].rankings[0].groups == [[0], [1], [2]]


def comparison(**changes):
    row = {
        "id": "c1",
        "split": "dev",
        "prompt": QUESTION,
        "completions": [
            {"id": "a", "text": "Tea.", "model": "one"},
            {"id": "b", "text": "Coffee.", "model": "two"},
            {"id": "c", "text": "Water.", "model": None},
        ],
        "votes": [vote()],
    }
    return row | changes


def vote(**changes):
    row = {
        "axis": "helpful",
        "ranking": [["b"], ["a", "c"]],
        "strength": 2,
        "weight": 1.0,
        "annotator": "w7",
        "kind": "person",
    }
    return row | changes


def said(**changes):
    row = {"annotator": "w7", "kind": "person", "completion": "b", "ratings": {"clear": 4}}
    return row | changes


def test_our_own_rows_keep_lines_ratings_and_flags():
    judge = vote(annotator="w7", kind="model", acceptable=0, strength=None)
    row = comparisons.parse(
        comparison(
            votes=[vote(acceptable=1), judge],
            judgments=[
                said(),
                said(completion="a", ratings={}, flags=["unsafe"]),
                said(completion="c", ratings={}, flags=[]),
                said(kind="model", ratings={"clear": 1, "kind": 2}),
            ],
        )
    )
    person, model = row.votes
    assert [person.rankings[0].acceptable, model.rankings[0].acceptable] == [1, 0]
    assert [(one.place, one.ratings, one.flags) for one in person.judgments] == [
        (1, {"clear": 4}, []),
        (0, {}, ["unsafe"]),
    ]
    assert [(one.place, one.ratings) for one in model.judgments] == [(1, {"clear": 1, "kind": 2})]
    assert row.left_out == []


def test_blanks_around_the_name_of_a_rating_or_flag_are_not_kept():
    row = comparisons.parse(
        comparison(judgments=[said(ratings={" clear\t": 4, "short": 1}, flags=["odd "])])
    )
    [judgment] = row.votes[0].judgments
    assert (judgment.ratings, judgment.flags) == ({"clear": 4, "short": 1}, ["odd"])


def test_what_has_no_place_in_the_ledger_is_named():
    row = comparisons.parse(
        comparison(
            votes=[vote(strength_levels=3, acceptable=None)],
            judgments=[
                said(scales={"clear": [1, 5]}),
                said(annotator="nobody"),
                said(completion="a", annotator="nobody", kind=None),
            ],
            decision={"undecidable": True},
            weight=None,
            attributes={"topic": "tea"},
        )
    )
    assert sorted(row.left_out) == [
        "attributes",
        "decision",
        "judgments without a vote",
        "judgments without a vote",
        "judgments.scales",
        "votes.strength_levels",
    ]
    pair = trl.parse(TRL_SHAPES[0] | {"score_chosen": 8.0, "margin": 0, "annotator": "w7"})
    assert pair.left_out == ["score_chosen", "margin"]


def test_our_own_rows_keep_axes_groups_strengths_and_kinds():
    safe = vote(axis="safe", ranking=[], outcome="both_bad", strength=None)
    judge = vote(annotator=3, kind="model", ranking=[["a", "b"]], strength=None, weight=None)
    row = comparisons.parse(comparison(votes=[vote(), safe, judge]))
    assert (row.prompt.split, row.prompt.external_id) == ("dev", "c1")
    assert [completion.writer for completion in row.completions] == ["one", "two", ""]
    person, model = row.votes
    assert (person.annotator, person.kind) == ("w7", "outside")
    assert (model.annotator, model.kind) == ("3", "model")
    helpful, safety = person.rankings
    assert (helpful.axis, helpful.outcome) == ("helpful", "ranked")
    assert (helpful.groups, helpful.strengths) == ([[1], [0, 2]], [2.0])
    assert (safety.outcome, safety.groups) == ("both_bad", [])
    assert (model.rankings[0].outcome, model.rankings[0].groups) == ("equal", [[0, 1]])


@pytest.mark.parametrize(
    ("format", "row", "reason"),
    [
        ("hh-rlhf", {"chosen": SHARED + " a"}, "no field rejected"),
        ("hh-rlhf", {"chosen": 1, "rejected": SHARED + " b"}, "chosen must be a text: 1"),
        ("hh-rlhf", {"chosen": "", "rejected": SHARED + " b"}, "chosen is empty"),
        (
            "hh-rlhf",
            {"chosen": SHARED + " ", "rejected": SHARED + " b"},
            "the chosen completion is empty",
        ),
        (
            "hh-rlhf",
            {"chosen": SHARED + " a", "rejected": SHARED + "\ta\n"},
            'completions 1 and 2 are identical: "a"',
        ),
        (
            "hh-rlhf",
            {"chosen": SHARED + " a", "rejected": SHARED.replace("Hi.", "Ho.") + " b"},
            "part before their last answer",
        ),
        ("hh-rlhf", {"chosen": "a", "rejected": "b"}, "must open with 'Human:'"),
        (
            "hh-rlhf",
            {"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: b"},
            "must end with an answer",
        ),
        (
            "hh-rlhf",
            {"chosen": "\n\nAssistant: a\n\nAssistant: b", "rejected": "\n\nAssistant: a"},
            "must end with an answer",
        ),
        ("trl", {"prompt": "p", "completion": "c", "label": True}, "unpaired row"),
        ("trl", {"prompt": "p", "chosen": "a"}, "no field rejected"),
        ("trl", {"prompt": "p", "chosen": "a", "rejected": []}, "rejected must be"),
        ("trl", {"prompt": " ", "chosen": "a", "rejected": "b"}, "prompt is empty"),
        ("trl", {"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt must be"),
        ("trl", {"prompt": "p", "chosen": CHOSEN, "rejected": QUESTION}, "rejected must be one"),
        (
            "trl",
            {"prompt": [*QUESTION, *CHOSEN], "chosen": "a", "rejected": "b"},
            "last turn must be the user's, not assistant's",
        ),
        (
            "trl",
            {"prompt": [{"role": "robot", "content": "p"}], "chosen": "a", "rejected": "b"},
            'role must be one of system, user, assistant: "robot"',
        ),
        (
            "trl",
            {
                "prompt": [{"role": "user", "content": [{"type": "image"}]}],
                "chosen": "a",
                "rejected": "b",
            },
            "text parts only",
        ),
        ("trl", {"prompt": "p", "chosen": "a", "rejected": "b", "split": "x"}, 'split .* "x"'),
        ("trl", {"prompt": "p", "chosen": "a", "rejected": "b", "id": [1]}, "id must be"),
        (
            "trl",
            {"prompt": "p", "chosen": "a", "rejected": "b", "id": "x" * 201},
            "id is longer than 200",
        ),
        ("oasst-zh", {"instruction": "q", "output": "a"}, "output must be a list"),
        ("oasst-zh", {"instruction": "q", "output": ["a"]}, "two completions or more: it has 1"),
        ("oasst-zh", {"instruction": "q", "output": ["a", "b", "a "]}, "1 and 3 are identical"),
        ("oasst-zh", {"instruction": "q", "output": ["a", " "]}, "answer 2 is empty"),
        ("oasst-zh", {"instruction": "q", "output": ["a", "b"], "history": [["x"]]}, "pairs"),
        ("comparisons", comparison(votes=[]), "one vote or more"),
        ("comparisons", comparison(votes=[vote(ranking=[["a"]])]), "doesn't fit"),
        ("comparisons", comparison(votes=[vote(ranking=[])]), "doesn't fit"),
        ("comparisons", comparison(votes=[vote(ranking=[["z"], ["a"]])]), 'hasn\'t: "z"'),
        ("comparisons", comparison(votes=[vote(ranking=[["a"], ["a"]])]), "twice"),
        ("comparisons", comparison(votes=[vote(strength=[1, 2])]), "one number per gap"),
        (
            "comparisons",
            comparison(votes=[vote(strength=[-3.0])]),
            "strength must be above 0 and finite: -3.0",
        ),
        ("comparisons", comparison(votes=[vote(strength=0)]), "above 0 and finite: 0"),
        ("comparisons", comparison(votes=[vote(strength=10**400)]), "above 0 and finite: 1000"),
        ("comparisons", comparison(votes=[vote(weight=0.5)]), "weight must be 1.*0.5"),
        ("comparisons", comparison(votes=[vote(kind="cat")]), 'kind .* "cat"'),
        ("comparisons", comparison(votes=[vote(), vote()]), "votes twice on axis"),
        ("comparisons", comparison(completions=[{"id": "a"}]), "no field text"),
        ("comparisons", comparison(votes=[vote(acceptable=3)]), "from 0 to the 2 groups.*: 3"),
        ("comparisons", comparison(votes=[vote(acceptable=True)]), "whole number: true"),
        ("comparisons", comparison(judgments=["b"]), 'must be an object: "b"'),
        ("comparisons", comparison(judgments=[said(completion="z")]), 'hasn\'t: "z"'),
        ("comparisons", comparison(judgments=[said(), said()]), 'completion "b" twice'),
        ("comparisons", comparison(judgments=[said(ratings={"clear": 1.5})]), "clear .*: 1.5"),
        ("comparisons", comparison(judgments=[said(flags=["odd", "odd"])]), "flag twice"),
        ("comparisons", comparison(judgments=[said(flags=["odd", " odd"])]), "flag twice"),
        (
            "comparisons",
            comparison(judgments=[said(ratings={"clear": 1, "clear ": 2})]),
            "rating twice",
        ),
        ("comparisons", comparison(judgments=[said(flags=["x" * 41])]), "1 to 40 signs"),
        ("comparisons", comparison(judgments=[said(flags=[" "])]), '1 to 40 signs: " "'),
    ],
)
def test_a_bad_row_is_refused_with_its_reason(format, row, reason):
    with pytest.raises(Refused, match=reason) as refusal:
        PREFERENCE_FORMATS[format](row)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": 1', "not JSON"),
        (b'{"a": "caf\xe9"}', "not UTF-8: byte 0xe9 at 10"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b'["a"]', "not a JSON object"),
        (b'{"a": 1, "a": 2}', 'the key "a" stands twice'),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": 1e999}', "out of range"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a": {"b": ["x\\u0000y"]}}', "NUL"),
        (b'{"a\\u0000": 1}', "NUL"),
        (b'{"a": "\\ud83d"}', "half a surrogate pair, U\\+D83D"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}", "nested too deeply, more than 50 levels"),
    ],
)
def test_bytes_that_are_no_row_are_refused(data, reason):
    with pytest.raises(Refused, match=reason):
        parse_json(RawRow(1, data))


def test_a_row_nested_to_the_limit_is_taken():
    data = b'{"a": ' + b"[" * 49 + b"]" * 49 + b"}"
    assert parse_json(RawRow(1, data)) == json.loads(data)


def test_a_whole_surrogate_pair_is_a_character():
    assert parse_json(RawRow(1, b'{"a": "\\ud83d\\ude00"}')) == {"a": "😀"}


def test_demonstrations_come_with_prompt_and_completion_or_instruction_and_output():
    ours = demonstrations.parse({"prompt": QUESTION, "completion": "Tea.", "writer": "w"})
    assert (ours.completion.text, ours.completion.writer) == ("Tea.", "w")
    listed = demonstrations.parse({"prompt": "Which?", "completion": CHOSEN})
    assert listed.prompt.messages == ours.prompt.messages
    assert demonstrations.parse({"instruction": "Which?", "output": "Tea."}).prompt == listed.prompt
    with pytest.raises(Refused, match="the completion is empty"):
        demonstrations.parse({"prompt": "p", "completion": " "})


def test_prompts_carry_what_their_row_says():
    row = prompts.parse({"prompt": "Which?", "id": 7, "task": "dialogue", "metadata": {"a": 1}})
    assert (row.messages, row.external_id, row.task) == (QUESTION, "7", "dialogue")
    assert row.metadata == {"a": 1}


def outcomes(path, parse):
    """How many rows of a file parse, and why the others don't."""
    found = Counter()
    for raw in read_rows(path):
        assert isinstance(raw, RawRow)
        try:
            parse(parse_json(raw))
            found["in"] += 1
        except Refused as refusal:
            found[str(refusal).split(":")[0]] += 1
    return found


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "parse", "expected"),
    [
        (
            "hh-rlhf/harmless-base-test.jsonl.gz",
            hh_rlhf.parse,
            {
                "in": 1580,
                "chosen and rejected part before their last answer": 3,
                "the chosen completion is empty": 2,
            },
        ),
        ("formats/trl/preference_conversational.jsonl", trl.parse, {"in": 20}),
        ("formats/trl/preference_implicit_prompt.jsonl", trl.parse, {"in": 20}),
        ("formats/trl/preference_zh.jsonl", trl.parse, {"in": 20}),
        (
            "formats/trl/unpaired_preference.jsonl",
            trl.parse,
            {"an unpaired row (completion and label) holds no comparison": 20},
        ),
        ("oasst1/oasst_sft_zh.json", demonstrations.parse, {"in": 487}),
        ("llama-factory/alpaca_zh_demo.json.gz", demonstrations.parse, {"in": 686}),
    ],
)
def test_real_files_have_known_numbers_of_good_rows(shared_data, name, parse, expected):
    assert outcomes(shared_data / name, parse) == expected


@pytest.mark.shared_data
def test_no_two_real_preferences_are_the_same_one(shared_data):
    """So 1,580 rows that parse are 1,580 comparisons and votes in the ledger."""
    seen = set()
    for raw in read_rows(shared_data / "hh-rlhf/harmless-base-test.jsonl.gz"):
        try:
            row = hh_rlhf.parse(parse_json(raw))
        except Refused:
            continue
        seen.add(json.dumps([row.prompt.messages, sorted(texts_of(row))]))
    assert len(seen) == 1580


@pytest.mark.shared_data
def test_the_chinese_rankings_lose_six_rows_with_identical_answers(shared_data):
    found = outcomes(shared_data / "oasst1/oasst_rm_zh.json", oasst_zh.parse)
    assert found.pop("in") == 541
    assert found.total() == 6
    assert all(reason.endswith("are identical") for reason in found)


@pytest.mark.shared_data
def test_a_json_array_is_read_as_json_reads_it(shared_data):
    path = shared_data / "oasst1/oasst_rm_zh.json"
    rows = [json.loads(raw.data) for raw in read_rows(path)]
    assert rows == json.loads(path.read_text("utf-8"))
