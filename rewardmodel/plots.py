"""The pictures of a report, drawn without a screen. Each takes the data that is saved beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rewardmodel.fonts import OWN, families_for

BLUE, ORANGE, GREY = "#1f5fa8", "#c8611a", "#777777"
LONGEST_LABEL = 40


def _axes(title: str, x: str, y: str, *, height: float = 4.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    return figure, axes


def reliability_plot(found: Mapping[str, Any], path: Path) -> None:
    """Confidence against accuracy, before and after the temperature; equal-mass bins."""
    least = 1 / found["outcomes"]
    figure, axes = _axes(
        "Reliability, bins of equal mass",
        "confidence in the preferred one"
        if found["outcomes"] == 2
        else "confidence in the likeliest of better, tie, worse",
        "share of votes for it",
    )
    axes.plot([least, 1], [least, 1], color=GREY, linestyle=":", label="calibrated")
    for key, error, colour, mark, name in (
        ("reliability", "ece", ORANGE, "o", "temperature 1"),
        ("reliability_calibrated", "ece_calibrated", BLUE, "s", "fitted temperature"),
    ):
        axes.plot(
            [each["confidence"] for each in found[key]],
            [each["accuracy"] for each in found[key]],
            color=colour,
            marker=mark,
            label=f"{name}, ECE {found[error]['equal_mass']:.3f}",
        )
    axes.set_xlim(least - 0.02, 1.02)
    axes.legend()
    figure.savefig(path)


def tie_reliability_plot(found: Mapping[str, Any], path: Path) -> None:
    """The probability of a tie against how often votes tie; equal-mass bins."""
    figure, axes = _axes(
        "Reliability of ties, bins of equal mass", "probability of a tie", "share of ties"
    )
    bins = found["tie_reliability"]
    top = max(max(each["confidence"], each["accuracy"]) for each in bins)
    axes.plot([0, top], [0, top], color=GREY, linestyle=":", label="calibrated")
    axes.plot(
        [each["confidence"] for each in bins],
        [each["accuracy"] for each in bins],
        color=BLUE,
        marker="o",
        label=f"ECE {found['tie_ece']:.3f}",
    )
    axes.legend()
    figure.savefig(path)


def slices_plot(parts: Sequence[Mapping[str, Any]], by: str, whole: float, path: Path) -> None:
    """A bar of accuracy for each part, with its interval and the accuracy of all."""
    title = _label(by, "a label of the data, see the card")
    figure, axes = _axes("", "accuracy", "", height=1.4 + 0.34 * len(parts))
    axes.set_title(f"Accuracy by {title.text}", fontsize=11, fontfamily=title.families)
    places = range(len(parts))
    for place, part in zip(places, parts, strict=True):
        axes.plot(part["accuracy"], place, "o", color=BLUE)
        if part["accuracy_interval"]:
            axes.plot(part["accuracy_interval"], [place, place], color=BLUE)
    axes.axvline(whole, color=GREY, linestyle=":", label=f"all, {whole:.3f}")
    axes.axvline(0.5, color=GREY, linewidth=0.8)
    labels = [
        _label(part["part"], f"line {place + 1} of the table") for place, part in enumerate(parts)
    ]
    named = [f"{label.text} (n {part['n']})" for label, part in zip(labels, parts, strict=True)]
    axes.set_yticks(list(places), named)
    for drawn, label in zip(axes.get_yticklabels(), labels, strict=True):
        drawn.set_fontfamily(label.families)
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.legend(loc="best", fontsize=8)
    figure.savefig(path)


def best_of_n_plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """What the highest of n scores is worth, beside what knowing the votes would reach."""
    figure, axes = _axes("Best of n", "n", "mean share of votes above the others")
    n = [row["n"] for row in rows]
    axes.plot(n, [row["best"] for row in rows], color=GREY, marker="^", label="by the votes")
    axes.plot(n, [row["worth"] for row in rows], color=BLUE, marker="o", label="by the score")
    if all(row["worth_interval"] for row in rows):
        low, high = zip(*(row["worth_interval"] for row in rows), strict=True)
        axes.fill_between(n, low, high, color=BLUE, alpha=0.15)
    axes.set_xticks(n)
    axes.legend()
    figure.savefig(path)


def drift_plot(scores: Sequence[tuple[float, float]], names: tuple[str, str], path: Path) -> None:
    """Scores of the anchors by one model against those by the other, from pairs of both."""
    new, old = zip(*scores, strict=True)
    figure, axes = _axes("Scores of the anchors", "", "")
    across, up = _label(f"score by {names[1]}", "old"), _label(f"score by {names[0]}", "new")
    axes.set_xlabel(across.text, fontfamily=across.families)
    axes.set_ylabel(up.text, fontfamily=up.families)
    axes.plot(old, new, ".", color=BLUE, alpha=0.6)
    ends = [min(*old, *new), max(*old, *new)]
    axes.plot(ends, ends, color=GREY, linestyle=":")
    figure.savefig(path)


def curve_plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy against the comparisons trained on, on a logarithmic axis."""
    figure, axes = _axes("Learning curve", "comparisons trained on", "accuracy")
    n = [row["num_comparisons"] for row in rows]
    axes.plot(n, [row["accuracy"] for row in rows], color=BLUE, marker="o")
    for row in rows:
        if row["accuracy_interval"]:
            axes.plot([row["num_comparisons"]] * 2, row["accuracy_interval"], color=BLUE)
    axes.axhline(0.5, color=GREY, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks(n, [str(each) for each in n])
    axes.minorticks_off()
    figure.savefig(path)


class Label(NamedTuple):
    """Text as it is drawn."""

    text: str
    families: list[str]


def _label(text: str, otherwise: str) -> Label:
    """Text of the data on one line, in fonts that this machine has; else what says where to read
    it. Dollars stand for themselves."""
    line = " ".join(text.split())
    line = line if len(line) <= LONGEST_LABEL else line[: LONGEST_LABEL - 1] + "…"
    families = families_for(line)
    if families is None:
        line, families = otherwise, [OWN]
    return Label(line.replace("$", r"\$"), families)
