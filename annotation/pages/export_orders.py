"""Exports and counts that workers are at, and what came of them for their reader to see."""

from datetime import timedelta
from typing import Any

from django.db.models import F, Q
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from annotation.models import ExportOrder, Membership, OrderState, Project
from annotation.pages.export_words import FORMATS, funnel
from annotation.pages.shell import project_page, project_template
from annotation.permissions import RESEARCH

SHOWN, SHOWN_DAYS = 5, 1


@project_page(*RESEARCH)
def live(request: HttpRequest, membership: Membership) -> HttpResponse:
    """How far the orders are; once one is done the whole page comes anew."""
    context = orders_of(membership.project)
    if str(context["num_waiting"]) != request.GET.get("waiting"):
        return HttpResponse(status=204, headers={"HX-Refresh": "true"})
    return project_template(request, membership, "pages/export_orders.html", context)


def orders_of(project: Project) -> dict[str, Any]:
    """For the page: those that wait, and those of late that failed or were counted only."""
    late = Q(finished_at__gt=F("created_at") + timedelta(seconds=1))  # else it was told at once
    told_later = Q(state=OrderState.FAILED) | Q(state=OrderState.DONE, counts_only=True)
    fresh = Q(finished_at__gt=timezone.now() - timedelta(days=SHOWN_DAYS))
    wanted = Q(state=OrderState.WAITING) | (told_later & late & fresh)
    found = list(project.export_orders.filter(wanted).order_by("-pk")[:SHOWN])
    orders = [
        {
            "order": one,
            "words": FORMATS.get(one.format, one.format),
            "counted": counts_of(one) if one.account else None,
        }
        for one in found
    ]
    return {"orders": orders, "num_waiting": sum(one.state == OrderState.WAITING for one in found)}


def counts_of(order: ExportOrder) -> dict[str, Any]:
    """What was counted, as the page shows it."""
    counts = order.account["funnel"]
    buckets, total = funnel(counts), sum(counts.values())
    return {"rows": order.account["rows"], "buckets": buckets, "total": total}
