"""A folder that says how good a reward model is: README.md, pictures, and the data behind them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policy.files import appearing
from rewardmodel.plots import (
    best_of_n_plot,
    drift_plot,
    reliability_plot,
    slices_plot,
    tie_reliability_plot,
)


def write_report(
    figures: Mapping[str, Any], folder: Path, *, drifted: Sequence[tuple[float, float]] = ()
) -> None:
    """figures: the JSON of `evaluate`. drifted: scores of the anchors by the model and
    by the one it is compared with, where there is one.

    Files of an earlier report are replaced; whatever else the folder holds is left alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with appearing(folder / "evaluation.json") as file:
        json.dump(figures, file, indent=2, ensure_ascii=False)
    pictures: dict[str, str] = {}
    if (calibration := figures["calibration"]) is not None:
        pictures["Reliability"] = "reliability.png"
        reliability_plot(calibration, folder / "reliability.png")
        _csv(
            folder / "reliability.csv",
            [
                {"temperature": temperature, **each}
                for temperature, key in (
                    (1.0, "reliability"),
                    (calibration["temperature"], "reliability_calibrated"),
                )
                for each in calibration[key]
            ],
        )
        if "tie_reliability" in calibration:
            pictures["Reliability of ties"] = "tie-reliability.png"
            tie_reliability_plot(calibration, folder / "tie-reliability.png")
            _csv(folder / "tie-reliability.csv", calibration["tie_reliability"])
    for by, parts in figures["slices"].items():
        if not parts:
            continue  # of a handful of rows none may be in a slice
        name = f"accuracy-by-{_file_name(by)}"
        pictures[f"Accuracy by {by}"] = f"{name}.png"
        slices_plot(parts, by, figures["accuracy"], folder / f"{name}.png")
        _csv(folder / f"{name}.csv", [_flat(part) for part in parts])
    if figures["best_of_n"]:
        pictures["Best of n"] = "best-of-n.png"
        best_of_n_plot(figures["best_of_n"], folder / "best-of-n.png")
        _csv(folder / "best-of-n.csv", [_flat(row) for row in figures["best_of_n"]])
    if "drift" in figures:
        pictures["Scores of the anchors"] = "drift.png"
        names = (Path(figures["model"]).name, Path(figures["against"]["model"]).name)
        drift_plot(drifted, names, folder / "drift.png")
        _csv(folder / "drift.csv", [{"new": new, "old": old} for new, old in drifted])
    with appearing(folder / "README.md") as file:
        file.write(card(figures, pictures))


def card(figures: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """The model card: what was measured on what, in Markdown."""
    scale = figures["score_scale"]
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        "tags: [reward-model]",
        "---",
        "",
        "# Reward model",
        "",
        "Gives an answer to a prompt one score; higher is what people would rather have. "
        f"P(a over b) = sigmoid({_short(scale['deviation'])} x (score a - score b) / "
        f"{_short(scale['temperature'])}){_ties_sentence(figures)}.",
        "",
        f"Scores have mean 0 and deviation 1 on {scale['num_anchors']} anchor texts "
        f"(sha256 `{scale['anchors_sha256']}`)."
        if scale["folded"] != "nothing"
        else "Scores are as trained: they are not normalised.",
        _shift_line(scale, several="ensemble" in figures),
        "",
        f"Measured on split {figures['split']} of the data with sha256 `{figures['data_sha256']}`: "
        f"{figures['n']} comparisons in {figures['num_groups']} groups, {figures['num_answers']} "
        f"answers.{_shortened_sentence(figures)} Intervals hold {figures['interval_share']:.0%} "
        "and draw groups.",
        "",
        "| figure | value | interval |",
        "| --- | --- | --- |",
        *_pair_lines(figures),
        *_judgment_lines(figures.get("judgments", {})),
        *_calibration_lines(figures["calibration"]),
        *_slope_lines(figures["reliability_slope"]),
        *_ceiling_lines(figures["ceiling"]),
        *_axes_lines(figures.get("axes", {})),
        *_against_lines(figures.get("against")),
        *_drift_lines(figures.get("drift")),
        *_correlation_lines(figures["correlations"]),
        *_length_lines(figures["length_bias"]),
        *_batch_lines(figures["batches"]),
        "",
        *_slices_lines(figures["slices"]),
        *(line for name, file in pictures.items() for line in (f"![{name}]({file})", "")),
    ]
    return "\n".join(lines)


