"""Datasets and models through the API: who may take what, and nothing beside it."""

import asyncio
import base64
import hashlib
import io
import json
import tarfile

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import AsyncClient, Client

from annotation import streaming
from annotation.models import ModelVersion
from annotation.services import exports
from annotation.services.tokens import issue_token
from annotation.services.versions import promote, register_version
from tests.annotation.making import make_member, make_project
from tests.annotation.voting import cast, compare

pytestmark = pytest.mark.django_db
URL = "/api/projects/here"


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path):
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    return settings.ARTIFACTS_DIR


@pytest.fixture
def project():
    return make_project("here", open_target=0)


def caller(user, client=Client):
    _, token = issue_token(user=user, name="script")
    return client(headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def researcher(project):
    return caller(make_member(project, "researcher"))


def make(client, **wish):
    return client.post(f"{URL}/exports/", json.dumps(wish), content_type="application/json")


def body(response):
    return b"".join(response.streaming_content)


def test_a_researcher_makes_lists_and_downloads_an_export(project, researcher):
    cast(compare(project))
    made = make(researcher, format="trl", query={"splits": ["train"]})
    assert made.status_code == 201, made.content
    (listed,) = researcher.get(f"{URL}/exports/").json()
    assert listed == made.json()
    assert (listed["format"], listed["votes"], listed["funnel"]["trained"]) == ("trl", 1, 1)
    (file,) = listed["files"]
    response = researcher.get(f"{URL}/exports/{listed['id']}/{file['name']}")
    data = body(response)
    assert json.loads(data)["chosen"][0]["content"] == "Answer 0."
    assert response["Content-Length"] == str(len(data)) == str(file["bytes"])
    assert response["Content-Disposition"].startswith("attachment; ")
    assert response["Content-Type"] == "application/octet-stream"
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert response["Repr-Digest"] == f"sha-256=:{digest}:"
    for name in listed["documents"]:
        response = researcher.get(f"{URL}/exports/{listed['id']}/{name}")
        digest = base64.b64encode(hashlib.sha256(body(response)).digest()).decode()
        assert response["Repr-Digest"] == f"sha-256=:{digest}:"


def test_a_large_project_is_exported_and_counted_by_orders(project, researcher, monkeypatch):
    monkeypatch.setattr(exports, "SMALL", 0)
    cast(compare(project))
    asked = make(researcher, format="trl", files="parquet")
    assert (asked.status_code, asked.json()["state"]) == (202, "waiting")
    wish = {"kind": "comparisons", "query": {}}
    counted = researcher.post(f"{URL}/snapshots/count/", wish, content_type="application/json")
    assert (counted.status_code, counted.json()["counts_only"]) == (202, True)
    for order in (asked, counted):
        exports.write_order(order.json()["id"])
    at = f"{URL}/exports/orders"
    done, count = (researcher.get(f"{at}/{one.json()['id']}").json() for one in (asked, counted))
    assert (done["state"], count["state"], count["account"]["rows"]) == ("done", "done", 1)
    made = researcher.get(f"{URL}/exports/{done['export']}").json()
    assert [file["name"].partition(".")[2] for file in made["files"]] == ["parquet"]
    assert researcher.get(f"{URL}/exports/{done['export'][:-1]}0x").status_code == 404


def test_an_export_of_nothing_is_refused_with_why(project, researcher):
    refused = make(researcher, format="trl")
    assert refused.status_code == 400
    assert "nothing to export" in refused.json()["detail"]


def test_snapshots_are_counted_listed_and_held_together(project, researcher):
    cast(compare(project))
    wish = {"query": {"since": "2999-01-01"}}
    post = {"content_type": "application/json"}
    counted = researcher.post(f"{URL}/snapshots/count/", json.dumps(wish), **post).json()
    assert (counted["rows"], counted["funnel"]["filtered_date"]) == (0, 1)
    assert researcher.get(f"{URL}/snapshots/").json()["results"] == []
    make(researcher, format="trl")
    cast(compare(project))
    make(researcher, format="trl")
    new, old = researcher.get(f"{URL}/snapshots/").json()["results"]
    found = researcher.get(f"{URL}/snapshots/{old['id']}/diff/{new['id']}/").json()
    assert found["same"] == 1
    assert found["new"]["why"] == {"later": 1}
    assert researcher.get(f"{URL}/snapshots/{old['id']}/diff/999/").status_code == 404


def test_a_whole_export_comes_as_one_archive(project, researcher):
    cast(compare(project))
    made = make(researcher, format="comparisons", files="parquet").json()
    response = researcher.get(f"{URL}/exports/{made['id']}.tar")
    with tarfile.open(fileobj=io.BytesIO(body(response))) as archive:
        names = archive.getnames()
    assert names == [
        f"{made['id']}/{name}" for name in ("README.md", "manifest.json", "train.parquet")
    ]
    assert researcher.get(f"{URL}/exports/20260101-trl-ffffffffffff.tar").status_code == 404


@pytest.mark.parametrize(
    ("wish", "detail"),
    [
        ({"format": "csv"}, "csv"),
        ({"format": "trl", "files": "xlsx"}, "xlsx"),
        ({"format": "trl"}, "nothing to export"),
        ({"format": "trl", "query": {"splits": ["x"]}}, "not 'x'"),
        ({"format": "trl", "query": {"colour": 1}}, "not 'colour'"),
        ({"format": "trl", "query": 3}, "query"),
        (
            {"format": "trl", "query": {"up_to": {"preference": 10**24}}},
            f"ledger stands, 0: {10**24}",
        ),
        ({}, "format"),
    ],
)
def test_a_bad_wish_is_400_and_makes_nothing(project, researcher, artifacts, wish, detail):
    response = make(researcher, **wish)
    assert response.status_code == 400
    assert response.json()["code"] == "bad_input"
    assert detail in response.json()["detail"]
    assert researcher.get(f"{URL}/exports/").json() == []


@pytest.mark.parametrize(("role", "status"), [("labeler", 403), ("reviewer", 403), ("admin", 200)])
def test_only_researchers_and_admins_see_exports(project, researcher, role, status):
    cast(compare(project))
    export = make(researcher, format="trl").json()["id"]
    client = caller(make_member(project, role))
    assert client.get(f"{URL}/exports/").status_code == status
    assert client.get(f"{URL}/exports/{export}/train.jsonl").status_code == status
    assert make(client, format="trl").status_code == (201 if status == 200 else status)


def test_another_projects_researcher_finds_nothing(project, researcher):
    cast(compare(project))
    export = make(researcher, format="trl").json()["id"]
    other = make_project("other")
    stranger = caller(make_member(other, "researcher"))
    assert stranger.get(f"{URL}/exports/{export}/train.jsonl").status_code == 404
    theirs = stranger.get(f"/api/projects/other/exports/{export}/train.jsonl")
    assert theirs.status_code == 404
    assert Client().get(f"{URL}/exports/").status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "{id}/nothing.jsonl",
        "{id}/..%2f..%2f..%2fsnapshots",
        "{id}/..",
        "{id}/%2e%2e%2fmanifest.json",
        "{id}/%2fetc%2fpasswd",
        "../{id}/train.jsonl",
        "..%2f{id}/train.jsonl",
        "20260101-trl-000000000000/train.jsonl",
    ],
)
def test_no_path_leads_out_of_the_export(project, researcher, path):
    cast(compare(project))
    export = make(researcher, format="trl").json()["id"]
    assert researcher.get(f"{URL}/exports/{path.format(id=export)}").status_code == 404


