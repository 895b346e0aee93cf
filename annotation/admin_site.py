"""The Django admin's site, with an entry in the audit log where Django itself leaves none."""

from typing import Any

from django.contrib.admin import AdminSite
from django.db import transaction
from django.http import HttpRequest
from django.template.response import TemplateResponse

from annotation.models import User
from annotation.services.audit import record


class ConcordAdminSite(AdminSite):
    """What annotation/admin.py registers its tables with."""

    @transaction.atomic
    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """One's own password."""
        assert isinstance(request.user, User)  # the site has let nobody else in
        before = request.user.password
        response = super().password_change(request, extra_context)
        after = User.objects.get(pk=request.user.pk)
        if after.password != before:
            record(action="user.password", target=after, actor=after, usable=True)
        return response