def _shift_line(scale: Mapping[str, Any], *, several: bool) -> str:
    if several:
        return (
            "It is an ensemble: Hugging Face's own class reads its members, and ensemble.json says "
            "how their scores become one."
        )
    if scale["axes"]:
        weights = ", ".join(f"{_short(axis['weight'])} x {axis['name']}" for axis in scale["axes"])
        return (
            "Hugging Face's own class gives each axis a logit; the score is their weighted sum, "
            f"each at deviation 1: {weights}."
        )
    if scale["folded"] != "config":
        return "Hugging Face's own class computes the same scores."
    return (
        f"Hugging Face's own class computes scores that are {-scale['shift']:+.6g} apart from "
        "these, the same for every text: the model has no bias that could hold the shift."
    )


def _shortened_sentence(figures: Mapping[str, Any]) -> str:
    count = figures["num_lists_shortened"]
    return f" Lists without a completion that is too long for the model: {count}." if count else ""


def _ties_sentence(figures: Mapping[str, Any]) -> str:
    """By Davidson's model, losses.pair_logprobs."""
    ties = figures.get("three_outcomes")
    if ties is None:
        return ""
    return (
        f", where the two are not tied; P(a) : P(tie) : P(b) = e^(d/2) : {_short(ties['nu'])} : "
        "e^(-d/2), d being that difference"
    )


def _pair_lines(figures: Mapping[str, Any]) -> list[str]:
    if not figures["n"] and "three_outcomes" not in figures:
        return []
    lines = []
    if figures["n"]:
        lines.append(_row("accuracy", figures["accuracy"], figures["accuracy_interval"]))
    if (ties := figures.get("three_outcomes")) is None:
        lines.append(_row("log loss, nats", figures["log_loss"], figures["log_loss_interval"]))
        return lines
    lines += [
        _row("log loss with ties, nats", ties["log_loss"], ties["log_loss_interval"]),
        _row("accuracy with ties, of three", ties["accuracy"], ties["accuracy_interval"]),
        _row("share of ties", ties["tie_share"]),
        _row("probability of a tie, mean", ties["tie_probability"]),
    ]
    if figures["n"]:
        strict = figures["strict_log_loss"], figures["strict_log_loss_interval"]
        lines.append(_row("log loss of strict votes, nats", *strict))
    return lines


