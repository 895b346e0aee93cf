"""Head to head: who wrote what, ties by themselves, verdicts, the board, and asking for more."""

import csv
import io

import pytest
from django.utils import timezone

from annotation.kept import forget
from annotation.models import (
    AnnotatorKind,
    AuditEntry,
    Generation,
    ModelVersion,
    Preference,
    Promotion,
    Purpose,
    Ranking,
    Split,
    TrainingJob,
)
from annotation.pages import head_to_head
from annotation.pages.head_to_head import pairs_of
from annotation.services import battles as battles_module
from annotation.services import boards, ledger, queue
from annotation.services.battles import evaluation_of
from annotation.services.meetings import PEOPLE
from annotation.services.projects import annotator_for
from annotation.services.rankings import AxisRanking
from annotation.services.review import void_preference
from annotation.standings import board_of
from annotation.trials import Trial
from tests.annotation import voting

HERE = "/p/shop/head-to-head/"


def battles_of(project, split=Split.DEV):
    """(battles, trials) of the evaluation."""
    found = evaluation_of(project, split)
    return found.battles, found.trials


@pytest.fixture
def versions(cast):
    """Two policies of the project, a and b."""
    found = []
    for name in "ab":
        version = ModelVersion.objects.create(
            kind="policy", stage="registered", name=name, path=name, sha256=name * 64
        )
        Promotion.objects.create(
            project=cast.project, slot="policy", version=version, verdict="registered"
        )
        found.append(version)
    return found


@pytest.fixture
def meet(cast, versions):
    """Ask about one dev prompt: texts of a, of b, and what was said (1 a, 0 b, 0.5 equal, another
    outcome by its name)."""

    def job_on(split):
        return TrainingJob.objects.create(
            project=cast.project,
            kind="sample",
            init=versions[0],
            inputs={"against": versions[1].pk, "planned": [], "propensities": []}
            | ({} if split == Split.DEV else {"split": split.value}),
        )

    jobs = {Split.DEV: job_on(Split.DEV)}
    source = cast.project.sources.get()
    annotator = annotator_for(user=cast.labeler, project=cast.project)

    def one(number, score, *, texts=("Yes.", "No."), split=Split.DEV, **settings):
        prompt, _ = ledger.add_prompt(
            project=cast.project,
            source=source,
            messages=[{"role": "user", "content": f"Question {number}?"}],
            split=split,
        )
        job = jobs.get(split) or jobs.setdefault(split, job_on(split))
        job.inputs["planned"].append(prompt.pk)
        job.inputs["propensities"].append(0.5)
        job.save()
        wrote = []
        for seed, (version, text) in enumerate(zip(versions, texts, strict=True)):
            if not text:
                job.inputs.setdefault("blank", {}).setdefault(str(prompt.pk), []).append(version.pk)
                job.save()
                continue
            completion, _ = ledger.add_completion(prompt=prompt, source=source, text=text)
            ledger.record_generation(
                completion=completion, origin="policy", model_version=version, seed=seed, job=job
            )
            wrote.append(completion)
        if len(wrote) < 2 or wrote[0] == wrote[1]:
            return
        batch = ledger.batch_for(
            project=cast.project, name="a / b", source=source, purpose=Purpose.EVALUATION
        )
        ledger.open_comparison(
            batch=batch, prompt=prompt, completions=wrote, answers_wanted=1, **settings
        )
        if score is None:  # held by somebody, else the next answer might be to this one
            queue.claim_comparison(
                annotator=annotator_for(user=cast.reviewer, project=cast.project)
            )
            return
        lease = queue.claim_comparison(annotator=annotator)
        a, b = (completion.pk for completion in wrote)
        groups = {1: [[a], [b]], 0: [[b], [a]], 0.5: [[a, b]]}.get(score, [])
        outcome = {1: "ranked", 0: "ranked", 0.5: "equal"}.get(score, score)
        queue.submit_preference(
            assignment=lease,
            rankings=[AxisRanking(outcome=outcome, groups=groups)],
            key=f"key {lease.pk}",
        )

    return one


