"""What the views of one project share: the membership is looked up before anything else."""

from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.views import APIView

from annotation.errors import NotAllowed
from annotation.models import Membership, Project
from annotation.permissions import member


class ProjectView(APIView):
    """A view under /api/projects/{slug}/. A method that `roles` does not name is refused.

    Inside a handler self.membership and self.project are set. Look up rows through the project
    (`get_object_or_404(self.project.preferences, pk=...)`), so that another one's are 404.
    """

    roles: ClassVar[dict[str, tuple[str, ...]]] = {}
    """HTTP method -> roles that may use it, e.g. {"GET": permissions.ANY}."""
    membership: Membership

    @property
    def project(self) -> Project:
        return self.membership.project

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authentication and CSRF first, then 404 for strangers, then the role."""
        super().initial(request, *args, **kwargs)
        self.membership = member(request.user, kwargs["slug"])
        method = "GET" if request.method == "HEAD" else str(request.method)
        if method == "OPTIONS" or not hasattr(self, method.lower()):
            return  # DRF answers these itself: what there is, 405
        allowed = self.roles.get(method, ())
        if not allowed:
            raise NotAllowed(f"Nobody may {method} this.")
        self.membership = member(request.user, kwargs["slug"], *allowed)
