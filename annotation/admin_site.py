"""The Django admin's site. One's own password is changed on the page of the site, for everybody."""

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from annotation.sign_in import AdminSignInForm


class ConcordAdminSite(AdminSite):
    """What annotation/admin.py registers its tables with."""

    login_form = AdminSignInForm

    def password_change(  # type: ignore[override]  # the stub knows pages alone
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Leads to /password/, which writes the audit log and limits guesses."""
        return redirect("password")
