"""Django admin: a look into every table. Rows change through services alone, here too.

Answers, leases, counters, jobs, snapshots, versions, promotions and the audit log can't be added,
changed or deleted; what may be done to them are actions, which call the services. Users and the
terms of a source are edited here, and every edit leaves an audit entry.
"""

from collections.abc import Callable, Iterable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from annotation import models
from annotation.errors import ConcordError
from annotation.permissions import ADMINISTER, REVIEW, member
from annotation.services.audit import record
from annotation.services.jobs import cancel_job
from annotation.services.ledger import pause_batch
from annotation.services.queue import release_lease, sweep_expired_leases
from annotation.services.review import void_preference
from annotation.services.tokens import revoke_token


class LookOnly:
    """No row of this model is added, changed or deleted here, by hand or in bulk."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class LedgerAdmin(LookOnly, admin.ModelAdmin[Any]):
    """Newest first, without counting the whole table for the page."""

    ordering = ("-pk",)
    show_full_result_count = False
    list_per_page = 50


class ReasonForm(ActionForm):
    """The choice of an action, and why."""

    reason = forms.CharField(required=False, max_length=200, label=_("Reason"))


def each(
    site: admin.ModelAdmin[Any],
    request: HttpRequest,
    rows: Iterable[Any],
    act: Callable[[Any], object],
    roles: tuple[str, ...] = ADMINISTER,
) -> None:
    """Do it to every row whose project the user may do it in; say what came of it."""
    done = 0
    for row in rows:
        try:
            if (project := getattr(row, "project", None)) is not None:
                member(request.user, project.slug, *roles)
            act(row)
        except (ConcordError, Http404) as error:
            site.message_user(request, f"{row}: {error}", messages.ERROR)
        else:
            done += 1
    site.message_user(request, _("Done: %(number)d") % {"number": done}, messages.SUCCESS)


admin.site.unregister(Group)  # roles are memberships; a group would be edited without an entry


@admin.register(models.User)
class ConcordUserAdmin(UserAdmin[models.User]):
    """Users are made and changed by superusers; one who leaves is made inactive, never deleted."""

    fieldsets = (*(UserAdmin.fieldsets or ()), (None, {"fields": ("language",)}))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return _is_root(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _is_root(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @transaction.atomic
    def save_model(
        self, request: HttpRequest, obj: models.User, form: forms.ModelForm[Any], change: bool
    ) -> None:
        super().save_model(request, obj, form, change)
        _note(request, "user.change" if change else "user.create", obj, form)

    @transaction.atomic
    def user_change_password(
        self, request: HttpRequest, id: str, form_url: str = ""
    ) -> HttpResponse:
        """Django's page for a user's password, which doesn't come by save_model."""
        before = self.get_object(request, unquote(id))
        response = super().user_change_password(request, id, form_url)
        after = self.get_object(request, unquote(id))
        if before and after and before.password != after.password:
            record(
                action="user.password",
                target=after,
                actor=_user(request),
                usable=after.has_usable_password(),
            )
        return response


@admin.register(models.Source)
class SourceAdmin(LookOnly, admin.ModelAdmin[models.Source]):
    """The terms of a source may be written down later than its rows came."""

    list_display = ("name", "project", "licence", "retention_days")
    readonly_fields = ("project", "name", "created_at")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _is_root(request)

    @transaction.atomic
    def save_model(
        self, request: HttpRequest, obj: models.Source, form: forms.ModelForm[Any], change: bool
    ) -> None:
        super().save_model(request, obj, form, change)
        _note(request, "source.change", obj, form)


@admin.register(models.Batch)
class BatchAdmin(LedgerAdmin):
    list_display = ("name", "project", "purpose", "skill", "priority", "paused", "scheme")
    list_filter = ("paused", "purpose")
    list_select_related = ("project", "scheme")
    actions = ("pause", "resume")

    @admin.action(description=_("Pause the selected batches"))
    def pause(self, request: HttpRequest, batches: QuerySet[models.Batch]) -> None:
        self._set(request, batches, paused=True)

    @admin.action(description=_("Resume the selected batches"))
    def resume(self, request: HttpRequest, batches: QuerySet[models.Batch]) -> None:
        self._set(request, batches, paused=False)

    def _set(self, request: HttpRequest, batches: QuerySet[models.Batch], *, paused: bool) -> None:
        user = _user(request)
        each(self, request, batches, lambda one: pause_batch(batch=one, paused=paused, by=user))


@admin.register(models.Comparison)
class ComparisonAdmin(LedgerAdmin):
    list_display = ("pk", "project", "batch", "purpose", "answers_wanted", "open_slots", "language")
    list_filter = ("purpose",)
    list_select_related = ("project", "batch")


@admin.register(models.Assignment)
class AssignmentAdmin(LedgerAdmin):
    list_display = ("pk", "project", "comparison", "annotator", "kind", "state", "expires_at")
    list_filter = ("state", "kind")
    list_select_related = ("project", "comparison", "annotator")
    actions = ("release", "sweep")

    @admin.action(description=_("Release the selected leases"))
    def release(self, request: HttpRequest, leases: QuerySet[models.Assignment]) -> None:
        each(self, request, leases, lambda one: release_lease(assignment=one))

    @admin.action(description=_("Sweep expired leases, selected or not"))
    def sweep(self, request: HttpRequest, leases: QuerySet[models.Assignment]) -> None:
        number = sweep_expired_leases()
        self.message_user(request, _("Swept: %(number)d") % {"number": number}, messages.SUCCESS)


