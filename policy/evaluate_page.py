"""An evaluation as one HTML file: its figures, and answers to read side by side.

No script, nothing loaded from elsewhere (a policy in the file itself forbids both), and every text
of the data escaped: it was written by a model. Labels are in English and Chinese.
"""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from policy.answer_figures import Answered, outcome
from policy.data import PromptRow
from policy.rollout import REPEATED
from policy.run import generator_for

EXTREMES = 6
"""Prompts with the lowest and with the highest figure that are shown of each."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fbfaf7; --card: #fff; --line: #d9d6cf;
  --quiet: #5d6470; --own: #1f5fa8; --other: #a1501a; --good: #1a7040; --bad: #b03030; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e6e1; --paper: #15171a; --card: #1e2125;
  --line: #383d44; --quiet: #a0a7b2; --own: #8ab8f0; --other: #f0b184; --good: #7fd0a0;
  --bad: #f09090; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.2rem 1rem 4rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans",
  "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC",
  "WenQuanYi Micro Hei", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
small, .quiet { color: var(--quiet); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: start; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; }
thead th { color: var(--quiet); font-weight: 500; }
td small { display: block; white-space: nowrap; }
article { border: 1px solid var(--line); border-radius: .6rem; background: var(--card);
  margin: 0 0 1rem; overflow: hidden; }
.turn { padding: .6rem .9rem; border-bottom: 1px solid var(--line); }
.answers { display: grid; grid-template-columns: 1fr; }
.answers.two { grid-template-columns: 1fr 1fr; }
.answer { padding: .7rem .9rem .9rem; min-width: 0; border-top: 3px solid var(--own); }
.answer.against { border-top-color: var(--other); }
.answers.two .against { border-inline-start: 1px solid var(--line); }
.name { font-weight: 600; color: var(--own); }
.against .name { color: var(--other); }
.won { color: var(--good); } .lost { color: var(--bad); }
.text { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext; }
.text.empty { color: var(--quiet); font-style: italic; }
.meta { margin: .1rem 0 .5rem; font-size: .85rem; color: var(--quiet); overflow-wrap: anywhere; }
.path { overflow-wrap: anywhere; }
@media (max-width: 42rem) { .answers.two { grid-template-columns: 1fr; }
  .answers.two .against { border-inline-start: 0; } body { padding-inline: .7rem; } }
"""

ROLES = {
    "model": "Model · 模型",
    "against": "Against · 对照",
    "user": "User · 用户",
    "assistant": "Assistant · 助手",
    "system": "System · 系统",
}