@pytest.fixture
def version(project, tmp_path):
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_text('{"a": 1}')
    (folder / "model.safetensors").write_bytes(b"w" * 100_000)
    (folder / "deep/tokenizer.json").write_bytes(b"")
    made = register_version(
        kind="policy",
        stage="registered",
        directory=folder,
        name="tiny <b>",
        licence="MIT",
        metrics={"loss": 1.5},
    )
    promote(project=project, slot="policy", version=made, verdict="registered")
    return made


def test_a_version_comes_as_an_archive_with_its_card(project, researcher, version):
    response = researcher.get(f"{URL}/versions/{version.pk}/download")
    assert response.status_code == 200
    with tarfile.open(fileobj=io.BytesIO(body(response))) as archive:
        files = {name: archive.extractfile(name).read() for name in archive.getnames()}
    root = f"policy-version-{version.pk}"
    assert set(files) == {
        f"{root}/{name}"
        for name in ("README.md", "config.json", "model.safetensors", "deep/tokenizer.json")
    }
    assert files[f"{root}/model.safetensors"] == b"w" * 100_000
    card = files[f"{root}/README.md"].decode()
    assert 'license: "MIT"' in card
    assert "AutoModelForCausalLM" in card
    assert '"loss": 1.5' in card
    assert version.sha256 in card


def test_a_version_of_another_project_is_not_found(version, project):
    other = make_project("other")
    stranger = caller(make_member(other, "researcher"))
    assert stranger.get(f"/api/projects/other/versions/{version.pk}/download").status_code == 404
    labeler = caller(make_member(project))
    assert labeler.get(f"{URL}/versions/{version.pk}/download").status_code == 403


def test_a_version_whose_files_are_gone_says_so(researcher, version):
    ModelVersion.objects.filter(pk=version.pk).update(path="models/elsewhere")
    response = researcher.get(f"{URL}/versions/{version.pk}/download")
    assert response.status_code == 404
    assert "not on this machine" in response.json()["detail"]


def test_a_link_in_a_model_folder_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    data = b"".join(streaming.tar_pieces(folder, root="r", extra={}))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == []


def test_long_and_chinese_names_survive_the_archive(tmp_path):
    name = "模型" * 40 + ".txt"
    (tmp_path / name).write_text("文")
    data = b"".join(streaming.tar_pieces(tmp_path, root="r" * 90, extra={}))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (member,) = archive.getmembers()
        assert member.name == f"{'r' * 90}/{name}"
        assert archive.extractfile(member).read().decode() == "文"


@pytest.mark.django_db(transaction=True)
def test_a_download_streams_under_asgi_too(project, monkeypatch):
    cast(compare(project))
    client = caller(make_member(project, "researcher"))
    export = make(client, format="trl").json()["id"]
    headers = client.defaults
    monkeypatch.setattr(streaming, "PIECE_BYTES", 64)

    async def pieces():
        response = await AsyncClient().get(
            f"{URL}/exports/{export}/train.jsonl",
            headers={"Authorization": headers["HTTP_AUTHORIZATION"]},
        )
        found = [piece async for piece in response.streaming_content]
        await sync_to_async(connections.close_all)()  # those of the thread the view ran in
        return found

    found = asyncio.run(pieces())
    assert len(found) > 2
    assert json.loads(b"".join(found))["rejected"][0]["content"] == "Answer 1."
