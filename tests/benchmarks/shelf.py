"""How fast datasets leave and enter a large ledger, in how much memory, and at how many bytes.

    python tests/benchmarks/shelf.py [--votes 1000000]
    python tests/with_postgres.py python tests/benchmarks/shelf.py [--votes 1000000]

The database is the environment's (DATABASE_URL), else SQLite in a folder that is removed again. One
vote per comparison, 20 comparisons per prompt, answers of some 300 characters: what is counted is
rows of the export, which for these votes is one row a vote in every format. Freezing is measured
by itself; each export is of the snapshot that is there by then. Every step is a process of its own,
whose highest resident memory is told; the pages are asked in the last one. Prints Markdown.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import combinations
from pathlib import Path
from statistics import quantiles
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotation.settings")
os.environ.setdefault("CONCORD_MODE", "laptop")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in the web process

SLUG = "shelf"
ANNOTATORS = 50
EXPORTS = (("comparisons", "jsonl"), ("trl", "jsonl"), ("trl", "parquet"), ("raw", "jsonl"))
PAGE_TIMES = 20
ASKED_AGAIN = 3400
"""Comparisons that three people answer: the newest ten thousand answers are of these."""
METRICS = 10_000
WROTE = 2000
"""Texts of the policy version."""
READS_WHAT_IS_KEPT = ("quality/?of=annotators",)
"""Asked for when the figures above it are there."""
PAGES = (
    "",
    "live/",
    "jobs/",
    "jobs/{job}/",
    "jobs/new/?kind=reward",
    "versions/",
    "versions/{version}/",
    "head-to-head/",
    "health/",
    "asking/",
    "export/",
    "imports/",
    "preferences/",
    "preferences/?outcome=equal&split=dev",
    "preferences/{vote}/",
    "search/?text=letter",
    "search/?version={version}&language=en",
    "quality/",
    "quality/?whose=people",
    "quality/?of=annotators",
    "quality/?by=week",
    *(
        f"analysis/?part={part}"
        for part in ("agreement", "position", "length", "languages", "scores")
    ),
    "analysis/votes/?part=position&annotator=p1",
    "analysis/votes/?part=languages&language=en",
    "votes/?of=agreement&axis=overall",
    "votes/?of=met&player=model-1",
    "votes/?of=written&version={version}",
    "analysis/disagreements/",
    "analysis/disagreements/?language=zh&version={version}",
    "analysis/contributions/",
)


def fill(votes: int) -> dict[str, Any]:
    """A project with so many votes, written in bulk."""
    from django.utils import timezone

    from annotation.models import (
        Annotator,
        Comparison,
        ComparisonCompletion,
        Completion,
        CompletionScore,
        Generation,
        ModelVersion,
        Preference,
        Promotion,
        Prompt,
        Ranking,
    )  # fmt: skip
    from annotation.services import ledger
    from annotation.services.projects import create_project
    from tests.benchmarks import desk_data as desk

    project = create_project(name="Shelf", slug=SLUG, by=None)
    source, scheme, guideline = (
        project.sources.get(), project.schemes.get(), project.guidelines.get()
    )  # fmt: skip
    batch = ledger.batch_for(project=project, name="all", source=source)
    rng, now = random.Random(5), timezone.now()
    sentences = [" ".join(rng.choices(desk.WORDS, k=12)).capitalize() + "." for _ in range(2000)]
    per_prompt, each = desk.PAIRS_PER_PROMPT, desk.COMPLETIONS_PER_PROMPT
    prompts = -(-votes // per_prompt)
    people = [
        Annotator.objects.create(
            project=project, kind="outside", pseudonym=f"p{one}", external_id=f"p{one}"
        )
        for one in range(ANNOTATORS)
    ]

    def prompt(number: int) -> Prompt:
        messages = [{"role": "user", "content": f"{rng.choice(sentences)} ({number})?"}]
        group = ledger.normalised_first_turn(messages)
        splits[number] = ledger.split_of_group(group)
        return Prompt(
            pk=number, project=project, source=source, messages=messages, split_group=group,
            split=splits[number], content_hash=ledger.prompt_hash(messages, {}),
            language=("en", "zh")[number % 2], created_at=now,
        )  # fmt: skip

    both = list(combinations(range(each), 2))
    splits: dict[int, str] = {}

    def pairs() -> Iterator[tuple[int, int, list[int]]]:
        for number in range(1, votes + 1):
            of, place = divmod(number - 1, per_prompt)
            first = 1 + of * each
            yield number, of + 1, [first + one for one in both[place]]

    desk.copy(Prompt, map(prompt, range(1, prompts + 1)))
    desk.copy(
        Completion,
        (
            Completion(
                pk=number, prompt_id=1 + (number - 1) // each, source=source, created_at=now,
                text=f"{' '.join(rng.choices(sentences, k=5))} ({number})",
                text_hash=f"{number:064d}",
            )
            for number in range(1, prompts * each + 1)
        ),
    )  # fmt: skip
    desk.copy(
        Generation,
        (
            Generation(
                pk=number, completion_id=number, origin="imported", writer=f"model-{number % 5}",
                created_at=now,
            )
            for number in range(1, prompts * each + 1)
        ),
    )  # fmt: skip
    desk.copy(
        Comparison,
        (
            Comparison(
                pk=number, project=project, batch=batch, prompt_id=of,
                purpose="production" if splits[of] == "train" else "evaluation",
                content_hash=f"{number:064d}", answers_wanted=0, open_slots=0,
                language=("en", "zh")[of % 2], sort_key=rng.random(), created_at=now,
            )
            for number, of, _pair in pairs()
        ),
    )  # fmt: skip
    desk.copy(
        ComparisonCompletion,
        (
            ComparisonCompletion(comparison_id=number, completion_id=pair[place], position=place)
            for number, _of, pair in pairs()
            for place in (0, 1)
        ),
    )
    desk.copy(
        Preference,
        (
            Preference(
                pk=number, project=project, comparison_id=number, scheme=scheme,
                annotator=people[number % ANNOTATORS], guideline=guideline, presented_order=pair,
                source=source, seconds=20.0,
                created_at=now - timedelta(days=70, minutes=votes - number),
            )
            for number, _of, pair in pairs()
        ),
    )  # fmt: skip
    desk.copy(
        Ranking,
        (
            Ranking(preference_id=number, outcome="ranked", groups=[[one] for one in pair])
            for number, _of, pair in pairs()
        ),
    )
    reward = ModelVersion.objects.create(
        kind="reward", stage="reward", name="reward", path="models/reward", sha256="0" * 64
    )
    Promotion.objects.create(project=project, slot="reward", version=reward, verdict="registered")
    desk.copy(
        CompletionScore,
        (
            CompletionScore(
                pk=number, completion_id=number, model_version=reward, score=rng.gauss(0, 1)
            )
            for number in range(1, prompts * each + 1)
        ),
    )
    desk._settle()
    return {"rows": votes}


def furnish() -> dict[str, int]:
    """A job with ten thousand points, and a policy version that wrote some of the texts; their ids
    and that of a vote, for addresses."""
    from annotation.models import (
        Generation,
        JobMetric,
        ModelVersion,
        Project,
        Promotion,
        TrainingJob,
    )
    from tests.benchmarks import desk_data as desk

    project, rng = Project.objects.get(slug=SLUG), random.Random(9)
    job = TrainingJob.objects.create(project=project, kind="reward", status="done")
    desk.copy(
        JobMetric,
        (
            JobMetric(job=job, phase="reward", step=step, values={"loss": rng.random()})
            for step in range(METRICS)
        ),
    )
    policy = ModelVersion.objects.create(
        kind="policy", stage="sft", name="policy", path="models/policy", sha256="1" * 64
    )
    Promotion.objects.create(project=project, slot="policy", version=policy, verdict="registered")
    last = Generation.objects.order_by("-pk").values_list("pk", flat=True)[0]
    Generation.objects.filter(pk__gt=last - WROTE).update(
        model_version=policy, origin="policy", writer=""
    )
    vote = project.preferences.order_by("pk").values_list("pk", flat=True)[0]
    return {"job": job.pk, "version": policy.pk, "vote": vote}


def answer_again(comparisons: int) -> None:
    """Two more people answer each of the newest comparisons, over ten weeks, for what pages say of
    agreement; the answers are the newest of the ledger."""
    from django.utils import timezone

    from annotation.models import Comparison, Preference, Project, Ranking
    from tests.benchmarks import desk_data as desk

    project, rng, now = Project.objects.get(slug=SLUG), random.Random(7), timezone.now()
    scheme, guideline = project.schemes.get(), project.guidelines.get()
    people = list(project.annotators.order_by("pk").values_list("pk", flat=True)[:ANNOTATORS])
    newest = Comparison.objects.filter(project=project).order_by("-pk")[:comparisons]
    units = list(newest.values_list("pk", "preferences__presented_order", "preferences__source"))
    first = 1 + Preference.objects.order_by("-pk").values_list("pk", flat=True)[0]
    again = [
        (number, unit, people[(unit + more) % len(people)], order, source)
        for number, (unit, order, source, more) in enumerate(
            ((*one, more) for one in reversed(units) for more in (7, 19)), start=first
        )
    ]
    desk.copy(
        Preference,
        (
            Preference(
                pk=number, project=project, comparison_id=unit, scheme=scheme, annotator_id=who,
                guideline=guideline, source_id=source, seconds=round(rng.lognormvariate(3, 1), 1),
                presented_order=order if rng.random() < 0.5 else order[::-1],
                created_at=now - timedelta(days=70 * (1 - (number - first) / len(again))),
            )
            for number, unit, who, order, source in again
        ),
    )  # fmt: skip
    desk.copy(
        Ranking,
        (
            Ranking(
                preference_id=number, outcome="ranked",
                groups=[[pk] for pk in (order if rng.random() < 0.8 else order[::-1])],
            )
            for number, _unit, _who, order, _source in again
        ),
    )  # fmt: skip
    desk._settle()


def freeze(folder: Path) -> dict[str, Any]:
    """A snapshot of everything."""
    from annotation.models import Project
    from annotation.services import snapshots

    made = snapshots.freeze(project=Project.objects.get(slug=SLUG), kind="comparisons", query={})
    return {"rows": made.rows, "bytes": snapshots.path_of(made).stat().st_size}


def export(folder: Path, format: str, files: str) -> dict[str, Any]:
    """The snapshot as a folder."""
    from annotation.exporters.folder import write_export
    from annotation.models import Project

    project = Project.objects.get(slug=SLUG)
    out = folder / f"{format}-{files}"
    manifest = write_export(project=project, format=format, files=files, out=out)
    sizes = [(file["rows"], file["bytes"]) for file in manifest["files"]]
    return {"rows": sum(rows for rows, _ in sizes), "bytes": sum(size for _, size in sizes)}


def load(folder: Path) -> dict[str, Any]:
    """The comparisons of the export into a new project, as import_preferences takes them."""
    from annotation.importers.load import Load
    from annotation.importers.stores import preference_store, source_for
    from annotation.services.projects import create_project

    project = create_project(name="Loaded", slug="loaded", by=None)
    loads = [
        Load(
            project=project,
            path=path,
            source=lambda: source_for(project=project, name="shelf"),
            store_for=lambda source: preference_store(
                project=project, source=source, format="comparisons"
            ),
        ).run()
        for path in sorted((folder / "comparisons-jsonl").glob("*.jsonl"))
    ]
    return {"rows": sum(one.imported for one in loads)}


def restore(folder: Path) -> dict[str, Any]:
    """The raw export into a new project."""
    from annotation.importers.raw import import_raw

    made = import_raw(folder=folder / "raw-jsonl", slug="again")
    return {"rows": made.votes}


def pages(folder: Path) -> dict[str, Any]:
    """Of each page at p95 the milliseconds by the clock and of the processor, and its queries.

    Nothing is kept from one view to the next, so that each is as the first after an answer.
    """
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from annotation.garbage import spare_what_stays
    from annotation.kept import forget
    from annotation.models import Project, User
    from annotation.services.projects import add_member

    ids = furnish()
    answer_again(ASKED_AGAIN)
    spare_what_stays()  # as in the web process
    user = User.objects.create(username="researcher")
    add_member(project=Project.objects.get(slug=SLUG), user=user, role="admin", by=None)
    client, found = Client(), {}
    client.force_login(user)
    for page in PAGES:
        # what a page asks for after it, as it asks
        fragment = {"HX-Request": "true"} if page.startswith(("quality/?", "analysis/?")) else {}
        address = f"/p/{SLUG}/{page.format(**ids)}"
        client.get(address, headers=fragment)  # templates are compiled once
        clock, processor = [], []
        for _ in range(PAGE_TIMES):
            if page not in READS_WHAT_IS_KEPT:
                forget()
            started, worked = time.perf_counter(), time.process_time()
            with CaptureQueriesContext(connection) as queries:
                response = client.get(address, headers=fragment)
            clock.append((time.perf_counter() - started) * 1000)
            processor.append((time.process_time() - worked) * 1000)
            if response.status_code != 200:
                raise RuntimeError(f"{page}: {response.status_code}")
        at_p95 = [quantiles(times, n=20)[-1] for times in (clock, processor)]
        found[page] = [*at_p95, len(queries)]
    return {"pages": found}


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    "freeze": freeze,
    "export": export,
    "import": load,
    "restore": restore,
    "pages": pages,
}


def step(name: str, folder: Path, *more: str) -> dict[str, Any]:
    """One step in this process: what it did, in how many seconds and how much memory."""
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    settings.ALLOWED_HOSTS = ["*"]
    started = time.perf_counter()
    if name == "fill":
        call_command("migrate", verbosity=0)
        done = fill(int(more[0]))
    else:
        done = STEPS[name](folder, *more)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {**done, "seconds": time.perf_counter() - started, "peak_bytes": peak}


def measured(folder: Path, name: str, *more: str) -> dict[str, Any]:
    """One step in a process of its own."""
    command = [sys.executable, __file__, "--step", name, "--folder", str(folder), *more]
    environment = os.environ | {"CONCORD_VAR": str(folder / "var")}
    (folder / "var" / "static").mkdir(parents=True, exist_ok=True)
    said = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(said.stdout.splitlines()[-1])
    return found


def table(votes: int) -> Iterator[str]:
    """The whole benchmark, line by line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured(folder, "fill", str(votes))
        yield "| step | rows | rows/s | bytes per row | peak memory, MB |"
        yield "| --- | ---: | ---: | ---: | ---: |"
        steps = [("freeze",), *(("export", *one) for one in EXPORTS), ("import",), ("restore",)]
        for one in steps:
            found = measured(folder, *one)
            size = f"{found['bytes'] / found['rows']:.0f}" if "bytes" in found else ""
            rate, peak = found["rows"] / found["seconds"], found["peak_bytes"] / 1e6
            yield f"| {' '.join(one)} | {found['rows']:,} | {rate:,.0f} | {size} | {peak:.0f} |"
        yield ""
        yield "| page | p95, ms | of the processor | queries |"
        yield "| --- | ---: | ---: | ---: |"
        for page, (p95, cpu, queries) in measured(folder, "pages")["pages"].items():
            yield f"| {page} | {p95:.0f} | {cpu:.0f} | {queries} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--step")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("more", nargs="*")
    asked = parser.parse_args()
    if asked.step:
        print(json.dumps(step(asked.step, asked.folder, *asked.more)))
        return
    for line in table(asked.votes):
        print(line, flush=True)


if __name__ == "__main__":
    main()
