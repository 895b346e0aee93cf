"""Search by text and by what is known; tags, and asking again. Runs on both databases."""

import random

import pytest
from django.db import connection
from django.utils import timezone

from annotation.errors import BadInput
from annotation.models import (
    AuditEntry,
    Comparison,
    CompletionJudgment,
    CompletionScore,
    Generation,
    Review,
    SearchText,
    Source,
    Tag,
)
from annotation.search_words import END, MOST_CHARACTERS, grams_of, query_of
from annotation.services import search, versions
from annotation.services.batches import retire_comparison
from annotation.services.ledger import (
    add_completion,
    add_prompt,
    batch_for,
    open_comparison,
    record_generation,
)
from annotation.services.queue import claim_comparison, submit_preference
from annotation.services.search import Wanted
from tests.annotation.making import as_shown, make_annotator, make_member, make_project
from tests.annotation.voting import cast

pytestmark = pytest.mark.django_db
TEXTS = {
    "weather": ("How is the weather in Café Müller?", "Sunny, 25 degrees.", "I can't say."),
    "天气": ("今天天气怎么样？", "今天晴，适合散步。", "我不知道。"),
    "phone": ("我的iPhone手机壳坏了", "请换一个新的手机壳。", "Buy a new case, please."),
    "apart": ("你 是 谁 我 是 人吗", "Nobody.", "Somebody."),
    "walk": ("Name a good walk.", "The harbour; then the old town.", "A walk is good."),
}


@pytest.fixture
def project():
    return make_project("shop", open_target=0)


def write(project, asked, *answers, **more):
    """A comparison of this prompt and these completions."""
    source, _ = Source.objects.get_or_create(project=project, name="own")
    messages = [{"role": "user", "content": asked}]
    prompt, _ = add_prompt(project=project, source=source, messages=messages, **more)
    completions = [add_completion(prompt=prompt, source=source, text=one)[0] for one in answers]
    batch = batch_for(project=project, name="some", source=source)
    return open_comparison(batch=batch, prompt=prompt, completions=completions, answers_wanted=1)[0]


@pytest.fixture
def written(project):
    return {name: write(project, *texts) for name, texts in TEXTS.items()}


def names(written, rows):
    by_id = {comparison.pk: name for name, comparison in written.items()}
    return [by_id[row.pk] for row in rows]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("weather", {"weather"}),
        ("WEATHER degrees", {"weather"}),
        ("cafe muller", {"weather"}),
        ("weath", set()),
        ("天气", {"天气"}),
        ("今天", {"天气"}),
        ("天天", {"天气"}),  # stands there, though it is no word
        ("气", {"天气"}),
        ("么", {"天气"}),
        ("样", {"天气"}),  # the last of its text
        ("天气怎么", {"天气"}),
        ("怎么今天", set()),  # its pairs 怎么 and 今天 are there, 么今 is not
        ("手机壳", {"phone"}),
        ("手机 壳", {"phone"}),
        ("iphone手机", {"phone"}),
        ("ｉＰｈｏｎｅ", {"phone"}),
        ('"good walk"', {"walk"}),
        ('"walk good"', set()),
        ("walk good", {"walk"}),
        ('"iPhone 手机"', {"phone"}),
        ('"手机 iPhone"', set()),
        ('"iphone 手"', {"phone"}),
        ('"town a walk"', set()),  # from one text into the next
        ('"我 是"', {"apart"}),
        ('"是 谁 我"', {"apart"}),
        ('"你 谁"', set()),
        ('"谁 我 人"', set()),
        ('"case please"', {"phone"}),
        ('"坏了 请"', set()),  # from the prompt into its completion
        ('"是 人"', {"apart"}),
        ('"我 是 人吗"', {"apart"}),
        ('"我 是 人 吗"', set()),
        ("手机 please", {"phone"}),
        ("new 天气", set()),
        ("25", {"weather"}),
    ],
)
def test_what_is_found(project, written, asked, expected):
    rows = search.found(project, Wanted(text=asked))
    assert set(names(written, rows)) == expected


