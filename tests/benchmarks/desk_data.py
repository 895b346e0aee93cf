"""What the desk's benchmark works on: fill a ledger, count what is exact, count rows examined.

    python tests/benchmarks/desk_data.py fill --comparisons 10000 --overlap 3 --ahead 5000
    python tests/benchmarks/desk_data.py lower --to 1
    python tests/benchmarks/desk_data.py check | explain

Each works on the database of the environment and writes one JSON object. Rows are made in bulk but
as the services make them: the same columns, hashes and counters, so that a claim can't tell.
"""

import argparse
import hashlib
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import combinations, count, islice
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotation.settings")

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.db.models import Model  # noqa: E402
from django.utils import timezone  # noqa: E402

from annotation.errors import NothingToDo  # noqa: E402
from annotation.models import (  # noqa: E402
    Annotator,
    Assignment,
    AssignmentState,
    Comparison,
    ComparisonCompletion,
    Completion,
    Membership,
    Outcome,
    Preference,
    Project,
    Prompt,
    Ranking,
    User,
    WalkPlace,
)
from annotation.services import ledger  # noqa: E402
from annotation.services.lanes import place_on_ring  # noqa: E402
from annotation.services.leases import lease_at_hand  # noqa: E402
from annotation.services.projects import add_member, annotator_for, create_project  # noqa: E402
from annotation.services.queue import claim_comparison, submit_preference  # noqa: E402
from annotation.services.rankings import AxisRanking  # noqa: E402
from annotation.services.tokens import issue_token  # noqa: E402

SLUG = "desk"
LANGUAGES = ("de", "en", "fr", "zh")
SKILLS = ("code", "law", "maths", "medicine", "poetry")
"""Twenty pools."""
PAIRS_PER_PROMPT = 20
COMPLETIONS_PER_PROMPT = 7
LONG_AGO_SECONDS = 30 * 86_400
WORDS = "we you they wrote kept asked why where a long short answer letter law rule".split()  # noqa: SIM905