def test_answers_are_battles_of_those_who_wrote(cast, versions, meet):
    a, b = (f"{one.name} #{one.pk}" for one in versions)
    for number, score in enumerate([1, 0.5, 0]):
        meet(number, score, propensity=0.5, texts=("Yes!", "No"))
    meet(3, None, texts=("Same.", "Same."))
    meet(4, 1, split=Split.TEST)  # sealed
    battles, trials = battles_of(cast.project)
    assert [(one.left, one.right, one.score, one.weight) for one in battles] == [
        *((a, b, score, 2.0) for score in (1.0, 0.5, 0.0)),
        (a, b, 0.5, 2.0),  # as its job's answered ones
    ]
    assert [one.annotator is None for one in battles] == [False, False, False, True]
    assert (battles[0].left_length, battles[0].right_length) == (4, 2)
    assert [trial.score for trial in trials] == [1.0, 0.5, 0.0, 0.5]


def test_ties_by_themselves_wait_until_their_turn_among_the_answers(cast, meet):
    alike = ("Same.", "Same.")
    meet(0, None, texts=alike)
    meet(1, "cannot_tell")  # no answer: the next takes its place
    meet(2, None, texts=alike)
    meet(3, None, texts=alike)
    assert battles_of(cast.project) == ([], [])
    meet(4, 1)
    battles, trials = battles_of(cast.project)
    assert [(one.score, one.how) for one in trials] == [(0.5, "alike"), (1.0, "asked")]
    assert len(battles) == 2
    meet(5, 0)
    _, trials = battles_of(cast.project)
    assert [one.score for one in trials] == [0.5, 1.0, 0.5, 0.5, 0.0]


def test_who_writes_nothing_loses_without_a_question(cast, enter, meet):
    for number, texts in enumerate([("", "No."), ("Yes.", ""), ("", ""), ("", "No."), ("S", "S")]):
        meet(number, None, texts=texts)
    battles, trials = battles_of(cast.project)
    assert [one.score for one in battles] == [0.0, 1.0, 0.5, 0.0, 0.5]
    assert {(one.annotator, one.weight, one.left_length) for one in battles} == {(None, 2.0, 0)}
    assert [one.how for one in trials] == ["blank"] * 4 + ["alike"]
    html = enter(cast.reviewer).get(HERE).content.decode()
    assert "2 ties · 1 of the same text · 4 with a blank answer" in html


@pytest.fixture
def repeat(cast):
    """The one job again, with the same texts. instead: who wrote them there."""

    def one(first, other, *, instead=None):
        job = TrainingJob.objects.get()
        inputs = job.inputs | {"against": other.pk}
        again = TrainingJob.objects.create(
            project=cast.project, kind="sample", init=first, inputs=inputs
        )
        for made in list(Generation.objects.filter(job=job)):
            who = (instead or {}).get(made.model_version, made.model_version)
            ledger.record_generation(
                completion=made.completion,
                origin="policy",
                model_version=who,
                seed=made.seed,
                job=again,
            )
        return again

    return one


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_the_same_texts_of_a_later_job_are_no_new_trial(
    cast, versions, meet, repeat, asked, swapped
):
    meet(0, None, texts=("Same.", "Same."))
    if asked:
        meet(1, 1)
    meet(2, None, texts=("", "No."))
    expected = [0.5, 1.0, 0.0] if asked else [0.5, 0.0]
    assert [one.score for one in battles_of(cast.project)[1]] == expected
    repeat(*(reversed(versions) if swapped else versions))
    battles, trials = battles_of(cast.project)
    assert [one.score for one in trials] == expected
    assert len(battles) == len(expected)


def test_a_repeated_question_keeps_nothing_back_that_was_drawn_after_it(
    cast, versions, meet, repeat
):
    """A third version wrote what b did."""
    meet(0, 1)
    meet(1, None, texts=("Same.", "Same."))
    third = ModelVersion.objects.create(
        kind="policy", stage="registered", name="c", path="c", sha256="c" * 64
    )
    repeat(versions[0], third, instead={versions[1]: third})
    a, b, c = (f"{one.name} #{one.pk}" for one in (*versions, third))
    trials = battles_of(cast.project)[1]
    assert {(one.left, one.right, one.score, one.how) for one in trials} == {
        (a, b, 1.0, "asked"),
        (a, b, 0.5, "alike"),
        (a, c, 1.0, "asked"),
        (a, c, 0.5, "alike"),
    }
    assert len(trials) == 4


