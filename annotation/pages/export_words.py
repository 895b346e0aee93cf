"""What datasets are called on pages: formats, kinds of files, the buckets of the funnel."""

from django.utils.translation import gettext_lazy

FORMATS = {
    "trl": gettext_lazy("TRL: prompt, chosen, rejected, margin"),
    "unpaired": gettext_lazy("TRL unpaired: prompt, completion, label"),
    "sft": gettext_lazy("Conversations with ideal answers"),
    "comparisons": gettext_lazy("Comparisons with all their votes"),
    "raw": gettext_lazy("Raw: one row per vote"),
}
SNAPSHOTS = {
    "comparisons": gettext_lazy("Comparisons"),
    "prompts": gettext_lazy("Prompts"),
    "demonstrations": gettext_lazy("Ideal answers"),
}
"""What a snapshot can hold."""
FILE_KINDS = {
    "jsonl": gettext_lazy("JSON lines"),
    "parquet": gettext_lazy("Parquet, typed and compressed"),
}
DROPPED = {
    "trl": gettext_lazy(
        "drops ties, both bad, cannot tell, single judgments, who wrote an answer, and what was "
        "not ranked"
    ),
    "unpaired": gettext_lazy(
        "drops the order on one side of the line, what lies between first and last where no line "
        "was drawn, ties and ratings"
    ),
    "sft": gettext_lazy("drops the votes: these are the ideal answers alone"),
    "comparisons": gettext_lazy(
        "drops votes that are void, revised, of gold or filtered out, with times, notes and "
        "guidelines"
    ),
    "raw": gettext_lazy(
        "drops prompts and comparisons without a vote, and who a person is; from it an equal "
        "ledger can be made again"
    ),
}
"""What each format leaves out, in one sentence; exporters/columns.py has it for the card."""
BUCKETS = {
    "trained": gettext_lazy("for training"),
    "dev": gettext_lazy("dev"),
    "test": gettext_lazy("test"),
    "evaluation": gettext_lazy("evaluation on a train prompt"),
    "gold": gettext_lazy("gold"),
    "qualification": gettext_lazy("qualification"),
    "repeat": gettext_lazy("repeat"),
    "superseded": gettext_lazy("revised since"),
    "voided": gettext_lazy("voided"),
    "no_strict_pair": gettext_lazy("ties alone"),
    "both_bad": gettext_lazy("both bad"),
    "cannot_tell": gettext_lazy("cannot tell"),
    "decided": gettext_lazy("decided by a reviewer"),
    "not_text": gettext_lazy("prompts with more than text"),
    "other_groups": gettext_lazy("groups of the judge, or of the reward model"),
    "filtered_kind": gettext_lazy("other kinds of annotators"),
    "filtered_language": gettext_lazy("other languages"),
    "filtered_purpose": gettext_lazy("other purposes"),
    "filtered_split": gettext_lazy("other splits"),
    "filtered_date": gettext_lazy("before or after the dates asked for"),
    "filtered_scheme": gettext_lazy("other schemes"),
    "filtered_guideline": gettext_lazy("other guidelines"),
    "filtered_source": gettext_lazy("other sources"),
    "filtered_licence": gettext_lazy("other licences"),
    "filtered_axis": gettext_lazy("other questions"),
    "filtered_tag": gettext_lazy("without the tags"),
    "filtered_accuracy": gettext_lazy("of annotators below the accuracy, or with too few checks"),
    "filtered_agreement": gettext_lazy("answers too far apart, or only one"),
    "forgotten": gettext_lazy("of somebody whose data was deleted"),
    "later": gettext_lazy("given later"),
    "otherwise": gettext_lazy("the same votes, with another weight, writer or decision"),
}


def bucket_name(bucket: str) -> str:
    """A bucket in the reader's language."""
    return str(BUCKETS.get(bucket, bucket))


def funnel(counts: dict[str, int]) -> list[tuple[str, int]]:
    """Buckets that hold votes, in the order of the funnel, named in the reader's language."""
    known = [(str(words), counts[name]) for name, words in BUCKETS.items() if counts.get(name)]
    others = [(name, n) for name, n in counts.items() if n and name not in BUCKETS]
    return known + others
