"""Reading two answers against each other: what only one of them says."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from annotation import worddiff
from annotation.errors import BadInput
from annotation.models import Membership
from annotation.pages.answers import letters
from annotation.pages.label import lease_of, texts_of
from annotation.pages.shell import project_page
from annotation.permissions import LABEL


@project_page(*LABEL)
def differences(request: HttpRequest, membership: Membership, assignment_id: int) -> HttpResponse:
    """Both texts as they were written; ?one= and ?other= name two answers as the page does."""
    texts = texts_of(lease_of(request, membership, assignment_id))
    named = dict(zip(letters(len(texts)), texts, strict=True))
    one, other = (_named(named, request.GET.get(which, "")) for which in ("one", "other"))
    pieces = worddiff.changes(one, other)
    sides = [
        [piece for piece in pieces if piece.kind in (worddiff.SAME, only)]
        for only in (worddiff.REMOVED, worddiff.ADDED)
    ]
    return render(request, "label/differences.html", {"sides": sides})


def _named(texts: dict[str, str], letter: str) -> str:
    if letter not in texts:
        raise BadInput(
            _("The answers are called %(letters)s: %(letter)s")
            % {"letters": ", ".join(texts), "letter": letter[:20] or "–"}
        )
    return texts[letter]
