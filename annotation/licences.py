"""What a licence forbids, by its name as people write it. Pure.

A name that says nothing of commerce forbids nothing here: whoever imports rows says their licence.
"""

import re

FORBIDS = re.compile(
    r"\bnc\b|non[\s-]?commercial|research[\s-]+(use[\s-]+)?only|only[\s-]+for[\s-]+research"
    r"|academic[\s-]+(use[\s-]+)?only|evaluation[\s-]+only",
    re.IGNORECASE,
)


def forbids_commerce(licence: str) -> bool:
    """Whether what is under it may not be sold: CC BY-NC 4.0, cc-by-nc-sa-4.0, research only."""
    return bool(FORBIDS.search(licence.replace("_", "-")))
