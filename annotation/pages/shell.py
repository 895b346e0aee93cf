"""What every page shares: who may see it, the navigation around it, and errors as pages."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec
from urllib.parse import urlsplit

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from annotation import permissions
from annotation.errors import BadInput, ConcordError, Conflict
from annotation.models import Membership, User
from annotation.pages.navigation import navigation

P = ParamSpec("P")
ProjectView = Callable[Concatenate[HttpRequest, Membership, P], HttpResponse]
RESEARCHERS = permissions.RESEARCH
VERSIONS = permissions.ANY


def signed_in(view: Callable[Concatenate[HttpRequest, P], HttpResponse]) -> Callable[..., Any]:
    """A page for anyone who has signed in; what goes wrong becomes a page too.

    A part of a page that htmx asks for after the session ended sends the whole page to the door.
    """

    @never_cache
    @wraps(view)
    def guarded(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if not request.user.is_authenticated:
            return _to_the_door(request)
        try:
            return view(request, *args, **kwargs)
        except ConcordError as error:
            return error_page(request, error)

    return guarded


def _to_the_door(request: HttpRequest) -> HttpResponse:
    is_fragment = bool(request.headers.get("HX-Request"))
    shown = request.headers.get("HX-Current-URL", "/") if is_fragment else request.get_full_path()
    response = redirect_to_login(urlsplit(shown)._replace(scheme="", netloc="").geturl())
    if is_fragment:
        return HttpResponse(status=204, headers={"HX-Redirect": response.url})
    return response


def project_page(
    *roles: str, methods: tuple[str, ...] = ("GET", "HEAD")
) -> Callable[[Callable[..., HttpResponse]], Callable[..., HttpResponse]]:
    """A page of one project. The view gets the membership instead of the slug.

    404 where the user is no member, 403 where the role is none of `roles` (none given = any).
    """

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @signed_in
        @wraps(view)
        def guarded(request: HttpRequest, slug: str, **kwargs: Any) -> HttpResponse:
            if request.method not in methods:
                return _wrong_method(request, methods)
            membership = permissions.member(request.user, slug, *roles)
            return view(request, membership, **kwargs)

        return guarded

    return decorate


def user_of(request: HttpRequest) -> User:
    """The signed-in user; the decorators above have seen to it that there is one."""
    if not isinstance(request.user, User):
        raise TypeError("This view lacks signed_in or project_page.")
    return request.user


@contextmanager
def told(request: HttpRequest) -> Iterator[None]:
    """What a person can put right becomes a message on the page they are sent back to."""
    try:
        yield
    except (BadInput, Conflict) as error:
        messages.error(request, error.detail)


def project_template(
    request: HttpRequest,
    membership: Membership,
    template: str,
    context: dict[str, Any] | None = None,
    status: int = 200,
) -> HttpResponse:
    """Render a page of a project with its navigation."""
    shared = {
        "project": membership.project,
        "membership": membership,
        "navigation": partial(navigation, request, membership),  # asked for by whole pages alone
        "is_admin": membership.role in permissions.ADMINISTER,
        "is_reviewer": membership.role in permissions.REVIEW,
        "is_researcher": membership.role in permissions.RESEARCH,
        "may_watch": membership.role in permissions.WATCH,
    }
    return render(request, template, shared | (context or {}), status=status)


def _wrong_method(request: HttpRequest, methods: tuple[str, ...]) -> HttpResponse:
    """405 with a way back: somebody opened the address of a button."""
    context = {
        "heading": _("Nothing to see at this address"),
        "detail": _("It belongs to a button of another page, where it can be pressed."),
    }
    response = render(request, "pages/error.html", context, status=405)
    response.headers["Allow"] = ", ".join(methods)
    return response


def error_page(request: HttpRequest, error: ConcordError) -> HttpResponse:
    """One sentence and a way back."""
    headings = {
        400: _("That did not make sense"),
        403: _("Not for your role"),
        409: _("Someone was faster"),
    }
    heading = headings.get(error.status, _("That did not work"))
    context = {"heading": heading, "detail": error.detail}
    return render(request, "pages/error.html", context, status=error.status)
