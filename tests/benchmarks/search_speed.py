"""How long a search takes in a large ledger: the page whole, as an admin sees it.

    python tests/with_postgres.py python tests/benchmarks/search_speed.py --data DIR
        [--comparisons 200000] [--queries 300]

DIR, by default CONCORD_SHARED_DATA, holds hh-rlhf/ and oasst1/. The database is the environment's;
without DATABASE_URL that is SQLite. Comparisons are made in bulk, with the texts of the data in new
pairings, a fifth of them Chinese: with five answers each they would be a million answers. Queries
are words as often as they stand there, pairs of words, phrases, and two and three Chinese
characters, half of them narrowed by a language or a tag. Prints Markdown.
"""

import argparse
import gzip
import json
import os
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotation.settings")
os.environ.setdefault("CONCORD_MODE", "laptop")

import django  # noqa: E402

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.utils.http import urlencode  # noqa: E402

from annotation.models import (  # noqa: E402
    Comparison,
    ComparisonCompletion,
    Completion,
    Project,
    Prompt,
    SearchText,
    User,
)
from annotation.services.ledger import batch_for  # noqa: E402
from annotation.services.projects import add_member, create_project  # noqa: E402
from annotation.services.search import tag_comparisons  # noqa: E402
from annotation.services.search_text import index_texts  # noqa: E402

AT_ONCE = 2000
LONGEST_TEXT = 400
CHINESE = 0.2
TAGGED = 3000


def texts(data: Path) -> tuple[list[str], list[str]]:
    """(English turns, Chinese messages) of moderate length."""
    english: list[str] = []
    with gzip.open(
        data / "hh-rlhf" / "harmless-base-test.jsonl.gz", "rt", encoding="utf-8"
    ) as file:
        for line in file:
            turns = re.split(r"\n\n(?:Human|Assistant):", json.loads(line)["chosen"])
            english += [turn.strip() for turn in turns if 20 <= len(turn.strip()) <= LONGEST_TEXT]
    chinese: list[str] = []
    for path in sorted((data / "oasst1").glob("*zh*")):
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as file:
            found = re.findall(r'"((?:[^"\\]|\\.)*)"', file.read())
        chinese += [
            one[:LONGEST_TEXT]
            for one in (json.loads(f'"{each}"') for each in found)
            if len(re.findall(r"[\u4e00-\u9fff]", one)) >= 10
        ]
    return english, chinese


def fill(project: Project, pools: Sequence[list[str]], count: int, draw: random.Random) -> None:
    source = project.sources.get()
    batch = batch_for(project=project, name="many", source=source)
    for start in range(0, count, AT_ONCE):
        numbers = range(start, min(count, start + AT_ONCE))
        chosen = [pools[draw.random() < CHINESE] for _ in numbers]
        prompts = Prompt.objects.bulk_create(
            Prompt(
                project=project,
                source=source,
                messages=[{"role": "user", "content": draw.choice(pool)}],
                language="zh" if pool is pools[1] else "en",
                content_hash=f"{number:064d}",
                split_group=str(number),
                split="train",
            )
            for number, pool in zip(numbers, chosen, strict=True)
        )
        completions = Completion.objects.bulk_create(
            Completion(prompt=prompt, source=source, text=draw.choice(pool), text_hash=str(place))
            for prompt, pool in zip(prompts, chosen, strict=True)
            for place in range(2)
        )
        comparisons = Comparison.objects.bulk_create(
            Comparison(
                project=project,
                batch=batch,
                prompt=prompt,
                purpose="production",
                content_hash=prompt.content_hash,
                open_slots=1,
                language=prompt.language,
                sort_key=draw.random(),
            )
            for prompt in prompts
        )
        pairs = list(zip(completions[::2], completions[1::2], strict=True))
        ComparisonCompletion.objects.bulk_create(
            ComparisonCompletion(comparison=comparison, completion=one, position=place)
            for comparison, pair in zip(comparisons, pairs, strict=True)
            for place, one in enumerate(pair)
        )
        index_texts(zip(comparisons, prompts, pairs, strict=True))


def queries(pools: Sequence[list[str]], draw: random.Random) -> Iterator[tuple[str, str]]:
    """(kind, text) for ever."""
    while True:
        words = re.findall(r"\w+", draw.choice(pools[0]))
        at = draw.randrange(max(1, len(words) - 1))
        yield "a word", draw.choice(words)
        yield "two words", f"{draw.choice(words)} {draw.choice(words)}"
        yield "a phrase of two", f'"{" ".join(words[at : at + 2])}"'
        for length in (2, 3):
            runs = re.findall(r"[\u4e00-\u9fff]{3,}", draw.choice(pools[1]))
            if runs:
                run = draw.choice(runs)
                at = draw.randrange(len(run) - length + 1)
                yield f"{length} Chinese characters", run[at : at + length]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("CONCORD_SHARED_DATA"))
    parser.add_argument("--comparisons", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=300)
    args = parser.parse_args()
    if args.data is None:
        parser.error("--data or CONCORD_SHARED_DATA names the folder of the real data")
    call_command("migrate", verbosity=0)
    admin, _ = User.objects.get_or_create(username="searcher")
    project = create_project(name="Many", slug=f"many-{int(time.time())}", by=admin)
    if not project.memberships.filter(user=admin).exists():
        add_member(project=project, user=admin, role="admin", by=None)
    draw = random.Random(0)
    pools = texts(args.data)
    began = time.perf_counter()
    fill(project, pools, args.comparisons, draw)
    took = time.perf_counter() - began
    some = project.comparisons.order_by("?").values_list("pk", flat=True)[:TAGGED]
    tag_comparisons(project=project, comparisons=list(some), name="odd", by=None)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    client = Client()
    client.force_login(admin)
    found: dict[str, list[float]] = {}
    for number, (kind, text) in enumerate(islice(queries(pools, draw), args.queries)):
        language = "zh" if "Chinese" in kind else "en"
        narrowed = ({}, {"language": language}, {}, {"tag": "odd"})[number % 4]
        address = f"/p/{project.slug}/search/?{urlencode({'text': text, **narrowed})}"
        began = time.perf_counter()
        response = client.get(address, HTTP_HOST="localhost")
        found.setdefault(kind, []).append(1000 * (time.perf_counter() - began))
        assert response.status_code in (200, 400), response.status_code
        found.setdefault("all", []).append(found[kind][-1])
    print(
        f"{args.comparisons:,} comparisons on {connection.vendor}, made and indexed in {took:.0f} "
        f"s, {SearchText.objects.count():,} in the index\n\n"
        "| query | median ms | p95 ms | slowest ms |\n| --- | ---: | ---: | ---: |"
    )
    for kind, times in found.items():
        at_95 = quantiles(times, n=20, method="inclusive")[-1] if len(times) > 1 else times[0]
        print(f"| {kind} | {median(times):.0f} | {at_95:.0f} | {max(times):.0f} |")


if __name__ == "__main__":
    main()