class RankingInline(LookOnly, admin.TabularInline[models.Ranking, models.Preference]):
    model = models.Ranking
    extra = 0


@admin.register(models.Preference)
class PreferenceAdmin(LedgerAdmin):
    list_display = ("pk", "project", "comparison", "annotator", "current", "counted", "voided_at")
    list_filter = ("current", "counted")
    list_select_related = ("project", "comparison", "annotator")
    inlines = (RankingInline,)
    action_form = ReasonForm
    actions = ("void",)

    @admin.action(description=_("Void the selected preferences (give a reason)"))
    def void(self, request: HttpRequest, preferences: QuerySet[models.Preference]) -> None:
        reason, user = request.POST.get("reason", ""), _user(request)
        each(
            self,
            request,
            preferences,
            lambda one: void_preference(preference=one, by=user, reason=reason),
            REVIEW,
        )


@admin.register(models.Review)
class ReviewAdmin(LedgerAdmin):
    list_display = ("pk", "project", "comparison", "state", "lowest", "num_answers")
    list_filter = ("state",)
    list_select_related = ("project", "comparison")


@admin.register(models.Decision)
class DecisionAdmin(LedgerAdmin):
    list_display = ("pk", "project", "comparison", "by", "number", "current", "voided_at")
    list_filter = ("current", "undecidable")
    list_select_related = ("project", "comparison", "by")


@admin.register(models.TrainingJob)
class TrainingJobAdmin(LedgerAdmin):
    list_display = ("pk", "project", "kind", "lane", "status", "attempt", "step", "total_steps")
    list_filter = ("status", "kind")
    list_select_related = ("project",)
    actions = ("cancel",)

    @admin.action(description=_("Cancel the selected jobs"))
    def cancel(self, request: HttpRequest, jobs: QuerySet[models.TrainingJob]) -> None:
        user = _user(request)
        each(self, request, jobs, lambda one: cancel_job(job=one, by=user))


@admin.register(models.ApiToken)
class ApiTokenAdmin(LedgerAdmin):
    list_display = ("name", "user", "project", "scopes", "last_used_at", "expires_at", "revoked_at")
    list_select_related = ("user", "project")
    exclude = ("digest",)
    actions = ("revoke",)

    @admin.action(description=_("Revoke the selected tokens"))
    def revoke(self, request: HttpRequest, tokens: QuerySet[models.ApiToken]) -> None:
        user = _user(request)
        if not user.is_superuser:
            tokens = tokens.filter(user=user)
        each(self, request, tokens, lambda one: revoke_token(token=one, by=user))


@admin.register(models.Invitation)
class InvitationAdmin(LedgerAdmin):
    list_display = ("project", "role", "note", "uses", "uses_allowed", "expires_at", "revoked_at")
    list_select_related = ("project",)
    exclude = ("digest",)


@admin.register(models.AuditEntry)
class AuditEntryAdmin(LedgerAdmin):
    list_display = ("created_at", "project", "actor", "action", "target")
    list_select_related = ("project", "actor")
    search_fields = ("action", "target")


@admin.register(models.ModelVersion)
class ModelVersionAdmin(LedgerAdmin):
    list_display = ("name", "kind", "stage", "job", "created_at")
    list_filter = ("kind", "stage")
    list_select_related = ("job",)


@admin.register(models.Promotion)
class PromotionAdmin(LedgerAdmin):
    list_display = ("created_at", "project", "slot", "version", "verdict", "by")
    list_select_related = ("project", "version", "by")


@admin.register(models.DatasetSnapshot)
class DatasetSnapshotAdmin(LedgerAdmin):
    list_display = ("sha256", "project", "kind", "rows", "created_at")
    list_select_related = ("project",)


admin.site.register(
    [
        models.Annotator,
        models.Completion,
        models.CompletionScore,
        models.Generation,
        models.GoldCheck,
        models.GoldItem,
        models.GoldVote,
        models.Guideline,
        models.CurvePiece,
        models.JobMetric,
        models.Mail,
        models.Membership,
        models.PracticeAnswer,
        models.Project,
        models.Prompt,
        models.Report,
        models.RetrainRule,
        models.Scheme,
    ],
    LedgerAdmin,
)


def _is_root(request: HttpRequest) -> bool:
    user = request.user
    return user.is_active and user.is_superuser


def _user(request: HttpRequest) -> models.User:
    assert isinstance(request.user, models.User)  # the admin site has let nobody else in
    return request.user


def _note(request: HttpRequest, action: str, row: Model, form: forms.ModelForm[Any]) -> None:
    """Which fields were changed, never their values: one of them is a password."""
    record(
        action=action,
        target=row,
        project=getattr(row, "project", None),
        actor=_user(request),
        fields=form.changed_data,
    )
