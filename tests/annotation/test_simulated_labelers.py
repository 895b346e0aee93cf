"""manage.py simulated_labelers: tokens for what a file names, and hands off everybody else."""

import io
import json

import pytest
from django.core.management import CommandError, call_command

from annotation.models import Annotator, ApiToken, Membership, User
from tests.annotation.making import make_member, make_project, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def laptop(settings):
    settings.LAPTOP = True


@pytest.fixture
def project():
    return make_project("here")


@pytest.fixture
def run(tmp_path, project):
    """Runs the command on a file of this text; the tokens it prints."""

    def run(text, slug="here"):
        path = tmp_path / "labelers.jsonl"
        path.write_text(text, encoding="utf-8")
        out = io.StringIO()
        call_command("simulated_labelers", project=slug, file=path, stdout=out)
        return json.loads(out.getvalue())

    return run


def test_each_name_is_a_labeler_with_a_new_token(project, run):
    rows = '{"name": "sim-a", "skill": 1}\n\n{"name": "sim-b"}\n'
    tokens = run(rows)
    assert list(tokens) == ["sim-a", "sim-b"]
    assert {one.kind for one in Annotator.objects.all()} == {"simulated"}
    assert not any(user.has_usable_password() for user in User.objects.all())
    again = run(rows)
    assert set(again.values()).isdisjoint(tokens.values())
    assert Membership.objects.filter(project=project, role="labeler").count() == 2


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("nonsense", "line 2: not JSON"),
        ("[1]", "line 2: not a JSON object"),
        ('{"x": 1}', "line 2: no field name"),
        ('{"name": ""}', "line 2: name is empty"),
        ('{"name": 3}', "line 2: name must be a text: 3"),
        ('{"name": "a b"}', "line 2: 'a b': Enter a valid username"),
        (f'{{"name": "{"x" * 151}"}}', "line 2: .*at most 150 characters"),
        ('{"name": "sim-a"}', "line 2: the name 'sim-a' stands twice"),
    ],
)
def test_a_bad_row_is_a_sentence_and_makes_nothing(run, bad, reason):
    with pytest.raises(CommandError, match=reason) as problem:
        run('{"name": "sim-a"}\n' + bad + "\n")
    assert problem.value.returncode == 2
    assert not User.objects.exists()


def test_an_account_of_somebody_else_is_left_alone(project, run):
    elsewhere = make_project("elsewhere")
    run('{"name": "sim-elsewhere"}\n', slug="elsewhere")
    people = [User.objects.create_superuser("boss", password="x"), make_user("stranger")]
    people += [
        make_member(project),
        make_member(elsewhere),
        User.objects.get(username="sim-elsewhere"),
    ]
    tables = (User, Membership, Annotator, ApiToken)
    before = [table.objects.count() for table in tables]
    for user in people:
        with pytest.raises(
            CommandError, match="is no simulated labeler of this project"
        ) as problem:
            run(f'{{"name": "sim-new"}}\n{{"name": "{user.username}"}}\n')
        assert problem.value.returncode == 2
    assert [table.objects.count() for table in tables] == before
