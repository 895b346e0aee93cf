"""Versions: the list, lineage both ways, promotion and roll-back, download."""

import io
import json
import tarfile
from html import unescape

import pytest
from django.utils.html import strip_tags

from annotation import model_card
from annotation.models import (
    DatasetSnapshot,
    JobKind,
    JobStatus,
    ModelVersion,
    Promotion,
    TrainingJob,
)
from annotation.models.prompts import Prompt
from annotation.services import queue, versions
from annotation.services.ancestry import way_to
from annotation.services.projects import annotator_for
from annotation.services.rankings import AxisRanking
from tests.annotation.making import as_shown, make_project


@pytest.fixture
def family(cast, settings, tmp_path):
    """A reward model made from an SFT policy."""
    settings.ARTIFACTS_DIR = tmp_path
    made = {}
    for kind, stage in (("policy", "sft"), ("reward", "reward")):
        folder = tmp_path / "models" / stage
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")
        job = TrainingJob.objects.create(
            project=cast.project, kind=JobKind(stage), status=JobStatus.DONE
        )
        made[stage] = versions.register_version(
            kind=kind,
            stage=stage,
            directory=folder,
            name=f"{stage}-v",
            job=job,
            init=made.get("sft"),
            metrics={
                "accuracy": {"dev": 0.81234},
                "gate": {"passed": True, "why": "Better than a coin.", "numbers": {"groups": 38}},
            },
        )
    return made


def test_the_list_says_what_is_in_force(cast, enter, family):
    versions.promote(
        project=cast.project, slot="reward", version=family["reward"], verdict="passed"
    )
    html = enter(cast.reviewer).get("/p/shop/versions/").content.decode()
    assert "reward-v" in html
    assert "sft-v" in html
    assert html.count("in force: Reward model") == 1


def test_lineage_runs_both_ways(cast, enter, family):
    client = enter(cast.reviewer)
    child = client.get(f"/p/shop/versions/{family['reward'].pk}/").content.decode()
    parent = client.get(f"/p/shop/versions/{family['sft'].pk}/").content.decode()
    assert f"/p/shop/versions/{family['sft'].pk}/" in child
    assert f"/p/shop/versions/{family['reward'].pk}/" in parent
    assert "Better than a coin." in child
    assert "0.8123" in child


def test_numbers_have_names_with_their_keys_beside_them(cast, enter, family):
    version = family["reward"]
    last = {"step": 8, "phase": "dev", "log_loss": 0.61, "of_tomorrow": 3}
    version.metrics = {"wall_seconds": 7.6, "final": {"dev": last}}
    version.save()
    html = enter(cast.reviewer).get(f"/p/shop/versions/{version.pk}/").content.decode()
    words = " ".join(strip_tags(html).split())
    assert "Seconds in all wall_seconds 7.6" in words
    assert "On the dev split, step 8 Log loss log_loss 0.61 of_tomorrow 3" in words
    assert "<dd>Reward model</dd>" in html
    assert "final." not in words


def test_an_admin_promotes_and_rolls_back(cast, enter, family):
    client = enter(cast.admin)
    page = f"/p/shop/versions/{family['reward'].pk}/"
    client.post(page + "promote/", {"slot": "reward"})
    promotion = Promotion.objects.get()
    assert (promotion.verdict, promotion.by) == ("by_admin", cast.admin)
    assert promotion.numbers["numbers"] == {"groups": 38}
    response = client.post("/p/shop/slots/reward/roll-back/", follow=True)
    assert "There is no reward version before" in response.content.decode()


def test_a_version_that_does_not_fit_the_slot_is_refused(cast, enter, family):
    url = f"/p/shop/versions/{family['reward'].pk}/promote/"
    response = enter(cast.admin).post(url, {"slot": "policy"}, follow=True)
    assert "cannot be put in the slot" in response.content.decode()
    assert not Promotion.objects.exists()