@pytest.mark.parametrize(
    ("axes", "scores"),
    [
        ((("overall", "ranked", "ba"), ("style", "ranked", "ab")), [0.0]),
        ((("overall", "both_bad", ""), ("style", "ranked", "ab")), [0.5]),
        ((("overall", "cannot_tell", ""), ("style", "ranked", "ab")), []),
        ((("style", "ranked", "ab"), ("overall", "both_bad", "")), [1.0]),
    ],
)
def test_the_first_axis_speaks_whatever_it_says(cast, meet, axes, scores):
    meet(0, 1)
    (preference,) = Preference.objects.all()
    a, b = preference.rankings.get().groups
    Ranking.objects.all().delete()
    for axis, outcome, order in axes:
        groups = [{"a": a, "b": b}[one] for one in order]
        Ranking.objects.create(preference=preference, axis=axis, outcome=outcome, groups=groups)
    battles, trials = battles_of(cast.project)
    assert [one.score for one in battles] == scores
    assert [one.score for one in trials] == scores


def test_people_are_players_and_models_votes_do_not_count(cast, versions, meet):
    meet(0, 1)
    Generation.objects.filter(model_version=versions[0]).update(
        origin="demonstration", model_version=None, job=None
    )
    battles, _ = battles_of(cast.project)
    assert [(one.left, one.right, one.score) for one in battles] == [
        (f"b #{versions[1].pk}", PEOPLE, 0.0)
    ]
    cast.project.annotators.update(kind=AnnotatorKind.MODEL)
    assert battles_of(cast.project) == ([], [])


def test_of_what_no_job_asked_the_newest_questions_count(cast, enter, versions, meet, monkeypatch):
    def outside(writers, order):
        comparison = voting.compare(cast.project, split="dev", purpose="evaluation")
        for pk, writer in zip(voting.ids_of(comparison), writers, strict=True):
            Generation.objects.create(completion_id=pk, origin="imported", writer=writer)
        voting.cast(comparison, order=order)
        cast.project.comparisons.filter(pk=comparison.pk).update(open_slots=0)

    outside("xy", [[0], [1]])
    meet(0, 1)
    outside("xy", [[1], [0]])
    meet(1, 0)
    outside("xz", [[0], [1]])
    everything = battles_of(cast.project)[0]
    assert len(everything) == 5
    page = enter(cast.admin).get(HERE).content.decode()
    assert "are counted" not in page
    monkeypatch.setattr(battles_module, "MOST_QUESTIONS", 2)
    monkeypatch.setattr(head_to_head, "MOST_QUESTIONS", 2)
    forget()
    a, b = (f"{one.name} #{one.pk}" for one in versions)
    battles, trials = battles_of(cast.project)
    assert [(one.left, one.right, one.score) for one in battles] == [
        (a, b, 1.0), (a, b, 0.0), ("x", "z", 1.0)
    ]  # fmt: skip
    assert len(trials) == 3
    page = enter(cast.admin).get(HERE).content.decode()
    assert "the newest 2 comparisons are counted" in page


def test_an_answer_that_is_committed_late_comes_onto_the_board(cast, meet):
    """PostgreSQL gave its id out before that of an answer that is there already."""
    meet(0, 1)
    first = Preference.objects.get()
    groups = first.rankings.get().groups

    def answer(pk):
        another = Preference.objects.create(
            pk=pk, project=cast.project, comparison=first.comparison, scheme=first.scheme,
            annotator=voting.make_voter(cast.project),
        )  # fmt: skip
        Ranking.objects.create(preference=another, outcome="ranked", groups=groups[::-1])

    def battles():
        return {one.battles for one in boards.board_at(cast.project).board.standings}

    answer(first.pk + 9)
    assert battles() == {2}
    answer(first.pk + 5)
    assert battles() == {3}


