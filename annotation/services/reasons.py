"""The words that a void, a revision or a retirement must give as its reason."""

from django.utils.translation import gettext

from annotation.errors import BadInput
from annotation.storable import require_storable

MAX_REASON = 200


def said_why(reason: str, what: str) -> str:
    """The words of a reason. Raises BadInput where there are none or too many.

    what: the beginning of that sentence, such as "A void needs a reason", in the reader's language.
    """
    reason = reason.strip()
    if not 1 <= len(reason) <= MAX_REASON:
        raise BadInput(
            gettext("%(what)s of 1 to %(most)s characters, not %(seen)s.")
            % {"what": what, "most": MAX_REASON, "seen": len(reason)}
        )
    require_storable(reason)
    return reason