def page(
    figures: Mapping[str, Any],
    found: Mapping[str, Answered],
    rows: Sequence[PromptRow],
    *,
    shown: int,
    seed: int,
) -> str:
    """The whole file. found: by role, `model` and maybe `against`, in the order of rows."""
    own = found["model"]
    n = len(own.answers) // len(rows)
    by = next(iter(own.scores))
    ranked = _ranked(found, by)
    order = torch.randperm(len(rows), generator=generator_for(seed, 0, "shown")).tolist()
    drawn = sorted(order[:shown])
    parts = [(f"Drawn by lot · 随机抽取 ({len(drawn)} / {len(rows)})", [row * n for row in drawn])]
    least, most = (
        ("Most lost · 输得最多", "Most gained · 赢得最多")
        if "against" in found
        else ("Lowest scores · 得分最低", "Highest scores · 得分最高")
    )
    parts += [(least, ranked[:EXTREMES]), (most, ranked[::-1][:EXTREMES])]
    cards = [
        f"<h2>{_text(title)}</h2>\n"
        + "\n".join(_card(rows[place // n], place, found, by) for place in places)
        for title, places in parts
        if places
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Answers of {_text(Path(figures['inputs']['model']['path']).name)}</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join([*_overview(figures), *cards])
        + "\n</body>\n</html>\n"
    )


def _ranked(found: Mapping[str, Answered], by: str) -> list[int]:
    """Places of answers from the least to the highest score, or gain, by this reward model."""
    own = found["model"].scores[by]
    other = found["against"].scores[by] if "against" in found else [0.0] * len(own)
    return sorted(range(len(own)), key=lambda place: own[place] - other[place])


def _overview(figures: Mapping[str, Any]) -> list[str]:
    wins = [_wins(figures)] if "comparison" in figures else []
    return [_head(figures), _table(figures), *wins]


def _head(figures: Mapping[str, Any]) -> str:
    config = figures["config"]
    how = (
        "greedy · 贪心" if config["temperature"] == 0 else f"temperature {config['temperature']:g}"
    )
    lines = [
        f"{ROLES[role]}: {figures['inputs'][role]['path']}"
        for role in ("model", "against")
        if role in figures
    ]
    if "reference" in figures["inputs"]:
        lines.append(f"Reference · 参考: {figures['inputs']['reference']['path']}")
    for each in figures["reward_models"]:
        weak = f" (weak: {each['weak']})" if each["weak"] else ""
        lines.append(f"Reward model · 奖励模型: {each['path']}{weak}")
    said = "<br>\n".join(_text(line) for line in lines)
    return (
        "<h1>Answers side by side <small>回答对照</small></h1>\n"
        f'<p class="quiet path">{said}</p>\n'
        f'<p class="quiet">{figures["num_prompts"]} prompts of split {_text(figures["split"])}, '
        f"{config['n']} each, {_text(how)}, seed {config['seed']}. "
        "Brackets hold 95 %, drawing prompts again · 方括号为按提示重抽的 95% 区间</p>"
    )


def _table(figures: Mapping[str, Any]) -> str:
    roles = [role for role in ("model", "against") if role in figures]
    lines: list[tuple[str, list[str]]] = []
    for at, each in enumerate(figures["reward_models"]):
        name = Path(each["path"]).name
        lines.append(
            (f"Score · 得分, {name}", [_mean(figures[role]["score"][at]) for role in roles])
        )
        cut = [figures[role]["score"][at]["num_read_cut"] for role in roles]
        if any(cut):
            lines.append((f"Scored cut · 截断后评分, {name}", [str(count) for count in cut]))
    for name in ("k1", "k3"):
        if any(figures[role]["kl_nats"] for role in roles):
            cells = [_mean((figures[role]["kl_nats"] or {}).get(name)) for role in roles]
            lines.append((f"KL, {name}, nats · 纳特", cells))
    for key, label in (
        ("response_tokens", "Tokens · 词元数"),
        ("response_characters", "Characters · 字符数"),
        ("without_end", "Without end token · 无结束符"),
        (f"repetition_{REPEATED}", f"Repeated {REPEATED}-grams · 重复"),
    ):
        lines.append((label, [_mean(figures[role][key]) for role in roles]))
    for key, label in (
        ("distinct_1", "distinct-1"),
        ("distinct_2", "distinct-2"),
        ("num_empty", "Empty answers · 空回答"),
        ("num_prompts_cut", "Prompts cut · 被截断的提示"),
    ):
        lines.append((label, [f"{figures[role][key]:.4g}" for role in roles]))
    head = "".join(f"<th>{_text(ROLES[role])}</th>" for role in roles)
    body = "\n".join(
        f"<tr><th>{_text(label)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for label, cells in lines
    )
    return (
        f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def _wins(figures: Mapping[str, Any]) -> str:
    body = "\n".join(
        f"<tr><th>{_text(Path(each['reward_model']).name)}</th><td>{_mean(each['win_rate'])}</td>"
        f"<td>{_mean(each['gain'])}</td>"
        f"<td>{each['num_wins']} / {each['num_ties']} / {each['num_losses']}</td></tr>"
        for each in figures["comparison"]
    )
    return (
        '<h2>Against · 对照</h2>\n<div class="scroll"><table><thead><tr><th></th>'
        "<th>Win rate, ties half · 胜率</th><th>Gain · 得分差</th>"
        "<th>Won / tied / lost · 胜 / 平 / 负</th></tr></thead>\n"
        f"<tbody>{body}</tbody></table></div>"
    )


def _mean(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    mean = _number(found["mean"])
    if found["interval"] is None:
        return mean
    low, high = map(_number, found["interval"])
    return f"{mean}<small>[{low}, {high}]</small>"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _card(row: PromptRow, place: int, found: Mapping[str, Answered], by: str) -> str:
    language = row.row.get("language")
    lang = f' lang="{_text(language)}"' if isinstance(language, str) and language else ""
    turns = "\n".join(
        f'<div class="turn"><small>{_text(ROLES[turn["role"]])}</small>'
        f'<div class="text"{lang} dir="auto">{_text(turn["content"])}</div></div>'
        for turn in row.messages
    )
    answers = "\n".join(_answer(role, place, found, by, lang) for role in found)
    two = " two" if len(found) == 2 else ""
    return f'<article>\n{turns}\n<div class="answers{two}">\n{answers}\n</div>\n</article>'


def _answer(role: str, place: int, found: Mapping[str, Answered], by: str, lang: str) -> str:
    answered = found[role]
    one = answered.answers[place]
    scores = ", ".join(
        f"{Path(name).name} {values[place]:+.3f}" for name, values in answered.scores.items()
    )
    said = [scores, *(f"KL {values[place]:.2f}" for values in list(answered.kl.values())[:1])]
    said.append(f"{len(one.sampled.tokens)} tokens · 词元")
    if one.sampled.finish != "end":
        said.append("cut · 被截断")
    if one.prompt.dropped_turns:
        said.append("prompt cut · 提示被截断")
    text = one.text if one.text.strip() else "(empty · 空)"
    empty = "" if one.text.strip() else " empty"
    return (
        f'<div class="answer {role}"><span class="name">{_text(ROLES[role])}</span>'
        f'{_verdict(role, place, found, by)}<p class="meta">{_text("; ".join(said))}</p>'
        f'<div class="text{empty}"{lang} dir="auto">{_text(text)}</div></div>'
    )


def _verdict(role: str, place: int, found: Mapping[str, Answered], by: str) -> str:
    if len(found) < 2:
        return ""
    other = "against" if role == "model" else "model"
    result = outcome(found[role].scores[by][place], found[other].scores[by][place])
    if result == 0.5:
        return " <small>tie · 平</small>"
    return ' <span class="won">▲</span>' if result else ' <span class="lost">▽</span>'


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
