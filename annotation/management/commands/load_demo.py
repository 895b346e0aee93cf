"""python manage.py load_demo: the demo project, for a laptop; running it again changes nothing.

Everything it loads lies in fixtures/ (see fixtures/README.md) and goes through the same services as
anybody's data. It is one transaction: either the demo project is whole or it isn't there.
"""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from tqdm import tqdm

from annotation.importers.stores import demonstration_store, source_for
from annotation.models import (
    Batch,
    Comparison,
    GoldUse,
    JobKind,
    Project,
    Prompt,
    Purpose,
    RetrainRule,
    Role,
    Source,
    Split,
    User,
)
from annotation.services.audit import record
from annotation.services.gold import completion_ids, make_gold, vote_on_gold
from annotation.services.jobs import request_training
from annotation.services.ledger import (
    add_imported_completions,
    add_prompt,
    batch_for,
    open_comparison,
)
from annotation.services.live_setup import change_setup
from annotation.services.projects import add_member, create_project
from annotation.services.rankings import AxisRanking

SLUG = "demo"
DESCRIPTION = (
    "A customer-service assistant in English and Chinese, written for Concord: train it by "
    "choosing the better answer."
)
GUIDELINE_EN = """\
**Which answer would help this customer more?** Read the question, then the answers, then choose.

1. **Helpful** comes first: it speaks of the product and the problem the customer named, and says \
what happens next. A wrong product or a wrong remedy loses against anything right.
2. **Polite**: a greeting, an apology or a word of willingness, thanks. Once is enough.
3. **To the point**: nothing repeated, nothing about other products. Longer is not better.

*Tie*: you would be as happy with either. *Both bad*: neither would help. *Cannot tell*: you do \
not understand the question. *More than two answers*: give each its place, 1 is the best; answers \
that are as good share a place.
"""
GUIDELINE_ZH = """\
**哪个回答对这位顾客更有帮助？** 先读问题，再读各个回答，然后选择。

1. **有帮助**最重要：说到顾客提到的商品和问题，并说明下一步怎么做。商品或办法说错了，就不如说对的。
2. **有礼貌**：问候、道歉或表示愿意帮忙、感谢，各一次就够。
3. **切题**：不重复，不提别的商品。长不等于好。

*平局*：两个回答一样好。*都不好*：哪个都帮不上忙。*无法判断*：看不懂问题。*多于两个回答*：\
给每个回答排名次，1 为最好；一样好的回答名次相同。
"""
MEMBERS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("labeler", Role.LABELER, ("en",)),
    ("labeler-zh", Role.LABELER, ("zh",)),
    ("reviewer", Role.REVIEWER, ()),
    ("admin", Role.ADMIN, ()),
    ("researcher", Role.RESEARCHER, ()),
)
"""User name, role, languages read (none = any). The password is the name and "-demo"."""
PRACTICE: dict[str, dict[str, str]] = {
    "rude": {
        "en": "Both say what happens next, but one scolds the customer. Rule 2: a greeting or a "
        "word of willingness, never blame.",
        "zh": "两个回答都说明了下一步，但其中一个在责备顾客。"
        "第 2 条：要有问候或愿意帮忙的话，不能责备。",
    },
    "half": {
        "en": "One stops half-way: the customer does not learn what comes after the first step. "
        "Rule 1 wants both what to do and what happens next.",
        "zh": "其中一个只说了一半，顾客不知道第一步之后会怎样。第 1 条要求既说怎么做，也说下一步。",
    },
    "repeating": {
        "en": "One says the same thing several times. Rule 3: longer is not better.",
        "zh": "其中一个把同样的话说了好几遍。第 3 条：长不等于好。",
    },
    "no_product": {
        "en": "Only one names the product that the customer asked about. Rule 1: it speaks of the "
        "product and the problem that were named.",
        "zh": "只有一个回答说到了顾客所问的商品。第 1 条：要说到顾客提到的商品和问题。",
    },
}
"""A writer that fails in one way, set against a helpful one, and what the two experts say to it."""
EXPERTS = ("admin", "reviewer")
LICENCE = "own work, as the repository"
OPEN_PER_SPLIT = {Split.TRAIN: 456, Split.DEV: 40, Split.TEST: 40}
"""Prompts that labeling starts with; those of dev and test are for evaluation only."""
LIST_OF = 7
"""A prompt's completions are asked about in lists of so many, as far as they go. The loss counts
every comparison once: a list says more for its weight than a pair does."""
PAIRS_TO_BEGIN_WITH = 60
"""Prompts that two of the completions are asked about by themselves, before any list."""
RETRAIN_AFTER = 50
"""New answers until the demo's reward model is due."""