def test_a_run_of_chinese_is_found_where_it_stands_and_nowhere_else(project):
    """Against Python's own `in`, over texts of three characters that repeat themselves."""
    draw = random.Random(0)
    texts = ["".join(draw.choices("天气好", k=draw.randint(2, 7))) for _ in range(25)]
    written = {}
    for number, text in enumerate(texts):
        one = write(project, f"{text}", f"答{number}", f"回{number}")
        written[one.pk] = text
    for length in (1, 2, 3, 4):
        for _ in range(8):
            asked = "".join(draw.choices("天气好", k=length))
            found = {row.pk for row in search.found(project, Wanted(text=asked))}
            assert found == {pk for pk, text in written.items() if asked in text}, asked


def test_newest_come_first_and_no_other_projects(project, written):
    write(make_project("other", open_target=0), *TEXTS["weather"])
    again = write(project, "Weather again?", "Yes.", "No.")
    rows = search.found(project, Wanted(text="weather"))
    assert [row.pk for row in rows] == [again.pk, written["weather"].pk]


@pytest.mark.parametrize("asked", ["?!", "“”", "_ _"])
def test_nothing_to_look_up(project, asked):
    with pytest.raises(BadInput, match="needs a word or a character"):
        search.found(project, Wanted(text=asked))


def test_too_much_to_look_up(project):
    with pytest.raises(BadInput, match="at most 32 words"):
        search.found(project, Wanted(text=" ".join(f"w{number}" for number in range(33))))
    assert len(query_of("again " * 500).phrases) == 1


@pytest.mark.parametrize("asked", ["x' | 'y", 'a" OR grams:"b', "a & !b", "zz:*", "%_%b"])
def test_no_word_of_a_databases_own_language_gets_through(project, written, asked):
    assert names(written, search.found(project, Wanted(text=asked))) == []


def test_a_text_beyond_all_measure_is_indexed_as_far_as_it_goes(project):
    long = " ".join(f"word{number}" for number in range(100_000))
    write(project, long, "one", "two")
    grams = SearchText.objects.get().grams
    assert MOST_CHARACTERS - 20 < len(grams) <= MOST_CHARACTERS
    assert search.found(project, Wanted(text='"word500 word501"')).exists()
    assert not search.found(project, Wanted(text="word99999")).exists()


def test_grams():
    assert grams_of(["Ça va", "天气", ""]) == f"ca va {END} u5929u6c14 u6c14 {END}"
    assert grams_of([]) == ""


def test_filters_by_what_is_known(project, written):
    annotator = make_annotator(project)
    lease = claim_comparison(annotator=annotator)
    submit_preference(assignment=lease, rankings=as_shown(lease), key="k")
    mine = Wanted(annotator=annotator.pseudonym)
    assert [row.pk for row in search.found(project, mine)] == [lease.comparison_id]
    vote = cast(written["walk"])
    completion = written["walk"].completions.first()
    CompletionJudgment.objects.create(preference=vote, completion=completion, flags=["rude"])
    assert names(written, search.found(project, Wanted(flag="rude"))) == ["walk"]
    assert names(written, search.found(project, Wanted(flag="rud"))) == []
    type(vote).objects.filter(pk=vote.pk).update(
        voided_at=timezone.now(), void_reason="x", counted=False
    )
    assert names(written, search.found(project, Wanted(flag="rude"))) == []
    Review.objects.create(
        project=project,
        comparison=written["天气"],
        num_answers=2,
        lowest=0.1,
        accord={},
        state="open",
    )
    assert names(written, search.found(project, Wanted(disputed=True))) == ["天气"]
    assert names(written, search.found(project, Wanted(disputed=True, text="weather"))) == []
    write(project, "你好吗", "好", "还好", language="zh")
    assert search.found(project, Wanted(language="zh")).count() == 1
    splits = {written["walk"].prompt.split}
    assert "walk" in names(written, search.found(project, Wanted(text="walk", split=splits.pop())))


