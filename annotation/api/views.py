"""What the API's views share: a bound on the body, and the membership before anything else."""

import io
import re
from typing import IO, Any, ClassVar

from django.db.models import Model, QuerySet
from django.http import Http404
from rest_framework.exceptions import NotFound, ParseError
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from annotation.errors import BadInput, NotAllowed
from annotation.models import ApiToken, Membership, Project, Scope, User
from annotation.permissions import ADMINISTER, NOT_THERE, member, scope_of
from annotation.storable import TOO_DEEP, fault_of

MAX_BODY_BYTES = 1_000_000
ID = re.compile("[0-9]{1,18}")
"""Of a row, as it stands in a cursor."""


class SmallJSONParser(JSONParser):
    """JSON of at most a megabyte. DRF reads the stream itself, past Django's own limit."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Any = None,
    ) -> Any:
        """Raises ParseError for a body that is too large or no JSON, BadInput for one that the
        ledger can't keep: nested too deeply, an infinite number, a NUL character ..."""
        body = stream.read(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            raise ParseError(f"A request has at most {MAX_BODY_BYTES} bytes.")
        if not body.strip():
            return {}
        try:
            parsed = super().parse(io.BytesIO(body), media_type, parser_context or {})
            fault = fault_of(parsed)
        except RecursionError:
            fault = TOO_DEEP
        if fault:
            raise BadInput(f"The body can't be taken: {fault}.")
        if not isinstance(parsed, dict):
            raise ParseError(f"The body must be a JSON object, not {type(parsed).__name__}.")
        return parsed


class NewestFirst(CursorPagination):
    """Pages by id, newest first: nothing is counted, and a growing table shifts nothing."""

    ordering = "-id"
    page_size = 50

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Where the page begins. Raises NotFound for a position that is no id, as DRF does for
        what isn't base64."""
        cursor = super().decode_cursor(request)
        if cursor and cursor.position is not None and not ID.fullmatch(str(cursor.position)):
            raise NotFound(self.invalid_cursor_message)
        return cursor


class ApiView(APIView):
    """A view that takes small JSON objects; `user` is who calls.

    A token must be for what the method does: READ to look, else the scope that the method's roles
    stand for; `scopes` names another where that is not it.
    """

    parser_classes = [SmallJSONParser]
    roles: ClassVar[dict[str, tuple[str, ...]]] = {}
    """HTTP method -> roles that may use it, e.g. {"GET": permissions.ANY}."""
    scopes: ClassVar[dict[str, Scope]] = {}
    """HTTP method -> scope, where it does not follow from the roles."""

    @property
    def user(self) -> User:
        """Whoever signed in; IsAuthenticated has let nobody else through."""
        user = self.request.user
        assert isinstance(user, User)
        return user

    @property
    def token(self) -> ApiToken | None:
        """The token that the request came with; None in a browser's session."""
        return self.request.auth if isinstance(self.request.auth, ApiToken) else None

    @classmethod
    def scope_for(cls, method: str) -> Scope:
        """What a token must be for to use a method of this view."""
        return cls.scopes.get(method) or scope_of(method, cls.roles.get(method, ADMINISTER))

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authentication, CSRF and limits first, then 404 for strangers and the role, then what
        the token is for. Methods that a view does not have, DRF answers itself."""
        super().initial(request, *args, **kwargs)
        self.enter(**kwargs)
        method = self.handled_method
        if method and self.token and (needed := self.scope_for(method)) not in self.token.scopes:
            may = ", ".join(self.token.scopes)
            raise NotAllowed(f"This needs a token for {needed}; this one is for {may}.")

    def enter(self, **kwargs: Any) -> None:
        """Find what the address is about. Raises Http404 for whoever may not know of it, NotAllowed
        for whoever may not do this."""

    @property
    def handled_method(self) -> str:
        """The request's method, HEAD as GET; empty where the view has no such method."""
        method = "GET" if self.request.method == "HEAD" else str(self.request.method)
        return method if method != "OPTIONS" and hasattr(self, method.lower()) else ""

    def page(self, rows: QuerySet[Any], serializer: type[BaseSerializer[Any]]) -> Response:
        """One page of the rows; the view names NewestFirst (or its like) as pagination_class."""
        paginator = self.pagination_class()  # type: ignore[attr-defined]
        found: list[Model] = paginator.paginate_queryset(rows, self.request, view=self)
        return paginator.get_paginated_response(serializer(found, many=True).data)


class ProjectView(ApiView):
    """A view under /api/projects/{slug}/. A method that `roles` does not name is refused.

    Inside a handler self.membership and self.project are set. Look up rows through the project
    (`get_object_or_404(self.project.preferences, pk=...)`), so that another one's are 404.
    """

    membership: Membership

    @property
    def project(self) -> Project:
        return self.membership.project

    def enter(self, **kwargs: Any) -> None:
        """The membership, then the role. A token of one project opens no other."""
        self.membership = member(self.request.user, kwargs["slug"])
        if self.token and self.token.project_id not in (None, self.membership.project.pk):
            raise Http404(NOT_THERE)
        if not self.handled_method:
            return
        allowed = self.roles.get(self.handled_method, ())
        if not allowed:
            raise NotAllowed(f"Nobody may {self.handled_method} this.")
        if self.membership.role not in allowed:
            member(self.request.user, kwargs["slug"], *allowed)


def validated(serializer: type[BaseSerializer[Any]], request: Request) -> Any:
    """The request's body as this serializer has it. Raises ValidationError."""
    body = serializer(data=request.data)
    body.is_valid(raise_exception=True)
    return body.validated_data