Row = dict[str, Any]


class Command(BaseCommand):
    help = "Load the demo project: prompts, completions, users, open comparisons, first jobs."

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.LAPTOP:
            raise CommandError(
                "The demo has known passwords and is for a laptop alone: CONCORD_MODE is "
                f"{settings.MODE!r}.",
                returncode=2,
            )
        if Project.objects.filter(slug=SLUG).exists():
            self.stdout.write("The demo project is there already.")
            return
        with transaction.atomic():
            project = load(Path(settings.FIXTURES_DIR))
        self.stdout.write(
            f"The demo project has {project.prompts.count():,} prompts and "
            f"{project.comparisons.open().count():,} open comparisons."
        )


def load(fixtures: Path) -> Project:
    """Make the project from a folder of fixtures. Raises CommandError for a missing file."""
    users = {name: _user(name) for name, _, _ in MEMBERS}
    admin = users["admin"]
    project = create_project(
        name="Demo: customer service",
        slug=SLUG,
        by=admin,
        description=DESCRIPTION,
        guideline={"en": GUIDELINE_EN, "zh-hans": GUIDELINE_ZH},
    )
    for name, role, languages in MEMBERS:
        if users[name] != admin:
            add_member(project=project, user=users[name], role=role, by=admin, languages=languages)
    project.auto_promote = True
    project.job_defaults = _configs(fixtures / "configs")
    project.catch_alike = False  # its short answers are meant to differ by a word
    project.save(update_fields=["auto_promote", "job_defaults", "catch_alike"])
    RetrainRule.objects.filter(project=project).update(after_preferences=RETRAIN_AFTER)

    change_setup(project=project, changes={"max_new_tokens": 96}, is_open=True, by=admin)
    source = source_for(project=project, name="fixtures", licence=LICENCE)
    _load_rows(project, source, fixtures)
    record(action="demo.load", target=project, project=project, actor=admin)
    request_training(
        project=project,
        kind=JobKind.PRETRAIN,
        inputs={"data": ["corpus.jsonl"]},
        reason="first start of the demo",
        by=admin,
    )
    request_training(project=project, kind=JobKind.SFT, reason="first start of the demo", by=admin)
    return project


def _user(name: str) -> User:
    """The demo user of this name; one who is there already keeps their password."""
    user, created = User.objects.get_or_create(username=name)
    if created:
        user.set_password(f"{name}-demo")
        user.is_staff = user.is_superuser = name == "admin"
        user.language = "zh-hans" if name.endswith("-zh") else ""
        user.save()
    return user


def _configs(folder: Path) -> Row:
    """Training settings per job kind: sft.json and so on."""
    paths = {kind: folder / f"{kind}.json" for kind in JobKind.values}
    return {kind: _json(path) for kind, path in paths.items() if path.is_file()}


def _load_rows(project: Project, source: Source, fixtures: Path) -> None:
    prompts = {row["id"]: row for row in _read(fixtures / "prompts.jsonl")}
    completions = _read(fixtures / "completions.jsonl")
    written = {
        prompt_id: list(rows)
        for prompt_id, rows in groupby(completions, key=lambda row: row["prompt_id"])
    }
    demonstrations = list(_read(fixtures / "demonstrations.jsonl"))
    opened = list(_chosen(prompts, written))
    total = len(prompts) + len(demonstrations) + len(opened)
    with tqdm(total=total, unit="row", disable=None, desc="demo project") as bar:
        stored = {}
        for prompt_id, row in prompts.items():
            stored[prompt_id] = _prompt(project, source, row)
            bar.update()
        keep = demonstration_store(project=project, source=source)
        for row in demonstrations:
            keep(row)
            bar.update()
        batches = {
            (purpose, kind): batch_for(
                project=project,
                name=f"fixtures, {purpose}, {kind}",
                source=source,
                purpose=purpose,
                priority=priority,
            )
            for purpose in (Purpose.PRODUCTION, Purpose.EVALUATION)
            for kind, priority in (("pairs", 0), ("lists", -1))  # pairs are easier to begin with
        }
        for prompt_id, rows in opened:
            prompt = stored[prompt_id]
            purpose = Purpose.PRODUCTION if prompt.split == Split.TRAIN else Purpose.EVALUATION
            _open(batches[purpose, "pairs" if len(rows) == 2 else "lists"], prompt, rows)
            bar.update()
        _make_practice(source, stored, written)


