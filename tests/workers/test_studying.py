"""workers.studying: a study of real votes with a real (tiny) reward model."""

import json

import pytest
from django.conf import settings

from annotation.models import CompletionScore, Study, StudyState, TrainingJob
from annotation.services import studies, versions
from annotation.services.jobs import Pulse
from annotation.services.partings import partings
from annotation.services.snapshots import path_of
from policy.scoring import load_scorer
from rewardmodel.__main__ import main
from tests.annotation.voting import cast, compare, make_voter
from tests.workers.tiny import tiny_ensemble, tiny_policy, tiny_reward
from workers import studying
from workers.beating import Interrupted
from workers.launch import shutting_down
from workers.studying import run_study

pytestmark = pytest.mark.django_db


@pytest.fixture
def reward(project, artifacts):
    folder = tiny_reward(artifacts / "models" / "r", tiny_policy(artifacts / "models" / "p"))
    version = versions.register_version(kind="reward", stage="registered", directory=folder)
    versions.promote(project=project, slot="reward", version=version, verdict="registered")
    TrainingJob.objects.all().delete()
    return version


@pytest.fixture
def voted(project):
    """Twelve comparisons that one person answers, half of them a second one too, against them."""
    one, other = make_voter(project), make_voter(project)
    guideline = project.guidelines.get()
    for number in range(12):
        comparison = compare(project, split=("train", "train", "dev", "test")[number % 4])
        cast(comparison, one, guideline=guideline)
        if number % 2:
            cast(comparison, other, order=[[1], [0]])
    for number in range(8):
        cast(compare(project), other if number % 2 else one, guideline=guideline)
    return one, other


def test_what_the_row_holds_is_what_the_command_finds(project, reward, voted, artifacts, tmp_path):
    study = studies.request_study(project=project, by=None)
    run_study(study.pk)
    run_study(study.pk)  # delivered twice
    study.refresh_from_db()
    assert (study.state, study.error, study.attempt) == (StudyState.DONE, "", 1)
    one, other = voted
    by_part = {(each["by"], each["name"]): each for each in study.result["contributions"]}
    assert by_part["annotator", str(one.pk)]["votes"] == 10
    assert by_part["guideline", "1"]["votes"] == 14
    assert by_part["batch", "batch production"]["votes"] == 17
    assert ("annotator", str(other.pk)) not in by_part, "seven votes are too few"
    for (by, name), each in by_part.items():
        assert studies.votes_behind(study, by=by, name=name).count() == each["votes"]

    model, data = str(versions.directory_of(reward)), str(path_of(study.snapshot))
    words = ["--model", model, "--data", data, "--device", "cpu"]
    cached, out, labels = (tmp_path / name for name in ("f.safetensors", "o.json", "l.jsonl"))
    labels.write_text("".join(json.dumps(row) + "\n" for row in studies.labels_of(project)))
    assert main(["features", *words, "--out", str(cached)]) == 0
    words += ["--features", str(cached), "--labels", str(labels), "--out", str(out)]
    assert main(["contributions", *words]) == 0
    assert json.loads(out.read_text()) == study.result
    assert not (artifacts / "studies" / str(study.pk)).exists()


def test_the_scores_are_the_models_and_none_is_of_a_test_prompt(project, reward, voted):
    run_study(studies.request_study(project=project, by=None).pk)
    stored = CompletionScore.objects.filter(model_version=reward).select_related(
        "completion__prompt"
    )
    assert stored.count() == 2 * 17
    assert not stored.filter(completion__prompt__split="test").exists()
    scorer = load_scorer(versions.directory_of(reward))
    wanted = scorer.score(
        [each.completion.prompt.messages for each in stored],
        [each.completion.text for each in stored],
    )
    assert [each.score for each in stored] == pytest.approx(wanted, abs=1e-4)
    assert partings(project, reward).num_compared == 17


def test_what_can_not_be_measured_is_said(project, reward, artifacts):
    study = studies.request_study(project=project, by=None)
    run_study(study.pk)
    study.refresh_from_db()
    assert study.state == StudyState.FAILED
    assert study.error == "The project has no comparisons to learn from (train, dev)."
    cast(compare(project))
    folder = tiny_ensemble(artifacts / "models" / "e")
    version = versions.register_version(kind="reward", stage="registered", directory=folder)
    study = studies.request_study(project=project, by=None, reward=version)
    run_study(study.pk)
    study.refresh_from_db()
    assert study.error.endswith("is an ensemble: its members have features")
    assert not list((settings.ARTIFACTS_DIR / "studies").glob("*"))


def test_a_worker_that_shuts_down_gives_it_back(project, reward, voted, monkeypatch):
    study = studies.request_study(project=project, by=None)
    monkeypatch.setattr(shutting_down, "is_set", lambda: True)
    run_study(study.pk)
    study.refresh_from_db()
    assert study.state == StudyState.QUEUED
    assert list(studies.waiting_studies()) == [study]


def test_an_attempt_that_wakes_up_late_leaves_the_next_ones_files_alone(
    project, reward, voted, artifacts, monkeypatch
):
    """The first falls silent, the second has written its features when the first comes to its end;
    the second's figures are found."""
    study = studies.request_study(project=project, by=None)
    first = studies.claim_study(study.pk)
    write = studying.write_features

    def fenced_off(study, folder, beating):
        folder.mkdir(parents=True, exist_ok=True)
        raise Interrupted(Pulse.FENCED_OFF)

    def write_then_wake(*args):
        write(*args)
        monkeypatch.setattr(studies, "claim_study", lambda pk: first)
        monkeypatch.setattr(studying, "_measure", fenced_off)
        run_study(study.pk)

    monkeypatch.setattr(studying, "write_features", write_then_wake)
    Study.objects.filter(pk=study.pk).update(heartbeat_at="2000-01-01T00:00Z")
    run_study(study.pk)
    study.refresh_from_db()
    assert (study.state, study.error, study.attempt) == (StudyState.DONE, "", 2)
    assert not (artifacts / "studies" / str(study.pk)).exists()


def test_an_error_that_nobody_foresaw_ends_it_with_its_words(project, reward, voted, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(studying, "contributions", broken)
    study = studies.request_study(project=project, by=None)
    with pytest.raises(RuntimeError):
        run_study(study.pk)
    assert Study.objects.get().error == "The worker failed: RuntimeError: the disk is on fire"