def test_the_download_link_gives_the_files_with_a_card(cast, enter, family):
    client = enter(cast.researcher)
    html = client.get(f"/p/shop/versions/{family['sft'].pk}/").content.decode()
    link = html.split(" download>")[0].rsplit('href="', 1)[1].split('"')[0]
    response = client.get(link)
    content = io.BytesIO(b"".join(response.streaming_content))
    with tarfile.open(fileobj=content) as archive:
        names = {name.rsplit("/", 1)[1] for name in archive.getnames()}
    assert names == {"config.json", "model.safetensors", "README.md"}
    assert (
        " download>"
        not in enter(cast.reviewer).get(f"/p/shop/versions/{family['sft'].pk}/").content.decode()
    )


UNDECIDED = {
    "passed": False,
    "verdict": "undecided",
    "why": "Undecided: about 120 more answered dev groups would tell. Against r on 40 groups of "
    "dev, look 2: log loss +0.01, accuracy -0.02.",
    "warnings": ["Too sure of itself: its log odds times 0.40 [0.30, 0.50] would be right on dev."],
    "numbers": {
        "accuracy": 0.7,
        "old_accuracy": 0.72,
        "log_loss": 0.6,
        "log_loss_difference": {"mean": 0.01, "interval": [-0.02, 0.04], "groups": 40},
        "calibration": {"new": {"ece": 0.1, "slope": 0.4, "interval": [0.3, 0.5]}},
        "length_bias": {"new": None},
        "batch_difference": 2e-6,
        "batch_difference_allowed": 1e-3,
    },
}


@pytest.fixture
def undecided(family):
    reward = family["reward"]
    reward.metrics = {"gate": UNDECIDED}
    reward.save()
    return reward


def test_undecided_reads_as_what_it_is_with_its_numbers_and_what_each_does(cast, enter, undecided):
    client = enter(cast.admin)
    html = client.get(f"/p/shop/versions/{undecided.pk}/").content.decode()
    words = " ".join(strip_tags(html.replace("<", " <")).split())
    assert "Gate: undecided" in words
    assert "about 120 more answered dev groups would tell" in words
    assert "Undecided is no pass" in words
    assert "Warning: Too sure of itself" in words
    assert "Log loss 0.6 – 0.01 [-0.02, 0.04] decides" in words
    assert "less = too sure) 0.4 [0.3, 0.5] – warns" in words
    assert "at most 0.001 may refuse" in words
    assert "The gate is undecided. Put reward-v in force as Reward model all the same?" in html
    assert (
        "passed" not in client.get("/p/shop/versions/").content.decode().split("reward-v")[1][:600]
    )
    assert (
        "Judge it again"
        not in enter(cast.reviewer).get(f"/p/shop/versions/{undecided.pk}/").content.decode()
    )


def test_figures_that_are_no_numbers_are_left_blank(cast, enter, undecided):
    numbers = UNDECIDED["numbers"] | {
        "log_loss": None,
        "log_loss_difference": {"mean": None, "interval": [None, None], "groups": 40},
        "calibration": {"new": {"ece": None, "slope": None, "interval": [None, None]}},
        "batch_difference": None,
    }
    undecided.metrics = {"gate": UNDECIDED | {"verdict": "failed", "numbers": numbers}}
    undecided.save()
    html = enter(cast.reviewer).get(f"/p/shop/versions/{undecided.pk}/").content.decode()
    assert "A score alone and in a batch" in html
    assert "at most 0.001" in html


def test_an_admin_has_an_undecided_version_judged_again_and_its_look_before_stays(
    cast, enter, undecided
):
    page = f"/p/shop/versions/{undecided.pk}/"
    client = enter(cast.admin)
    html = client.post(page + "judge-again/", follow=True).content.decode()
    assert "reward-v is judged again." in html
    undecided.refresh_from_db()
    assert undecided.metrics == {"gates_before": [UNDECIDED]}
    assert list(versions.versions_without_verdict()) == [undecided]
    html = client.post(page + "judge-again/", follow=True).content.decode()
    assert "only what is undecided is judged again" in html
    undecided.metrics = {"gates_before": [UNDECIDED], "gate": UNDECIDED | {"why": "Now."}}
    undecided.save()
    html = client.get(page).content.decode()
    assert html.index("Now.") < html.index("Looks before") < html.index("about 120 more")


