"""People of imported datasets whose data was deleted: known again, and named nowhere.

Of the id that a file has for them the ledger keeps a keyed digest, so that the same file can't
bring them back. It is made with the installation's key: with another key they are strangers.
"""

import hashlib
import hmac

from django.conf import settings

from annotation.models import Forgotten, Project


def digest_of(kind: str, external_id: str) -> str:
    """64 digits for who judged elsewhere; "" for somebody with no id there."""
    if not external_id:
        return ""
    said = f"forgotten {kind}:{external_id}".encode()
    return hmac.new(settings.SECRET_KEY.encode(), said, hashlib.sha256).hexdigest()


def forgotten_digests(project: Project) -> frozenset[str]:
    """Of everybody from elsewhere whose data was deleted."""
    found = Forgotten.objects.filter(project=project).exclude(outside_digest="")
    return frozenset(found.values_list("outside_digest", flat=True))
