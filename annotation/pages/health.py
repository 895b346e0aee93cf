"""Health: two addresses for machines that watch over this one, and a page for admins."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from annotation.health import is_ready, parts, queues, workers_seen
from annotation.models import Membership
from annotation.pages.shell import project_page, project_template
from annotation.permissions import ADMINISTER

NAMES = {
    "database": gettext_lazy("Database"),
    "migrations": gettext_lazy("Migrations"),
    "artifacts": gettext_lazy("Artifact directory"),
    "disk": gettext_lazy("Disk"),
    "broker": gettext_lazy("Broker (Redis)"),
}


@require_safe
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return HttpResponse("ok\n", content_type="text/plain; charset=utf-8")


@require_safe
@never_cache
def readyz(request: HttpRequest) -> HttpResponse:
    """Whether requests can be served, 200 or 503; names what is not well, and no more than that."""
    found = parts()
    ready = is_ready(found)
    answer = {"ready": ready, "parts": {part.name: part.is_well for part in found}}
    return JsonResponse(answer, status=200 if ready else 503)


@project_page(*ADMINISTER)
def health(request: HttpRequest, membership: Membership) -> HttpResponse:
    """Everything on one page."""
    context = {
        "parts": [(NAMES[part.name], part) for part in parts()],
        "queues": queues(),
        "workers": workers_seen(),
    }
    return project_template(request, membership, "pages/health.html", context)
