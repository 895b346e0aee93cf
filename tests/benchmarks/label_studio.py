"""Label Studio beside Concord: installed by pip into a folder of its own, set up, started.

Nothing of it is part of Concord. It runs as its own command `label-studio start` runs it, without
the trigram indexes of its search, which pgserver's PostgreSQL lacks: that spares it work.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

VERSION = "1.23.0"
EMAIL, PASSWORD = "lead@example.org", "benchmark-password"
SET_UP = """
import json
from core.models import *
from django.contrib.auth import get_user_model
from organizations.models import Organization, OrganizationMember
from projects.models import Project, ProjectMember
from rest_framework.authtoken.models import Token
from tasks.models import Task

User = get_user_model()
lead = User.objects.create_user(email="{email}", password="{password}", username="lead")
organization = Organization.create_organization(created_by=lead, title="Desk")
lead.active_organization = organization
lead.save()
if hasattr(organization, "jwt"):
    organization.jwt.legacy_api_tokens_enabled = True
    organization.jwt.save()
config = '''<View><Text name="prompt" value="$prompt"/>
<Pairwise name="better" toName="first,second"/>
<Text name="first" value="$first"/><Text name="second" value="$second"/></View>'''
project = Project.objects.create(
    title="Desk", label_config=config, created_by=lead, organization=organization
)
tokens = []
for number in range({labelers}):
    name = f"labeler-{{number}}"
    user = User.objects.create_user(
        email=name + "@example.org", password="{password}", username=name
    )
    user.active_organization = organization
    user.save()
    OrganizationMember.objects.get_or_create(user=user, organization=organization)
    ProjectMember.objects.get_or_create(user=user, project=project)
    tokens.append(Token.objects.get_or_create(user=user)[0].key)
text = "They kept a long answer and asked why a short letter wrote the rule. " * 5
Task.objects.bulk_create(
    [
        Task(
            project=project, inner_id=number, overlap=1,
            data={{"prompt": f"Why? ({{number}})", "first": text + "A", "second": text + "B"}},
        )
        for number in range(1, {tasks} + 1)
    ],
    batch_size=1000,
)
print("MADE " + json.dumps({{"tokens": tokens, "project": project.pk}}))
"""
COUNT = """
import json
from django.db.models import Count
from tasks.models import Annotation
by_task = list(Annotation.objects.values_list("task").annotate(number=Count("pk")))
print("MADE " + json.dumps({
    "answers": sum(number for _, number in by_task),
    "over_assigned": sum(number > 1 for _, number in by_task),
    "tasks": len(by_task),
}))
"""


def installed(folder: Path) -> Path:
    """The `label-studio` command, from pip at the first call."""
    command = folder / "bin" / "label-studio"
    if not command.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(folder / "bin" / "pip"), "install", "-q", f"label-studio=={VERSION}"]
        subprocess.run(install, check=True)
    return command


def environment(data: Path, postgres: tuple[str, str] | None) -> dict[str, str]:
    """Of all its processes. postgres: (socket folder, database name), None for SQLite."""
    found = {
        **{name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"},
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "DJANGO_DB": "default" if postgres else "sqlite",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "DEBUG": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
    }
    if postgres:
        host, name = postgres
        found |= {"POSTGRE_HOST": host, "POSTGRE_NAME": name, "POSTGRE_PASSWORD": "none"}
    return found


def set_up(command: Path, env: dict[str, str], *, labelers: int, tasks: int) -> dict[str, Any]:
    """Tables, labelers with tokens, a project with tasks: {"tokens", "project"}."""
    words = {"email": EMAIL, "password": PASSWORD, "labelers": labelers, "tasks": tasks}
    return _in_shell(command, env, SET_UP.format(**words))


def count(command: Path, env: dict[str, str]) -> dict[str, Any]:
    """How many answers there are, and how many tasks went to two people."""
    return _in_shell(command, env, COUNT)


def command(installed: Path, port: int) -> list[str]:
    """The server, as its own command starts it."""
    words = ["start", "--no-browser", "--port", str(port), "--internal-host", "127.0.0.1"]
    return [str(installed), *words]


def _in_shell(command: Path, env: dict[str, str], program: str) -> dict[str, Any]:
    python = command.parent / "python"
    setting_up = (
        "import os, sys, runpy\n"
        "import label_studio\n"
        "sys.path.insert(0, os.path.dirname(label_studio.__file__))\n"
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'core.settings.label_studio'\n"
        "import django\n"
        "django.setup()\n"
        "from core.utils import common\n"
        "common.trigram_migration_operations = lambda step: []\n"
        "common.btree_gin_migration_operations = lambda step: []\n"
        "from django.core.management import call_command\n"
        "call_command('migrate', verbosity=0)\n"
    )
    done = subprocess.run(
        [str(python), "-c", setting_up + program],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        if line.startswith("MADE "):
            return json.loads(line.removeprefix("MADE "))
    raise RuntimeError(f"Label Studio's set-up ended with {done.returncode}: {done.stderr[-2000:]}")