def test_filters_by_model_and_score(project, written, tmp_path):
    def version(kind, name):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(name.encode())
        (folder / "config.json").write_text("{}")
        made = versions.register_version(kind=kind, stage="registered", directory=folder)
        versions.promote(project=project, slot=kind, version=made, verdict="registered")
        return made

    policy = version("policy", "p")
    first = written["walk"].completions.first()
    record_generation(completion=first, origin="policy", model_version=policy)
    assert Generation.objects.count() == 1
    assert names(written, search.found(project, Wanted(version=policy.pk))) == ["walk"]
    with pytest.raises(BadInput, match="No reward model"):
        search.found(project, Wanted(score_from=0.0))
    reward = version("reward", "r")
    for name, score in (("walk", 1.5), ("weather", -1.0)):
        completion = written[name].completions.first()
        CompletionScore.objects.create(completion=completion, model_version=reward, score=score)
    assert names(written, search.found(project, Wanted(score_from=1.0))) == ["walk"]
    assert names(written, search.found(project, Wanted(score_to=1.0))) == ["weather"]
    assert names(written, search.found(project, Wanted(score_from=-0.5, score_to=1.0))) == []


def test_tags(project, written):
    lead = make_member(project, "reviewer")
    both = [written["walk"].pk, written["天气"].pk]
    other = write(make_project("other", open_target=0), "a", "b", "c")

    def tag(ids, name="to  check"):
        return search.tag_comparisons(project=project, comparisons=ids, name=name, by=lead)

    assert tag([*both, other.pk]) == 2
    assert tag(both) == 0
    assert {row.pk for row in search.found(project, Wanted(tag="to check"))} == set(both)
    (entry,) = AuditEntry.objects.filter(action="comparison.tag")
    assert (entry.actor, sorted(entry.data["comparisons"])) == (lead, sorted(both))
    gone = search.untag_comparisons(project=project, comparisons=both[:1], name="to check", by=lead)
    assert (gone, names(written, search.found(project, Wanted(tag="to check")))) == (1, ["天气"])
    search.untag_comparisons(project=project, comparisons=both, name="to check", by=lead)
    assert not Tag.objects.exists()
    with pytest.raises(BadInput, match="no tag 'to check'"):
        search.untag_comparisons(project=project, comparisons=both, name="to check", by=lead)
    for name in (" ", "x" * 41):
        with pytest.raises(BadInput, match="1 to 40 characters"):
            tag(both, name)
    with pytest.raises(BadInput, match="Choose 1 to 5000"):
        tag([])


def test_asking_again_opens_a_place_for_somebody_else(project, written):
    lead = make_member(project, "reviewer")
    first = make_annotator(project)
    lease = claim_comparison(annotator=first)
    submit_preference(assignment=lease, rankings=as_shown(lease), key="k")
    answered = lease.comparison_id
    retired = next(one for one in written.values() if one.pk != answered)
    retire_comparison(comparison=retired, by=lead, reason="broken")
    Comparison.objects.exclude(pk=answered).update(open_slots=0, answers_wanted=0)  # as imported
    ids = [one.pk for one in written.values()]
    Comparison.objects.filter(pk=answered).update(full_overlap=1)
    asked = search.ask_again(project=project, comparisons=[answered, retired.pk], by=lead)
    assert asked == 1
    row = Comparison.objects.get(pk=answered)
    assert (row.answers_wanted, row.open_slots, row.full_overlap) == (2, 1, 2)
    assert search.ask_again(project=project, comparisons=ids, by=lead) == 0, "it waits already"
    assert claim_comparison(annotator=make_annotator(project)).comparison_id == answered
    assert AuditEntry.objects.get(action="comparison.ask_again").data["comparisons"] == [answered]
    assert search.ask_again(project=project, comparisons=ids, by=lead) == 1
    assert Comparison.objects.get(pk=answered).full_overlap == 3


def test_the_index_follows_its_table(project, written):
    """What is gone is found no more, and what changed is found as it is now."""
    SearchText.objects.filter(comparison=written["walk"]).update(grams="other words")
    assert names(written, search.found(project, Wanted(text="harbour"))) == []
    assert names(written, search.found(project, Wanted(text="other"))) == ["walk"]
    SearchText.objects.all().delete()
    assert names(written, search.found(project, Wanted(text="other"))) == []
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO annotation_fts(annotation_fts) VALUES('integrity-check')")
