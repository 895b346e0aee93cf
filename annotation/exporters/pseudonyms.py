"""Annotators under names that hold within one export and link to no other.

The salt is made from the installation's key and the export's random salt id, so it is stored
nowhere, and only who has the key can tell who is who (or take somebody out again later).
"""

import hashlib
import hmac
import secrets

from django.conf import settings


def new_salt_id() -> str:
    """A random name of a salt; it may be public."""
    return secrets.token_hex(8)


class Pseudonyms:
    """Names annotators for one export."""

    def __init__(self, salt_id: str) -> None:
        self.salt_id = salt_id
        self._salt = _hmac(settings.SECRET_KEY.encode(), f"export salt {salt_id}")

    def of(self, annotator_id: int | str) -> str:
        """The same annotator has the same name all through the export."""
        return f"annotator-{_hmac(self._salt, str(annotator_id)).hex()[:12]}"


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
