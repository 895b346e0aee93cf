"""What a dry run reads of a model before anything is queued: its files, its tokenizer."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from annotation.errors import BadInput
from annotation.models import ModelVersion, Promotion, Split
from annotation.services import queue
from annotation.services.dryrun import dry_run
from annotation.services.projects import annotator_for
from annotation.services.rankings import AxisRanking
from annotation.services.tokenizer_files import num_tokens_of

ASK = "/p/shop/jobs/new/ask/"
WORDS = ["[UNK]", "Hello", "world"]


@pytest.fixture
def directory(tmp_path):
    """A model's directory: a tokenizer of three words, its settings, and no real weights."""
    folder = tmp_path / "models" / "m1"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer_config.json").write_text("{}")
    words = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_a_tokenizer_is_read_and_its_tokens_counted(directory):
    assert num_tokens_of(directory) == len(WORDS)


def test_an_ensemble_is_read_by_its_first_member(directory):
    members = [{"directory": "m1"}, {"directory": "gone"}]
    (directory.parent / "ensemble.json").write_text(json.dumps({"members": members}))
    assert num_tokens_of(directory.parent) == len(WORDS)


def test_another_form_is_left_to_the_job(directory):
    (directory / "tokenizer.json").rename(directory / "tokenizer.model")
    assert num_tokens_of(directory) is None


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("tokenizer.json", None, "holds no tokenizer: neither tokenizer.json nor another form"),
        ("tokenizer.json", "", "Its tokenizer.json can't be read as a tokenizer's: EOF"),
        ("tokenizer.json", '{"model"', "Its tokenizer.json can't be read"),
        ("tokenizer_config.json", "{", "Its tokenizer_config.json can't be read"),
    ],
)
def test_what_can_not_be_read_is_told_in_a_sentence(directory, name, text, words):
    path = directory / name
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=words):
        num_tokens_of(directory)


def test_a_file_beyond_any_tokenizer_is_not_read(directory, monkeypatch):
    monkeypatch.setattr("annotation.services.tokenizer_files.LARGEST_BYTES", 10)
    (directory / "tokenizer.json").write_text("{" * 11)
    with pytest.raises(BadInput, match=r"Its tokenizer.json has 11 bytes"):
        num_tokens_of(directory)


def test_a_tokenizer_that_makes_no_tokens_is_refused(directory):
    Tokenizer(models.WordLevel({}, unk_token="[UNK]")).save(str(directory / "tokenizer.json"))
    with pytest.raises(BadInput, match=r"makes no tokens|can't be read"):
        num_tokens_of(directory)


@pytest.mark.django_db
def test_the_look_before_a_job_reads_the_tokenizer_it_would_use(
    cast, enter, directory, settings, tmp_path
):
    settings.ARTIFACTS_DIR = tmp_path
    init = ModelVersion.objects.create(
        kind="policy", stage="pretrain", name="gpt-1", path="models/m1", sha256="0" * 64
    )
    Promotion.objects.create(
        project=cast.project, slot="policy", version=init, verdict="by_admin", by=cast.admin
    )
    cast.ask("Is there a prompt?", ["Yes.", "No."])
    wish = {"kind": "sample", "lane": "loop"}
    body = wish | {"look": "1"}
    client = enter(cast.admin)
    html = client.post(ASK, body).content.decode()
    assert "gpt-1: read, 3 tokens" in html
    assert "It could be queued as it is." in html
    (directory / "tokenizer.json").write_text("no JSON")
    found = dry_run(project=cast.project, by=cast.admin, config={}, **wish)
    assert found.tokenizers == ()
    assert [fault[:34] for fault in found.faults] == ["gpt-1: Its tokenizer.json can't be"]
    html = client.post(ASK, body).content.decode()
    assert "It could be queued, and would fail when it starts." in html
    assert "It could be queued as it is." not in html


@pytest.mark.django_db
def test_the_look_before_a_reward_job_says_that_nothing_would_measure_it(cast, enter):
    body = {"kind": "reward", "lane": "loop", "look": "1"}
    cast.ask("Held out?", ["Yes.", "No."])
    prompt = cast.comparisons[0].prompt
    prompt.split = Split.TRAIN
    prompt.save()
    answer_all(cast)
    client = enter(cast.admin)
    html = client.post(ASK, body).content.decode()
    assert "Nobody has answered a held-out (dev) question" in html
    assert "learned from what it reads, as the job starts" in html
    cast.ask("And this one?", ["Yes.", "No."])
    cast.comparisons[1].prompt.split = Split.DEV
    cast.comparisons[1].prompt.save()
    answer_all(cast)
    html = client.post(ASK, body).content.decode()
    assert "Only 1 answer to held-out (dev) questions measures this model" in html
    found = dry_run(project=cast.project, by=cast.admin, config={}, kind="reward", lane="loop")
    assert found.num_dev == 1


def answer_all(cast):
    """Whatever is open, in order."""
    annotator = annotator_for(user=cast.labeler, project=cast.project)
    for _ in cast.project.comparisons.open():
        lease = queue.claim_comparison(annotator=annotator)
        rankings = [AxisRanking(groups=[[pk] for pk in lease.presented_order])]
        queue.submit_preference(assignment=lease, rankings=rankings, key=f"key {lease.pk}")
