"""Reading settings from the environment: one function per kind, and a bad value stops the start.

Each raises ImproperlyConfigured with the variable's name and the value seen. Only
annotation/settings.py calls them.
"""

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured


def text(name: str, default: str | None = None, choices: tuple[str, ...] = ()) -> str:
    """The variable's text; with choices, one of them."""
    value = os.environ.get(name, default)
    if value is None or value == "":
        raise ImproperlyConfigured(f"{name} must be set.")
    if choices and value not in choices:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(choices)}: {value!r}.")
    return value


def number(name: str, default: int, low: int, high: int) -> int:
    """A whole number between low and high."""
    value = os.environ.get(name, str(default))
    if not value.lstrip("-").isdigit() or not low <= int(value) <= high:
        raise ImproperlyConfigured(f"{name} must be a number from {low} to {high}: {value!r}.")
    return int(value)


def hosts(name: str, default: list[str]) -> list[str]:
    """Comma-separated host names; a wildcard is refused."""
    value = os.environ.get(name)
    if value is None:
        return default
    names = [host.strip() for host in value.split(",") if host.strip()]
    if not names or any("*" in host for host in names):
        raise ImproperlyConfigured(f"{name} must name each host, without '*': {value!r}.")
    return names


def origins(name: str) -> list[str]:
    """Comma-separated origins such as https://concord.example; may be empty."""
    found = [one.strip() for one in os.environ.get(name, "").split(",") if one.strip()]
    for origin in found:
        if not origin.startswith(("http://", "https://")) or "*" in origin:
            raise ImproperlyConfigured(f"{name} must hold origins like https://host: {origin!r}.")
    return found


def secret_key(name: str) -> str:
    """A secret key of 50 characters or more, in the variable or in the file NAME_FILE names."""
    value = os.environ.get(name, "")
    if path := os.environ.get(f"{name}_FILE"):
        if not Path(path).is_file():
            raise ImproperlyConfigured(f"{name}_FILE names no file: {path!r}.")
        value = Path(path).read_text().strip()
    if len(value) < 50 or len(set(value)) < 5:
        raise ImproperlyConfigured(
            f"{name} must hold at least 50 random characters: it has {len(value)}."
        )
    return value


def database(name: str, default: str, *, most_connections: int = 0) -> dict[str, Any]:
    """Django's DATABASES entry for sqlite:///PATH or postgresql://user:password@host:port/name.

    A socket folder may be given as ?host=/path. most_connections: of a pool of this process; 0 is
    without a pool. SQLite needs none: a thread keeps its connection.
    """
    url = os.environ.get(name, default)
    parts = urlsplit(url)
    if parts.scheme == "sqlite" and parts.path not in ("", "/"):
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": unquote(parts.path),
            "OPTIONS": {
                # Every transaction takes the write lock at once: two readers that both turn
                # writer would otherwise fail with "database is locked" instead of waiting.
                "transaction_mode": "IMMEDIATE",
                "timeout": 60,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
            "CONN_MAX_AGE": 600 if most_connections else 0,
        }
    if parts.scheme in ("postgres", "postgresql") and parts.path.strip("/"):
        query = dict(parse_qsl(parts.query))
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(parts.path.strip("/")),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": query.get("host", parts.hostname or ""),
            "PORT": str(parts.port or ""),
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": {
                # A connection parses and plans a statement once. A claim is many small ones: the
                # database takes half the time for it. PgBouncer must be 1.21 or newer for this.
                "server_side_binding": True,
                "prepare_threshold": 2,
                **({"pool": _pool(most_connections)} if most_connections else {}),
            },
        }
    raise ImproperlyConfigured(
        f"{name} must look like postgresql://user:password@host/name or sqlite:///path, "
        f"its scheme is {parts.scheme!r}."
    )


def _pool(most: int) -> dict[str, Any]:
    """For psycopg_pool.ConnectionPool."""
    return {"min_size": 2, "max_size": most, "timeout": 30}


def mail(name: str, sender: str) -> dict[str, Any]:
    """Django's mail settings for smtp://user:password@host:port, which turns to TLS (STARTTLS),
    smtps://... in TLS from the start, or smtp+plain://... without; console: prints mails to the
    log of the worker. Empty where NAME is not set: no mail is sent. sender: the variable that holds
    the address they come from.
    """
    url = os.environ.get(name, "")
    if not url:
        return {}
    found: dict[str, Any] = {"DEFAULT_FROM_EMAIL": text(sender), "EMAIL_TIMEOUT": 5}
    if url == "console:":
        return {**found, "EMAIL_BACKEND": "django.core.mail.backends.console.EmailBackend"}
    parts = urlsplit(url)
    ports = {"smtp": 587, "smtps": 465, "smtp+plain": 25}
    if parts.scheme not in ports or not parts.hostname:
        raise ImproperlyConfigured(
            f"{name} must look like smtp://user:password@host:587, smtps://..., smtp+plain://... "
            f"or console:, its scheme is {parts.scheme!r}."
        )
    return {
        **found,
        "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "EMAIL_HOST": parts.hostname,
        "EMAIL_PORT": parts.port or ports[parts.scheme],
        "EMAIL_HOST_USER": unquote(parts.username or ""),
        "EMAIL_HOST_PASSWORD": unquote(parts.password or ""),
        "EMAIL_USE_TLS": parts.scheme == "smtp",
        "EMAIL_USE_SSL": parts.scheme == "smtps",
    }


def redis_url(name: str, default: str | None) -> str:
    """redis://, rediss:// or unix:// address of the broker."""
    value = text(name, default)
    if urlsplit(value).scheme not in ("redis", "rediss", "unix"):
        raise ImproperlyConfigured(f"{name} must be a redis://, rediss:// or unix:// URL.")
    return value