def fill(comparisons: int, overlap: int, labelers: int, ahead: int) -> dict[str, Any]:
    """A project in 20 pools, its labelers' tokens, and one more who is `ahead` answers on."""
    call_command("migrate", verbosity=0)
    project = create_project(name="Desk", slug=SLUG, by=None)
    source = project.sources.get()
    batches = [
        ledger.batch_for(project=project, name=f"Batch {skill}", source=source, skill=skill)
        for skill in SKILLS
    ]
    tokens = [_labeler(project, number) for number in range(labelers + 1)]
    started = time.monotonic()
    rng = random.Random(3)
    sentences = [" ".join(rng.choices(WORDS, k=12)).capitalize() + "." for _ in range(2000)]
    prompts = -(-comparisons // PAIRS_PER_PROMPT)
    now = timezone.now()

    def prompt(number: int) -> Prompt:
        messages = [{"role": "user", "content": f"{rng.choice(sentences)} ({number})?"}]
        group = ledger.normalised_first_turn(messages)
        return Prompt(
            pk=number, project=project, source=source, messages=messages, split_group=group,
            language=LANGUAGES[number % len(LANGUAGES)], split=ledger.split_of_group(group),
            content_hash=ledger.prompt_hash(messages, {}), created_at=now,
        )  # fmt: skip

    def completion(number: int) -> Completion:
        text = f"{' '.join(rng.choices(sentences, k=5))} ({number})"
        return Completion(
            pk=number, prompt_id=1 + (number - 1) // COMPLETIONS_PER_PROMPT, source=source,
            text=text, text_hash=hashlib.sha256(text.encode()).hexdigest(), created_at=now,
        )  # fmt: skip

    def pairs() -> Iterator[tuple[int, int, tuple[int, int]]]:
        numbers = count(1)
        for one in range(1, prompts + 1):
            first = 1 + (one - 1) * COMPLETIONS_PER_PROMPT
            both = combinations(range(first, first + COMPLETIONS_PER_PROMPT), 2)
            for pair in islice(both, PAIRS_PER_PROMPT):
                yield next(numbers), one, pair

    def comparison(number: int, of: int, pair: tuple[int, int]) -> Comparison:
        batch = batches[(of // len(LANGUAGES)) % len(batches)]
        content = json.dumps([batch.pk, of, list(pair)], separators=(",", ":"))
        return Comparison(
            pk=number, project=project, batch=batch, prompt_id=of, purpose="production",
            content_hash=hashlib.sha256(content.encode()).hexdigest(), answers_wanted=overlap,
            open_slots=overlap, language=LANGUAGES[of % len(LANGUAGES)], skill=batch.skill,
            sort_key=rng.random(), opened_at=time.time() - LONG_AGO_SECONDS, created_at=now,
        )  # fmt: skip

    copy(Prompt, (prompt(number) for number in range(1, prompts + 1)))
    copy(Completion, map(completion, range(1, prompts * COMPLETIONS_PER_PROMPT + 1)))
    copy(Comparison, (comparison(*one) for one in islice(pairs(), comparisons)))
    copy(
        ComparisonCompletion,
        (
            ComparisonCompletion(comparison_id=number, completion_id=pair[place], position=place)
            for number, _, pair in islice(pairs(), comparisons)
            for place in (0, 1)
        ),
    )
    _go_ahead(project, User.objects.get(username=f"labeler-{labelers}"), ahead)
    _settle()
    return {"tokens": tokens, "seconds": time.monotonic() - started}


def _labeler(project: Project, number: int) -> str:
    user = User.objects.create(username=f"labeler-{number}")
    add_member(project=project, user=user, role="labeler", by=None, skills=SKILLS)
    annotator_for(user=user, project=project)
    return issue_token(user=user, name="benchmark")[1]


def copy(model: type[Model], rows: Iterable[Model]) -> None:
    """Write many rows fast; ids that are not given are numbered from the table's end."""
    fields = model._meta.local_concrete_fields
    table, columns = model._meta.db_table, ", ".join(f'"{field.column}"' for field in fields)
    last = model._default_manager.order_by("-pk").values_list("pk", flat=True).first() or 0
    numbers = count(last + 1)

    def values(row: Any) -> list[Any]:
        row.pk = row.pk or next(numbers)
        found = []
        for field in fields:
            value = getattr(row, field.attname)
            if field.get_internal_type() == "JSONField":
                value = json.dumps(value)
            elif field.get_internal_type() == "DateTimeField" and value is not None:
                value = connection.ops.adapt_datetimefield_value(value)
            found.append(value)
        return found

    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as writer:
                for row in rows:
                    writer.write_row(values(row))
            cursor.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"
            )
        else:
            marks = ", ".join("?" for _ in fields)
            sql = f"INSERT INTO {table} ({columns}) VALUES ({marks})"
            cursor.connection.executemany(sql, map(values, rows))


def _go_ahead(project: Project, user: User, ahead: int) -> None:
    """Answers of one labeler to the first comparisons of their way round each pool."""
    annotator = Annotator.objects.get(user=user)
    home, now = place_on_ring(annotator), timezone.now() - timedelta(hours=1)
    scheme, guideline = project.schemes.get(), project.guidelines.get()
    done: list[tuple[int, list[int]]] = []
    per_pool = ahead // (len(LANGUAGES) * len(SKILLS))
    for language in LANGUAGES:
        for skill in SKILLS:
            pool = project.comparisons.filter(language=language, skill=skill).order_by("sort_key")
            before = list(pool.filter(sort_key__gte=home).values_list("pk", "sort_key")[:per_pool])
            wrapped = list(pool.filter(sort_key__lt=home).values_list("pk", "sort_key"))
            way = [*before, *wrapped[: per_pool - len(before)]]
            if not way:
                continue
            orders: dict[int, list[int]] = {pk: [] for pk, _ in way}
            entries = ComparisonCompletion.objects.filter(comparison__in=orders)
            for pk, completion in entries.values_list("comparison_id", "completion_id"):
                orders[pk].append(completion)
            done += orders.items()
            WalkPlace.objects.create(
                annotator=annotator, priority=0, language=language, skill=skill,
                stage=0 if len(before) == len(way) else 1, reached=way[-1][1],
                began_at=time.time() - 86_400, paused="",
            )  # fmt: skip
    copy(
        Assignment,
        (
            Assignment(
                pk=number, project=project, comparison_id=pk, annotator=annotator, scheme=scheme,
                guideline=guideline, presented_order=order, state=AssignmentState.ANSWERED,
                holds_slot=False, leased_at=now, expires_at=now + timedelta(minutes=15),
            )
            for number, (pk, order) in enumerate(done, 1)
        ),
    )  # fmt: skip
    copy(
        Preference,
        (
            Preference(
                pk=number, project=project, comparison_id=pk, annotator=annotator,
                assignment_id=number, scheme=scheme, guideline=guideline, presented_order=order,
                counted=True, idempotency_key=f"ahead {number}", seconds=20.0, created_at=now,
            )
            for number, (pk, order) in enumerate(done, 1)
        ),
    )  # fmt: skip
    copy(
        Ranking,
        (
            Ranking(preference_id=number, outcome=Outcome.RANKED, groups=[[one] for one in order])
            for number, (_, order) in enumerate(done, 1)
        ),
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE annotation_comparison SET open_slots = open_slots - 1 WHERE id IN "
            "(SELECT comparison_id FROM annotation_preference)"
        )


def _settle() -> None:
    """As autovacuum leaves a table that has been there for a while."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


def check() -> dict[str, int]:
    """What must all be 0, and how many answers there are."""
    leases = "SELECT count(*) FROM annotation_assignment a WHERE a.comparison_id = c.id"
    answers = "SELECT count(*) FROM annotation_preference p WHERE p.comparison_id = c.id"
    taken = f"({leases} AND a.holds_slot) + ({answers} AND p.counted)"
    begun = "id IN (SELECT comparison_id FROM annotation_assignment)"
    ours = "idempotency_key LIKE 'bench%%'"
    comparisons = "SELECT count(*) FROM annotation_comparison c WHERE"
    questions = {
        "broken": f"{comparisons} {begun} AND {taken} + open_slots <> answers_wanted",
        "over_assigned": f"{comparisons} {begun} AND {taken} > answers_wanted",
        "untouched_broken": f"{comparisons} open_slots <> answers_wanted AND NOT {begun}",
        "double_counted": "SELECT count(*) FROM (SELECT 1 FROM annotation_preference WHERE counted "
        "GROUP BY comparison_id, annotator_id HAVING count(*) > 1) AS twice",
        "answers": f"SELECT count(*) FROM annotation_preference p WHERE {ours} AND EXISTS "
        "(SELECT 1 FROM annotation_ranking r WHERE r.preference_id = p.id)",
        "surplus": "SELECT count(*) FROM annotation_preference WHERE NOT counted",
    }
    with connection.cursor() as cursor:
        found = {}
        for name, sql in questions.items():
            cursor.execute(sql, [])
            found[name] = cursor.fetchone()[0]
    return found


def explain(claims: int) -> dict[str, Any]:
    """Rows that a claim reads, by EXPLAIN ANALYZE of each of its statements (PostgreSQL alone).

    After ANALYZE, as autovacuum would have done it in the days that such a ledger takes.
    """
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    people = Annotator.objects.filter(user__isnull=False)
    annotators = list(people.select_related("project").order_by("pk"))
    examined: list[Counter[str]] = []
    for number in range(claims):
        annotator = annotators[-1 - number % len(annotators)]
        member = Membership.objects.get(project=annotator.project_id, user=annotator.user_id)
        if lease_at_hand(annotator, "active", timezone.now()):
            continue
        rows: Counter[str] = Counter()

        def counting(
            execute: Any, sql: str, params: Any, many: bool, context: Any, rows: Any = rows
        ) -> Any:
            word = sql.split(None, 1)[0]
            if word in ("SELECT", "WITH", "UPDATE"):
                plain = context["cursor"].connection.cursor()
                plain.execute("SAVEPOINT explained")
                plain.execute(f"EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) {sql}", params)
                plan = plain.fetchone()[0]
                plain.execute("ROLLBACK TO SAVEPOINT explained")
                plan = json.loads(plan) if isinstance(plan, str) else plan
                rows.update(_rows_read(plan[0]["Plan"]))
            return execute(sql, params, many, context)

        with transaction.atomic(), connection.execute_wrapper(counting):
            try:
                lease = claim_comparison(annotator=annotator, membership=member)
            except NothingToDo:
                lease = None
        examined.append(rows)
        if lease is not None:
            submit_preference(
                assignment=lease,
                rankings=[AxisRanking(groups=[[one] for one in lease.presented_order])],
                key=f"explained {lease.pk}",
            )
    totals = [rows.total() for rows in examined]
    tables = {name for rows in examined for name in rows}
    return {
        "claims": len(examined),
        "median": median(totals),
        "most": max(totals),
        "medians": {name: median(rows[name] for rows in examined) for name in sorted(tables)},
    }


def _rows_read(plan: dict[str, Any]) -> Counter[str]:
    """Table -> rows that the plan's scans of it or its indexes returned or threw away."""
    found: Counter[str] = Counter()
    if "Relation Name" in plan and "Scan" in plan["Node Type"]:
        rows = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        found[plan["Relation Name"].removeprefix("annotation_")] += round(
            rows * plan["Actual Loops"]
        )
    for one in plan.get("Plans", ()):
        found.update(_rows_read(one))
    return found


def lower(to: int) -> dict[str, int]:
    """Want fewer answers to every comparison; those that have them already are closed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE annotation_comparison SET open_slots = open_slots + %s - answers_wanted, "
            "answers_wanted = %s WHERE open_slots + %s >= answers_wanted",
            [to, to, to],
        )
        changed = cursor.rowcount
    _settle()
    return {"changed": changed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["fill", "check", "explain", "lower"])
    parser.add_argument("--comparisons", type=int, default=10_000)
    parser.add_argument("--overlap", type=int, default=1)
    parser.add_argument("--labelers", type=int, default=64)
    parser.add_argument("--ahead", type=int, default=0)
    parser.add_argument("--claims", type=int, default=130)
    parser.add_argument("--to", type=int, default=1)
    asked = parser.parse_args()
    if asked.what == "fill":
        found: Any = fill(asked.comparisons, asked.overlap, asked.labelers, asked.ahead)
    elif asked.what == "lower":
        found = lower(asked.to)
    else:
        found = check() if asked.what == "check" else explain(asked.claims)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
