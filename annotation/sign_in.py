"""Signing in: the forms of the site and of its admin, and how often a password may be guessed.

Failures are counted, never successes, so an office behind one address can sign in at nine. Whoever
knows a name must not be able to lock its owner out: failures count for the account at an address,
and only tenfold of them for the account as such. A browser that has signed in as somebody before
carries a signed cookie that says so, and has a counter of its own which no stranger can fill.
"""

from typing import Any

from django.conf import settings
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm
from django.core.exceptions import ValidationError
from django.core.signing import BadSignature, TimestampSigner
from django.http import HttpRequest, HttpResponseBase
from django.utils.translation import ngettext

from annotation.limits import Counter, Limit, address_of, count, seconds_to_wait

WINDOW_SECONDS = 15 * 60
COOKIE = "concord_browser"
COOKIE_SECONDS = 365 * 24 * 3600
LIMITED = "limited"
"""The code of the form's error once there were too many failures."""


def failure_counters(request: HttpRequest, username: str) -> list[Counter]:
    """Where a failed sign-in under this name counts."""
    few = settings.SIGN_IN_FAILURES
    name, address = username.lower(), address_of(request)
    if knows(request, username):
        return [Counter(Limit("browser", few, WINDOW_SECONDS), request.COOKIES[COOKIE])]
    return [
        Counter(Limit("pair", few, WINDOW_SECONDS), f"{address} {name}"),
        Counter(Limit("address", 10 * few, WINDOW_SECONDS), address),
        Counter(Limit("account", 10 * few, WINDOW_SECONDS), name),
    ]


def knows(request: HttpRequest, username: str) -> bool:
    """Whether somebody has signed in under this name in this browser before."""
    try:
        return _signer().unsign(request.COOKIES.get(COOKIE, ""), COOKIE_SECONDS) == username.lower()
    except BadSignature:
        return False


def remember_browser(response: HttpResponseBase, username: str) -> None:
    """After a success: the browser is known from now on."""
    response.set_cookie(
        COOKIE,
        _signer().sign(username.lower()),
        max_age=COOKIE_SECONDS,
        samesite="Lax",
        httponly=True,
        secure=bool(settings.SESSION_COOKIE_SECURE),
    )


def _signer() -> TimestampSigner:
    return TimestampSigner(salt="concord.browser")


def wait_in_words(seconds: int) -> str:
    """The sentence for whoever tried too often."""
    minutes = -(-seconds // 60)
    sentence = ngettext(
        "Too many failed tries. Try again in %(count)s minute.",
        "Too many failed tries. Try again in %(count)s minutes.",
        minutes,
    )
    return sentence % {"count": minutes}


class SignInForm(AuthenticationForm):
    """Of /sign-in/: it looks at no password once there were too many failures."""

    def clean(self) -> dict[str, Any]:
        """Raises ValidationError, in the same words whether or not there is such an account."""
        assert self.request is not None  # the views that use this form pass theirs
        counters = failure_counters(self.request, self.cleaned_data.get("username") or "")
        if seconds := seconds_to_wait(counters):
            raise ValidationError(wait_in_words(seconds), code=LIMITED)
        try:
            return super().clean()
        except ValidationError:
            count(counters)
            raise


class AdminSignInForm(SignInForm, AdminAuthenticationForm):
    """Of /admin/login/."""


class PasswordForm(PasswordChangeForm):
    """One's own password; the old one may not be guessed for ever, by whoever found the session."""

    def clean_old_password(self) -> str:
        """Raises ValidationError for a wrong one, and after too many of them for any."""
        limit = Limit("password", settings.SIGN_IN_FAILURES, WINDOW_SECONDS)
        counters = [Counter(limit, f"user {self.user.pk}")]
        if seconds := seconds_to_wait(counters):
            raise ValidationError(wait_in_words(seconds), code=LIMITED)
        try:
            return super().clean_old_password()
        except ValidationError:
            count(counters)
            raise