def _make_practice(
    source: Source, stored: dict[str, Prompt], written: dict[str, list[Row]]
) -> None:
    """A question per lesson and language, on prompts that real work does not ask about."""
    batch = batch_for(project=source.project, name="fixtures, practice", source=source)
    experts = [User.objects.get(username=name) for name in EXPERTS]
    taken: set[str] = set()
    for writer, lessons in PRACTICE.items():
        for language, why in lessons.items():
            found = _pair(writer, language, stored, written, taken)
            if found is None:  # a test's handful of prompts
                continue
            prompt_id, rows = found
            taken.add(prompt_id)
            origin = _open(batch, stored[prompt_id], rows, answers_wanted=0)
            item = make_gold(comparison=origin, use=GoldUse.PRACTICE, by=experts[0])
            best = [[one] for one in completion_ids(item.comparison)]
            for expert in experts:
                explanation = why if expert == experts[0] else ""
                vote_on_gold(
                    item=item,
                    by=expert,
                    rankings=[AxisRanking(groups=best)],
                    explanation=explanation,
                )


def _pair(
    writer: str,
    language: str,
    stored: dict[str, Prompt],
    written: dict[str, list[Row]],
    taken: set[str],
) -> tuple[str, list[Row]] | None:
    """The first train prompt in the language with a helpful completion and one of the writer."""
    for prompt_id, rows in written.items():
        prompt = stored.get(prompt_id)
        if prompt is None or prompt_id in taken:
            continue
        if (prompt.split, prompt.language) != (Split.TRAIN, language):
            continue
        of = {row["writer"]: row for row in rows}
        if {"helpful", writer} <= set(of):
            return prompt_id, [of["helpful"], of[writer]]
    return None


def _prompt(project: Project, source: Source, row: Row) -> Prompt:
    prompt, _ = add_prompt(
        project=project,
        source=source,
        messages=row["prompt"],
        task=row["task"],
        language=row["language"],
        metadata=row["metadata"],
        external_id=row["id"],
        split=row["split"],
    )
    return prompt


def _chosen(
    prompts: dict[str, Row], written: dict[str, list[Row]]
) -> Iterator[tuple[str, list[Row]]]:
    """Prompts to open comparisons for, spread over all of a split, with the completions in each."""
    for split, number in OPEN_PER_SPLIT.items():
        fits = [
            prompt_id
            for prompt_id, row in prompts.items()
            if row["split"] == split and len(written.get(prompt_id, ())) >= 2
        ]
        chosen = _spread(fits, number)
        for prompt_id in chosen:
            rows = written[prompt_id]
            for start in range(0, len(rows) - 1, LIST_OF):
                yield prompt_id, rows[start : start + LIST_OF]
        if split == Split.TRAIN:
            for prompt_id in _spread(chosen, PAIRS_TO_BEGIN_WITH):
                yield prompt_id, [written[prompt_id][0], written[prompt_id][-1]]


def _open(
    batch: Batch, prompt: Prompt, rows: list[Row], answers_wanted: int | None = None
) -> Comparison:
    """answers_wanted: None = the project's."""
    comparison, _ = open_comparison(
        batch=batch,
        prompt=prompt,
        completions=add_imported_completions(
            prompt=prompt,
            source=batch.source,
            written=[(row["text"], row["writer"]) for row in rows],
        ),
        answers_wanted=batch.project.answers_wanted if answers_wanted is None else answers_wanted,
    )
    return comparison


def _spread(rows: list[Any], number: int) -> list[Any]:
    """`number` of the rows at equal distances, or all of them."""
    if len(rows) <= number:
        return rows
    return [rows[place * len(rows) // number] for place in range(number)]


def _read(path: Path) -> Iterator[Row]:
    if not path.is_file():
        raise CommandError(f"There is no {path}: python -m fixtures.make writes it.", returncode=2)
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
