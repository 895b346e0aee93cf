"""The OpenAPI description of the API and the page that shows it."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema

from annotation.api.authentication import TokenAuthentication


class TokenScheme(OpenApiAuthenticationExtension):
    """How the OpenAPI page describes the tokens."""

    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "Made on the page /tokens/."}