def test_the_model_card_says_what_the_gate_said(undecided):
    undecided.metrics |= {"gates_before": [{"why": "Undecided:\n about 300 more."}]}
    gate = model_card.render(undecided).split("## Gate\n")[1].split("\n\n")[0]
    assert gate.splitlines() == [
        f"- Undecided, which is no pass: {UNDECIDED['why']}",
        f"- Warning: {UNDECIDED['warnings'][0]}",
        "- A look before: Undecided: about 300 more.",
    ]


def test_a_promotion_by_an_admin_says_what_the_gate_had_said(cast, enter, undecided):
    client = enter(cast.admin)
    page = f"/p/shop/versions/{undecided.pk}/"
    client.post(page + "promote/", {"slot": "reward"})
    words = " ".join(strip_tags(client.get(page).content.decode()).split())
    assert "by an admin ( its gate said: undecided" in words.replace("(its", "( its")
    assert "Judge it again" not in words


@pytest.fixture
def unjudged(cast, family):
    """The reward model passed with nothing to judge it by, and is in force."""
    reward = family["reward"]
    why = "The first reward model; 0 groups on dev are too few to judge it."
    reward.metrics = {"gate": {"passed": True, "verdict": "unjudged", "why": why, "numbers": {}}}
    reward.save()
    versions.promote(project=cast.project, slot="reward", version=reward, verdict="unjudged")
    return reward


def test_a_pass_without_a_judgement_is_called_that_wherever_it_stands(cast, enter, unjudged):
    client = enter(cast.reviewer)
    for page in ("", "versions/", f"versions/{unjudged.pk}/"):
        html = client.get(f"/p/shop/{page}").content.decode()
        assert html.count('class="badge unjudged"') == 1, page
        assert "passed the gate" not in html, page
    assert "PPO may learn from it" in html
    assert "Gate: passed" not in html


def test_the_page_says_how_many_held_out_answers_are_missing(cast, enter, unjudged):
    annotator = annotator_for(user=cast.labeler, project=cast.project)
    for number in range(5):
        cast.ask(f"Question {number}?", ["Yes.", "No."])
    Prompt.objects.update(split="dev")
    Prompt.objects.filter(pk=cast.comparisons[-1].prompt_id).update(split="train")
    # three answers on dev groups, of which one orders nothing, and the one on train
    wanted = [cast.comparisons[n].pk for n in (0, 1, 2, 4)]
    for _ in cast.comparisons:
        lease = queue.claim_comparison(annotator=annotator)
        if lease.comparison_id not in wanted:
            queue.skip_comparison(assignment=lease, reason="")
            continue
        tie = lease.comparison_id == wanted[2]
        rankings = [AxisRanking(outcome="equal")] if tie else as_shown(lease)
        queue.submit_preference(assignment=lease, rankings=rankings, key=str(lease.pk))
    html = enter(cast.reviewer).get(f"/p/shop/versions/{unjudged.pk}/").content.decode()
    assert "18 more held-out questions must be answered" in html
    assert "2 of 20 held-out questions answered" in html
    assert "Of the 1 open questions 1 are held out" in html


@pytest.fixture
def way(cast, settings, tmp_path):
    """Pretrained on two files, fine-tuned on a snapshot, and two rounds of PPO; oldest first."""
    settings.ARTIFACTS_DIR = tmp_path
    project, found = cast.project, []
    reward = None
    for number, stage in enumerate(("pretrain", "sft", "reward", "ppo", "ppo")):
        snapshot = DatasetSnapshot.objects.create(
            project=project,
            kind="comparisons",
            query={},
            ledger_position={},
            counts={},
            rows=30 + number,
            sha256=f"{number}{'5' * 63}",
            path="d",
        )
        is_first = stage == "pretrain"
        job = TrainingJob.objects.create(
            project=project,
            kind=JobKind(stage),
            status=JobStatus.DONE,
            inputs={"data": ["fixtures/corpus.jsonl", "fixtures/more.txt"]} if is_first else {},
        )
        folder = tmp_path / "models" / str(number)
        folder.mkdir(parents=True)
        if is_first:
            hashes = {"data.0": "a1" * 32, "data.1": "b2" * 32}
            (folder / "run.json").write_text(json.dumps({"inputs": hashes}))
        version = ModelVersion.objects.create(
            kind="reward" if stage == "reward" else "policy",
            stage=stage,
            name=f"{stage}-{number}",
            path=f"models/{number}",
            sha256=f"{number:064}",
            job=job,
            init=found[-1] if found else None,
            reward=reward if stage == "ppo" else None,
            snapshot=None if is_first else snapshot,
        )
        if stage == "reward":
            reward = version
        else:
            found.append(version)
    return found


