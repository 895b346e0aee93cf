"""What a page and an error say of a dataset whose file is gone."""

from django.utils.translation import gettext

from annotation.models import DatasetSnapshot, Tombstone


def in_words(stone: Tombstone) -> str:
    """Why, since when, and what stands in its place."""
    return gettext(
        "Dataset %(sha256)s was withdrawn on %(day)s, for it held the data of somebody who was "
        "forgotten (%(reason)s). In its place: %(instead)s."
    ) % {
        "sha256": stone.snapshot.sha256[:12],
        "day": f"{stone.created_at:%Y-%m-%d}",
        "reason": stone.forgotten.reason,
        "instead": stone.successor.sha256[:12] if stone.successor else "–",
    }


def tombstone_of(snapshot: DatasetSnapshot) -> str:
    """The same of a dataset; empty while its file is there."""
    stone = getattr(snapshot, "tombstone", None)
    return in_words(stone) if stone else ""
