"""`python -m workers.job_schemas`: writes annotation/job_schemas/KIND.json from the config classes,
and alarms.json from the laboratory's alarms.

The web process imports no laboratory, and still has to say what a job may be set to before it is
queued. What a setting means stands below its field; its limits are what the class itself says when
it is given a value beyond them, so that neither is written down twice.
"""

import ast
import dataclasses
import inspect
import json
import re
import textwrap
import types
import typing
from pathlib import Path
from typing import Any

import annotation.job_schemas
from annotation.job_schemas import PATH_SETTINGS
from policy import guard
from policy.alarms import SAYS
from policy.config import BadInput, PretrainConfig, SampleConfig, SFTConfig, config_from
from policy.ppo_config import PPOConfig
from rewardmodel.config import RewardConfig

CONFIGS: dict[str, type[Any]] = {
    "pretrain": PretrainConfig,
    "sft": SFTConfig,
    "reward": RewardConfig,
    "judge": RewardConfig,
    "ppo": PPOConfig,
    "sample": SampleConfig,
}
"""By kind of job, as annotation.models.JobKind spells it."""
IDLE: dict[str, tuple[str, ...]] = {
    "ppo": ("ptx_coef", "ptx_windows", "ptx_tokens"),  # beside ptx_data, which is a path
    "sample": (
        "n",
        "max_prompt_tokens",
        "rows_per_batch",
        "split",
    ),  # others say
}
"""Settings that would do nothing in a job of the kind, by kind."""
FOLDER = Path(annotation.job_schemas.__file__).parent
BEYOND: tuple[float, ...] = (-1, 10**9)
"""What no setting that has a limit on that side takes."""
NO_CHOICE = "?"
NUMBER = r"(-?[0-9.]+)"
FIRST_AND_LAST = re.compile(rf" must be in ([\[(]){NUMBER}, {NUMBER}([\])])")
AT_LEAST = re.compile(rf" must be (?:null or |0 or )?>= {NUMBER}")
ABOVE = re.compile(rf" must be (?:null or )?above {NUMBER}")
CHOICES = re.compile(r" must be (?:one of )?([\w, ]+)(?:: )")
TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", dict: "object"}


def schema_of(kind: str) -> dict[str, Any]:
    """The JSON Schema of a kind's config, but for settings that name paths, which no job may, and
    those that would do nothing."""
    config = CONFIGS[kind]
    meanings, hints = meanings_of(config), typing.get_type_hints(config)
    properties = {}
    for field in dataclasses.fields(config):
        if field.name in PATH_SETTINGS or field.name in IDLE.get(kind, ()):
            continue
        limits = limits_of(config, field.name, hints[field.name], field.default)
        properties[field.name] = {
            "description": meanings.get(field.name, ""),
            **_type_of(hints[field.name]),
            **limits,
            "default": field.default,
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": config.__name__,
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def meanings_of(config: type[Any]) -> dict[str, str]:
    """What stands below each field of a class, on one line."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(config))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def limits_of(config: type[Any], name: str, hint: Any, default: Any) -> dict[str, Any]:
    """minimum, maximum and the like, or enum, as the class words them; the default always fits."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if str in kinds:
        said = _refusal(config, name, NO_CHOICE)
        if said is None or not (found := CHOICES.search(said)):
            return {}
        words = [word for word in re.split(r", or |, | or ", found[1]) if word != "null"]
        return {"enum": [*words, *([None] if types.NoneType in kinds else [])]}
    if not {int, float} & set(kinds):
        return {}
    limits: dict[str, Any] = {}
    for value in BEYOND:
        limits |= _limits_in(_refusal(config, name, value) or "", whole=float not in kinds)
    if isinstance(default, int | float) and default < limits.get("minimum", default):
        limits["minimum"] = default  # 0 stands for what another setting says
    return limits


def _refusal(config: type[Any], name: str, value: Any) -> str | None:
    try:
        config_from(config, {name: value})
    except BadInput as error:
        return str(error) if str(error).startswith(f"{name} must be ") else None
    return None


def _limits_in(said: str, *, whole: bool) -> dict[str, Any]:
    """The limits that a refusal tells. whole: of a setting of whole numbers."""
    if found := FIRST_AND_LAST.search(said):
        low, high = _number(found[2]), _number(found[3])
        return {
            "minimum" if found[1] == "[" else "exclusiveMinimum": low,
            "maximum" if found[4] == "]" else "exclusiveMaximum": high,
        }
    if found := AT_LEAST.search(said):
        return {"minimum": 0 if " 0 or >= " in said else _number(found[1])}
    if found := ABOVE.search(said):
        least = _number(found[1])
        return {"minimum": least + 1} if whole else {"exclusiveMinimum": least}
    return {}


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


def _type_of(hint: Any) -> dict[str, Any]:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    names: list[str] = []
    inner: dict[str, Any] = {}
    for kind in kinds:
        if kind is types.NoneType:
            names.append("null")
        elif typing.get_origin(kind) is list:
            names.append("array")
            inner["items"] = {"type": TYPES[typing.get_args(kind)[0]]}
        elif typing.get_origin(kind) is dict:
            names.append("object")
            inner["additionalProperties"] = {"type": TYPES[typing.get_args(kind)[1]]}
        else:
            names.append(TYPES[kind])
    return {"type": names[0] if len(names) == 1 else names, **inner}


def text_of(kind: str) -> str:
    """A schema as its file holds it."""
    return json.dumps(schema_of(kind), ensure_ascii=False, indent=2) + "\n"


def alarms_text() -> str:
    """What each kind of alarm says, as alarms.json holds it."""
    says = {name: {"healthy": said.healthy, "help": said.help} for name, said in SAYS.items()}
    says["num_skipped"] = {"healthy": guard.HEALTHY, "help": guard.HELP}
    return json.dumps(says, ensure_ascii=False, indent=2) + "\n"


def write_schemas() -> None:
    """Write one file for each kind of job, and one for the alarms."""
    (FOLDER / "alarms.json").write_text(alarms_text(), encoding="utf-8")
    for kind in CONFIGS:
        (FOLDER / f"{kind}.json").write_text(text_of(kind), encoding="utf-8")


if __name__ == "__main__":
    write_schemas()