def test_a_verdict_is_given_once_the_interval_excludes_one_half():
    now = timezone.now()
    even = [Trial("a", "b", score, now) for score in [1.0, 0.0] * 100]
    (pair,) = pairs_of(even, 0.05)
    assert (pair.verdict, pair.trials, pair.share) == ("undecided", 200, 0.5)
    assert pair.more is not None
    assert pair.more > 500
    (won,) = pairs_of([Trial("a", "b", 1.0, now) for _ in range(60)], 0.4)
    assert (won.verdict, won.more) == ("one", 0)
    (lost,) = pairs_of([Trial("a", "b", 0.0, now) for _ in range(60)], 0.4)
    assert lost.verdict == "other"


def test_the_page_shows_board_pairs_and_matrix(cast, enter, versions, meet):
    for number in range(6):
        meet(number, 1)
    client = enter(cast.reviewer)
    html = client.get(HERE).content.decode()
    a, b = (f"{one.name} #{one.pk}" for one in versions)
    assert html.index(f"<td>{a}</td>") < html.index(f"<td>{b}</td>")
    assert "100% (6)" in html
    assert "0 ties" in html
    assert "undecided" in html
    assert "Ask people" not in html
    rows = list(csv.reader(io.StringIO(client.get(f"{HERE}numbers.csv").content.decode())))
    assert [row[:3] for row in rows[1:]] == [
        *([name, "", figure] for name in (a, b) for figure in ("points", "points at equal length")),
        [a, b, "share of wins"],
    ]
    assert rows[-1][3] == "1.0"
    for width in ("x", "nan", "9", "0.1"):
        assert client.get(HERE, {"width": width}).status_code == 200


def test_a_name_that_is_a_formula_is_none_in_a_spreadsheet(cast, enter, versions, meet):
    ModelVersion.objects.filter(pk=versions[0].pk).update(name="=1+1")
    meet(0, 1)
    text = enter(cast.admin).get(f"{HERE}numbers.csv").content.decode()
    assert "'=1+1" in text
    assert "\n=1+1" not in text


def test_an_admin_asks_for_more_once(cast, enter, versions, meet):
    meet(0, 1)
    TrainingJob.objects.all().exclude(pk=TrainingJob.objects.get().pk).delete()
    client = enter(cast.admin)
    key = client.get(HERE).content.decode().split('name="key" value="')[1][:36]
    body = {"one": versions[0].pk, "other": versions[1].pk, "prompts": 20, "key": key}
    body["split"] = "dev"
    for _ in range(2):
        client.post(f"{HERE}ask/", body)
    job = TrainingJob.objects.exclude(status="done").latest("pk")
    assert TrainingJob.objects.count() == 2
    assert (job.kind, job.lane, job.init) == ("sample", "experiment", versions[0])
    assert job.inputs == {"against": versions[1].pk, "split": "dev", "comparisons": 20}
    same = body | {"other": versions[0].pk, "key": ""}
    response = client.post(f"{HERE}ask/", same)
    assert response.status_code == 422
    assert "Choose two different versions." in response.content.decode()
    assert TrainingJob.objects.count() == 2


def test_test_is_sealed_and_every_look_at_it_is_recorded(cast, enter, versions, meet):
    meet(0, 1)
    meet(1, None, texts=("Same.", "Same."), split=Split.TEST)
    meet(2, 0, split=Split.TEST)
    meet(3, None, texts=("", "No."), split=Split.TEST)
    assert [trial.score for trial in battles_of(cast.project)[1]] == [1.0]
    assert [one.score for one in battles_of(cast.project, Split.TEST)[1]] == [0.5, 0.0, 0.0]
    client = enter(cast.admin)
    html = client.get(HERE).content.decode()
    assert "Nobody has looked yet." in html
    assert "100% (1)" in html
    looked = client.post(f"{HERE}test/").content.decode()
    assert "That you looked is recorded" in looked
    assert "17% (3)" in looked
    assert "1 look so far" in looked
    sheet = client.post(f"{HERE}test/", {"as": "csv"})
    assert sheet.headers["Content-Disposition"].endswith('"head-to-head-test.csv"')
    assert sheet.content.decode().splitlines()[-1].startswith("a #")
    assert "2 looks so far" in client.get(HERE).content.decode()
    entries = AuditEntry.objects.filter(action="test.look")
    assert [(one.actor, one.data) for one in entries] == [
        (cast.admin, {"what": "head to head"})
    ] * 2