def _judgment_lines(judgments: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, found in judgments.items():
        named = f"{name}, {found['num_judgments']} judgments"
        if "n" in found:
            lines += [
                _row(f"{named}: accuracy", found["accuracy"], found["accuracy_interval"]),
                _row(f"{name}: the commonest level's share", found["commonest_share"]),
                _row(f"{name}: log loss, nats", found["log_loss"], found["log_loss_interval"]),
                _row(f"{name}: entropy of the levels, nats", found["entropy"]),
            ]
        if found["spearman"] is not None:
            lines.append(_row(f"{named}: score and level, Spearman", found["spearman"]))
    return lines


def _calibration_lines(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    lines = [
        _row("ECE, ten bins of equal mass, temperature 1", found["ece"]["equal_mass"]),
        _row("ECE, equal mass, fitted temperature", found["ece_calibrated"]["equal_mass"]),
        _row("ECE, equal width, temperature 1", found["ece"]["equal_width"]),
        _row("ECE, equal width, fitted temperature", found["ece_calibrated"]["equal_width"]),
        _row("temperature", found["temperature"]),
    ]
    if "tie_ece" in found:
        lines.append(_row("ECE of the probability of a tie", found["tie_ece"]))
    return lines


def _slope_lines(found: Mapping[str, Any] | None) -> list[str]:
    """1 where the model is as sure as it is right, at temperature 1."""
    if found is None:
        return []
    name = "log odds times this would be right (1 = calibrated, less = too sure)"
    return [_row(name, found["slope"], found["interval"])]


def _length_lines(found: Mapping[str, Any]) -> list[str]:
    if not found:
        return []
    lines = [
        _row(f"{whose} and length margin, correlation over {found['num_pairs']} pairs", found[key])
        for whose, key in (
            ("score margin", "correlation"),
            ("people's margin", "correlation_of_votes"),
        )
        if found[key] is not None
    ]
    return [
        *lines,
        _row("the longer text wins, as the model expects", found["longer_expected"]),
        _row("the longer text wins, by the votes", found["longer_preferred"]),
    ]


def _batch_lines(found: Mapping[str, Any]) -> list[str]:
    if not found["num_completions"]:
        return []
    name = f"a score alone and in a batch, largest difference of {found['num_completions']}"
    return [f"| {name} | {found['largest_difference']:.1e} | |"]


def _ceiling_lines(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    on = f"on {found['n']} comparisons with several votes"
    return [
        _row(f"the model, {on}", found["model"], found["model_interval"]),
        _row("a vote against the majority of the others", found["human"], found["human_interval"]),
        _row("no order can beat", found["majority"], found["majority_interval"]),
    ]


def _axes_lines(axes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, found in axes.items():
        if found["n"]:
            named = f"accuracy of axis {name}, {found['n']} comparisons"
            lines.append(_row(named, found["accuracy"], found["accuracy_interval"]))
        if (ties := found.get("three_outcomes")) is not None:
            loss = ties["log_loss"], ties["log_loss_interval"]
            lines += [
                _row(f"axis {name}: log loss with ties, nats", *loss),
                _row(f"axis {name}: share of ties", ties["tie_share"]),
                _row(f"axis {name}: nu of Davidson's model", ties["nu"]),
            ]
    return lines


def _against_lines(found: Mapping[str, Any] | None) -> list[str]:
    if not found or not found["n"]:
        return []
    name = Path(found["model"]).name
    return [
        _row(
            f"{figure} minus {name}'s, {found['n']} pairs",
            found[key],
            found[f"{key}_interval"],
        )
        for figure, key in (
            ("accuracy", "accuracy_difference"),
            ("log loss", "log_loss_difference"),
        )
    ]


def _drift_lines(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    return [
        _row(f"drift on {found['num_texts']} anchors, mean", found["mean"]),
        _row("drift, deviation", found["deviation"]),
    ]


def _correlation_lines(found: Mapping[str, Any]) -> list[str]:
    names = {
        "length_within": "score and length within a comparison, Spearman",
        "length": "score and length, Spearman",
        "position_within": "score and place in the row, within a comparison, Spearman",
    }
    return [_row(name, found[key]["spearman"]) for key, name in names.items() if found[key]]


def _slices_lines(slices: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    lines = []
    for by, parts in slices.items():
        lines += [f"| {_cell(by)} | n | accuracy | interval |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {_cell(part['part'])} | {part['n']} | {part['accuracy']:.3f} | "
            f"{_interval(part['accuracy_interval'])} |"
            for part in parts
        ]
        lines.append("")
    return lines


def _row(name: str, value: float, interval: Sequence[float] | None = None) -> str:
    return f"| {_cell(name)} | {value:.3f} | {_interval(interval)} |"


def _interval(interval: Sequence[float] | None) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _short(value: float) -> str:
    return f"{value:.4g}"


def _file_name(label: str) -> str:
    """A label of the data as a part of a file's name."""
    return "".join(sign if sign.isalnum() else "-" for sign in label)[:60]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Intervals as two columns."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name.endswith("_interval"):
            flat[f"{name}_low"], flat[f"{name}_high"] = value or (None, None)
        else:
            flat[name] = value
    return flat


def _csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with appearing(path) as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
