"""The API's limit: requests a minute of one token, one signed-in user, or one address."""

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from annotation.limits import Counter, Limit, address_of, count
from annotation.models import ApiToken, User


class ApiThrottle(BaseThrottle):
    """One counter, so one round trip to Redis; none where there is no limit."""

    def allow_request(self, request: Request, view: object) -> bool:
        """Count the request. False sends 429 with Retry-After."""
        self.seconds = count([counter_of(request)])
        return self.seconds == 0

    def wait(self) -> float:
        return self.seconds


def counter_of(request: Request) -> Counter:
    """Whom a request counts for."""
    if isinstance(request.auth, ApiToken):
        return Counter(Limit("api", settings.API_PER_MINUTE, 60), f"token {request.auth.pk}")
    if isinstance(request.user, User):
        return Counter(Limit("api", settings.API_PER_MINUTE, 60), f"user {request.user.pk}")
    return anonymous(request)


def anonymous(request: Request) -> Counter:
    """The counter of an address that shows no token, or one that opens nothing."""
    limit = Limit("anonymous", settings.ANONYMOUS_PER_MINUTE, 60)
    return Counter(limit, address_of(request._request))
