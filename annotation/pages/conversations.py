"""Live collection as leads see it: every thread with its texts and models, and who may answer."""

from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import Count, OuterRef, Q, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation import markdown
from annotation.models import (
    LiveThread,
    LiveTurn,
    Membership,
    ModelVersion,
    Project,
    VersionKind,
)
from annotation.pages.shell import project_page, project_template, told, user_of
from annotation.permissions import ADMINISTER, REVIEW
from annotation.services.live_setup import SETUP_FIELDS, change_setup, setup_of
from annotation.services.versions import versions_of

LISTED = 50


class SetupForm(forms.Form):
    """Who answers, and how far a writer may go."""

    is_open = forms.BooleanField(
        label=gettext_lazy("Writers may start conversations"), required=False
    )
    version_a = forms.ModelChoiceField(
        label=gettext_lazy("One model"),
        queryset=ModelVersion.objects.none(),
        required=False,
        empty_label=gettext_lazy("the policy in force"),
    )
    temperature_a = forms.FloatField(
        label=gettext_lazy("Its temperature"), min_value=0.0, max_value=2.0
    )
    version_b = forms.ModelChoiceField(
        label=gettext_lazy("The other"),
        queryset=ModelVersion.objects.none(),
        required=False,
        empty_label=gettext_lazy("the policy in force"),
    )
    temperature_b = forms.FloatField(
        label=gettext_lazy("The other's temperature"), min_value=0.0, max_value=2.0
    )
    max_new_tokens = forms.IntegerField(
        label=gettext_lazy("Tokens of an answer at most"), min_value=1, max_value=8192
    )
    max_turns = forms.IntegerField(
        label=gettext_lazy("Messages of a conversation at most"), min_value=1, max_value=100
    )
    max_threads_per_day = forms.IntegerField(
        label=gettext_lazy("Conversations of one writer in 24 hours at most"),
        min_value=1,
        max_value=10_000,
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        policies = versions_of(project).filter(kind=VersionKind.POLICY)
        for name in ("version_a", "version_b"):
            field = self.fields[name]
            assert isinstance(field, forms.ModelChoiceField)
            field.queryset = policies


@project_page(*REVIEW)
def conversations(request: HttpRequest, membership: Membership) -> HttpResponse:
    """The newest threads of all writers; admins set who answers."""
    project = membership.project
    opening = LiveTurn.objects.filter(thread=OuterRef("pk"), number=1)
    threads = (
        LiveThread.objects.filter(project=project)
        .select_related("annotator", "version_a", "version_b")
        .annotate(
            opening=Subquery(opening.values("message")[:1]),
            num_turns=Count("turns"),
            num_chosen=Count("turns", filter=Q(turns__state="chosen")),
        )
        .order_by("-pk")
    )
    before = request.GET.get("before", "")
    if before.isascii() and before.isdigit() and len(before) <= 18:
        threads = threads.filter(pk__lt=int(before))
    shown = list(threads[: LISTED + 1])
    context: dict[str, Any] = {
        "rows": [(thread, _may_know(thread, membership)) for thread in shown[:LISTED]],
        "older": shown[LISTED - 1].pk if len(shown) > LISTED else None,
    }
    if membership.role in ADMINISTER:
        setup = setup_of(project)
        initial = {name: getattr(setup, name) for name in SETUP_FIELDS}
        context["setup_form"] = SetupForm(
            project=project, initial={"is_open": project.chat_open, **initial}
        )
    return project_template(request, membership, "chat/conversations.html", context)


def _may_know(thread: LiveThread, membership: Membership) -> bool:
    """Who writes a conversation that still goes on is blind in it, whatever their role."""
    return thread.closed_at is not None or thread.annotator.user_id != membership.user_id


@project_page(*REVIEW)
def conversation(request: HttpRequest, membership: Membership, thread_id: int) -> HttpResponse:
    """One thread: all that was said, both answers of each turn, and who wrote which."""
    thread = get_object_or_404(
        LiveThread.objects.select_related("annotator", "version_a", "version_b"),
        project=membership.project,
        pk=thread_id,
    )
    turns, page = thread.turns.prefetch_related("answers", "preference__rankings"), markdown.Page()
    rows = []
    for turn in turns:
        answers = [one for one in turn.answers.all() if one.text]
        rows.append(
            {
                "turn": turn,
                "message": page.render(turn.message),
                "answers": list(
                    zip(answers, page.render_alike([a.text for a in answers]), strict=True)
                ),
                "edited": (
                    page.render(turn.continued_with)
                    if turn.continued_with and turn.continued_with not in [a.text for a in answers]
                    else None
                ),
            }
        )
    context = {"thread": thread, "rows": rows, "may_know": _may_know(thread, membership)}
    return project_template(request, membership, "chat/conversation.html", context)


@project_page(*ADMINISTER, methods=("POST",))
def setup(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Change who answers; conversations that have begun keep their models."""
    form = SetupForm(request.POST, project=membership.project)
    if form.is_valid():
        changes = dict(form.cleaned_data)
        is_open = changes.pop("is_open")
        with told(request):
            change_setup(
                project=membership.project, changes=changes, is_open=is_open, by=user_of(request)
            )
            messages.success(request, _("Saved: it holds for conversations to come."))
    else:
        for name, sentences in form.errors.items():
            label = form.fields[name].label if name in form.fields else name
            messages.error(request, f"{label}: {' '.join(str(one) for one in sentences)}")
    return redirect("conversations", slug=membership.project.slug)