def test_an_admin_sets_a_version_against_people_where_these_answered(cast, enter, versions):
    source = cast.project.sources.get()
    prompt, _ = ledger.add_prompt(
        project=cast.project,
        source=source,
        messages=[{"role": "user", "content": "Who?"}],
        split=Split.TEST,
    )
    client = enter(cast.admin)
    body = {"one": versions[0].pk, "other": "people", "split": "test", "prompts": 20}
    html = client.post(f"{HERE}ask/", body, follow=True).content.decode()
    assert "No test prompt of the project has an answer that a person wrote." in html
    completion, _ = ledger.add_completion(prompt=prompt, source=source, text="Me.")
    ledger.record_generation(completion=completion, origin="demonstration", writer="w")
    client.post(f"{HERE}ask/", body | {"split": "train"})
    client.post(f"{HERE}ask/", body | {"other": "nobody"})
    assert not TrainingJob.objects.exists()
    client.post(f"{HERE}ask/", body)
    job = TrainingJob.objects.get()
    assert job.inputs == {"against": "people", "split": "test", "comparisons": 20}


def test_an_empty_page_says_what_is_missing(cast, enter):
    html = enter(cast.admin).get(HERE).content.decode()
    assert "Nobody has compared anything yet." in html
    assert "has no dev or test prompts" in html


def test_the_page_has_a_query_budget(cast, enter, meet, django_assert_max_num_queries):
    client = enter(cast.admin)
    for number in range(8):
        meet(number, number % 2)
        if number in (0, 7):  # with one answer and with eight
            with django_assert_max_num_queries(24):
                client.get(HERE)
            with django_assert_max_num_queries(15):  # the board is there
                client.get(HERE)


def test_a_board_is_fitted_again_once_something_has_changed_and_not_before(
    cast, versions, meet, monkeypatch
):
    fitted = []
    monkeypatch.setattr(boards, "board_of", lambda one: fitted.append(one) or board_of(one))

    def shares():
        return sorted(boards.board_at(cast.project).board.wins.values())

    meet(0, 1)
    assert shares() == shares() == [(0.0, 1), (1.0, 1)]
    assert len(fitted) == 1
    meet(1, 0)  # an answer
    assert shares() == shares() == [(0.5, 2), (0.5, 2)]
    assert len(fitted) == 2
    newest = Preference.objects.latest("pk")
    void_preference(preference=newest, by=cast.reviewer, reason="spam")
    assert shares() == [(0.0, 1), (1.0, 1)]
    meet(2, None, texts=("Same.", "Same."))  # a tie by itself, among the last answers of the job
    shares()
    job = TrainingJob.objects.get()
    before = len(fitted)
    job.inputs["planned"].insert(0, job.inputs["planned"].pop())
    job.save()
    assert shares() == [(0.25, 2), (0.75, 2)]
    TrainingJob.objects.filter(pk=job.pk).update(status="done")
    shares()
    assert len(fitted) == before + 2
    assert boards.board_at(cast.project, Split.TEST).board.wins == {}


def test_what_is_missing_for_a_comparison_is_said_with_the_way_to_it(cast, enter):
    """No version: no empty selects; one: what it can be compared with; two: nothing to say."""
    ledger.add_prompt(
        project=cast.project,
        source=cast.project.sources.get(),
        messages=[{"role": "user", "content": "Held out?"}],
        split=Split.DEV,
    )
    client = enter(cast.admin)
    html = client.get(HERE).content.decode()
    assert "The project has no policy version yet" in html
    assert '<a href="/p/shop/jobs/new/?kind=pretrain">Pretrain one</a>' in html
    assert '<select name="one"' not in html
    for name, is_said in (("a", True), ("b", False)):
        version = ModelVersion.objects.create(
            kind="policy", stage="registered", name=name, path=name, sha256=name * 64
        )
        Promotion.objects.create(
            project=cast.project, slot="policy", version=version, verdict="registered"
        )
        html = client.get(HERE).content.decode()
        assert '<select name="one"' in html
        assert ("There is one policy version" in html) == is_said
        assert ('href="/p/shop/jobs/new/?kind=ppo"' in html) == is_said