def way_on(html):
    """The text of the steps that the page shows."""
    listed = html[html.index('<ol class="way">') : html.index("</ol>", html.index('class="way"'))]
    return [" ".join(strip_tags(one).split()) for one in listed.split("<li>")[1:]]


def test_a_policy_is_led_back_to_the_text_it_began_with(cast, enter, way):
    html = enter(cast.reviewer).get(f"/p/shop/versions/{way[-1].pk}/").content.decode()
    reads = "rows {}555555555555555"
    assert way_on(html) == [
        f"pretrain-0 Pretraining #{way[0].job_id} read corpus.jsonl a1a1a1a1a1a1a1a1"
        " read more.txt b2b2b2b2b2b2b2b2",
        f"sft-1 Supervised fine-tuning #{way[1].job_id} read 31 {reads.format(1)}",
        f"ppo-3 PPO #{way[2].job_id} read 33 {reads.format(3)}"
        " Rewarded by reward-2 2555555555555555",
        f"ppo-4 PPO #{way[3].job_id} read 34 {reads.format(4)}"
        " Rewarded by reward-2 2555555555555555",
    ]
    assert f'title="SHA-256 {"a1" * 32}"' in html
    for one in way[:-1]:
        assert f'href="/p/shop/versions/{one.pk}/"' in html
    card = model_card.render(way[-1])
    assert f"on the way, pretrain-0 read: corpus.jsonl `{'a1' * 32}`, more.txt" in card


def test_a_run_without_its_record_says_that_the_hash_is_gone(cast, enter, way, tmp_path):
    for content in (None, "[]", "no JSON", '{"inputs": []}'):
        record = tmp_path / "models" / "0" / "run.json"
        record.unlink() if content is None else record.write_text(content)
        html = enter(cast.reviewer).get(f"/p/shop/versions/{way[0].pk}/").content.decode()
        assert "corpus.jsonl its hash is gone with the run's record" in unescape(way_on(html)[0])


def test_what_another_project_read_is_not_told(cast, enter, way):
    other = make_project(slug="other")
    TrainingJob.objects.filter(pk__in=[way[0].job_id, way[1].job_id]).update(project=other)
    html = enter(cast.reviewer).get(f"/p/shop/versions/{way[-1].pk}/").content.decode()
    assert way_on(html)[:2] == ["pretrain-0 of another project", "sft-1 of another project"]
    assert "corpus.jsonl" not in html


def test_a_long_way_takes_no_more_queries(cast, enter, way, django_assert_max_num_queries):
    at = way[-1]
    for number in range(20):
        job = TrainingJob.objects.create(project=cast.project, kind=JobKind.PPO)
        named = {"name": f"r{number}", "path": f"r{number}", "sha256": f"{number:064}"}
        at = ModelVersion.objects.create(kind="policy", stage="ppo", init=at, job=job, **named)
    with django_assert_max_num_queries(4):
        assert len(way_to(at)) == 24
    # rows can't point in a circle by the program's own doing, and a page must end all the same
    ModelVersion.objects.filter(pk=way[0].pk).update(init=at)
    assert len(way_to(at)) == 24


@pytest.mark.parametrize(("num_dev", "is_shown"), [(0, False), (19, False), (20, True)])
def test_a_version_shows_no_temperature_that_too_few_answers_gave(
    cast, enter, way, num_dev, is_shown
):
    reward = ModelVersion.objects.get(stage="reward")
    DatasetSnapshot.objects.update(counts={"trained": 40, "dev": num_dev})
    TrainingJob.objects.filter(pk=reward.job_id).update(snapshot=reward.snapshot)
    metrics = {"final": {"scores": {"mean": 0.25, "temperature": 100.0}}}
    ModelVersion.objects.filter(pk=reward.pk).update(metrics=metrics)
    html = enter(cast.reviewer).get(f"/p/shop/versions/{reward.pk}/").content.decode()
    assert "Scale of the scores" in html
    assert ("Temperature" in html) == is_shown
