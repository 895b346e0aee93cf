"""Bearer tokens. Browser sessions stay with DRF's SessionAuthentication, which asks for CSRF."""

from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework.request import Request

from annotation.api.throttling import anonymous
from annotation.limits import count
from annotation.models import ApiToken, User
from annotation.prepared import Prepared
from annotation.services.tokens import token_digest, touch_token

_TOKEN = Prepared(
    lambda digest: ApiToken.objects.select_related("user").filter(digest=digest), digest=""
)


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer concord_...`; only the token's SHA-256 is looked up."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        """None without a Bearer header (the session may do); 401 for a token that opens nothing."""
        words = get_authorization_header(request).split()
        if not words or words[0].lower() != b"bearer":
            return None
        if len(words) != 2:
            raise AuthenticationFailed("The Authorization header must be: Bearer TOKEN.")
        token = _TOKEN.first(digest=token_digest(words[1].decode("latin-1")))
        if token is None or not token.is_live or not token.user.is_active:
            if seconds := count([anonymous(request)]):
                raise Throttled(seconds)
            raise AuthenticationFailed(
                "This token is unknown, revoked or expired, or its user is gone."
            )
        touch_token(token)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"
