"""Training that a person asks for: refused at once where it can't run, queued where it can."""

import pytest

from annotation.errors import BadInput
from annotation.models import Generation, ModelVersion, TrainingJob
from annotation.services.jobs import data_files, request_training
from annotation.services.queue import claim_comparison, submit_preference
from annotation.services.versions import promote, slots_to_roll_back
from annotation.services.wishes import ask_for_training
from tests.annotation.making import (
    as_shown,
    make_annotator,
    make_comparisons,
    make_project,
    make_prompts,
    make_user,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return make_project("shop", open_target=0)


@pytest.fixture(autouse=True)
def folders(settings, tmp_path):
    settings.DATA_DIRS = [tmp_path / "one", tmp_path / "two"]
    for folder in settings.DATA_DIRS:
        (folder / "deep").mkdir(parents=True)
    (tmp_path / "one" / "corpus.jsonl").write_text("{}\n")
    (tmp_path / "one" / "notes.py").write_text("")
    (tmp_path / "two" / "deep" / "book.txt").write_text("Once.")
    return settings.DATA_DIRS


def version(kind, name):
    return ModelVersion.objects.create(
        kind=kind, stage="registered", name=name, path=f"models/{name}", sha256=name
    )


def put_in_force(project, kind, name="first"):
    made = version(kind, f"{kind}-{name}")
    promote(project=project, slot=kind, version=made, verdict="by_admin")
    return made


def vote(project):
    make_comparisons(project, 12)
    annotator = make_annotator(project)
    for number in range(12):
        lease = claim_comparison(annotator=annotator)
        submit_preference(assignment=lease, rankings=as_shown(lease), key=f"{number}")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pretrain", "one or more files"),
        ("sft", "a model to start from"),
        ("reward", "needs answers"),
        ("ppo", "a policy in force"),
        ("sample", "a policy in force"),
        ("dance", "kind must be one of"),
    ],
)
def test_an_empty_project_trains_nothing_and_says_why(project, kind, words):
    with pytest.raises(BadInput, match=words):
        ask_for_training(project=project, kind=kind, by=make_user())
    assert not TrainingJob.objects.exists()


def test_each_job_is_queued_once_it_has_what_it_needs(project):
    user = make_user()

    def ask(kind, **more):
        return ask_for_training(project=project, kind=kind, by=user, **more)

    assert ask("pretrain", inputs={"data": ["corpus.jsonl"]}).inputs == {"data": ["corpus.jsonl"]}
    with pytest.raises(BadInput, match="demonstrations"):
        ask("sft")  # it would wait for the pretraining, but has nothing to learn
    assert ask("sft", inputs={"data": ["deep/book.txt"]})
    vote(project)
    assert ask("reward")
    put_in_force(project, "policy")
    assert ask("sample")
    with pytest.raises(BadInput, match="a reward model in force"):
        ask("ppo")
    put_in_force(project, "reward")
    assert ask("ppo")
    (prompt,) = make_prompts(project, ["train"])
    source = project.sources.get()
    completion = prompt.completions.create(source=source, text="Yes.", text_hash="y")
    Generation.objects.create(completion=completion, origin="demonstration")
    assert ask("sft")


def test_the_projects_defaults_may_name_the_data(project):
    project.job_defaults = {"inputs": {"pretrain": {"data": ["corpus.jsonl"]}}}
    project.save()
    assert ask_for_training(project=project, kind="pretrain", by=make_user())


def test_a_file_that_is_not_there_is_refused_at_once(project):
    with pytest.raises(BadInput, match=r"No file 'nowhere\.txt'"):
        ask_for_training(
            project=project, kind="pretrain", by=make_user(), inputs={"data": ["nowhere.txt"]}
        )


def test_the_form_offers_the_files_that_a_job_may_read(cast, enter, folders):
    assert data_files() == ["corpus.jsonl", "deep/book.txt"]
    client = enter(cast.admin)
    html = client.get("/p/shop/").content.decode()
    assert '<option value="deep/book.txt">' in html
    wanted = {"kind": "pretrain", "lane": "loop", "config": "{}", "inputs": "{}"}
    refused = client.post("/p/shop/jobs/start/", wanted)
    assert not TrainingJob.objects.exists()
    assert (refused.status_code, "one or more files" in refused.content.decode()) == (422, True)
    client.post("/p/shop/jobs/start/", wanted | {"paths": ["corpus.jsonl", "deep/book.txt"]})
    assert TrainingJob.objects.get().inputs == {"data": ["corpus.jsonl", "deep/book.txt"]}


def test_the_api_refuses_with_the_sentence(cast, enter):
    refused = enter(cast.admin).post(
        "/api/projects/shop/jobs/", {"kind": "ppo"}, "application/json"
    )
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_input")
    assert "a policy in force" in refused.json()["detail"]


def test_roll_back_is_offered_only_where_something_stood_before(cast, enter):
    client = enter(cast.admin)
    project = cast.project
    assert slots_to_roll_back(project) == set()
    put_in_force(project, "policy")
    assert 'id="roll-back-policy"' not in client.get("/p/shop/versions/").content.decode()
    put_in_force(project, "policy", "second")
    assert slots_to_roll_back(project) == {"policy"}
    for page in ("/p/shop/versions/", "/p/shop/", "/p/shop/live/"):
        assert 'id="roll-back-policy"' in client.get(page).content.decode()
    client.post("/p/shop/slots/policy/roll-back/")
    assert slots_to_roll_back(project) == set()
    assert 'id="roll-back-policy"' not in client.get("/p/shop/versions/").content.decode()


def test_a_rule_asks_as_before(project):
    assert request_training(project=project, kind="reward").reason == ""
