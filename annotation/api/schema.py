"""The OpenAPI description of the API and the page that shows it."""

from typing import Any

from django.urls import path
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from annotation.api.authentication import TokenAuthentication
from annotation.models import Scope


class TokenScheme(OpenApiAuthenticationExtension):
    """How the OpenAPI page describes the tokens."""

    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        scopes = ", ".join(f"`{scope}`" for scope in Scope.values)
        return {
            "type": "http",
            "scheme": "bearer",
            "description": f"Made on the page /tokens/, each for some of the scopes {scopes}; "
            "every operation names the one it asks for, and the role of the token's user bounds "
            "them all. A token may be kept to one project (others are 404) and have an end.",
        }


class DocsView(SpectacularSwaggerSplitView):
    """Swagger UI from the sidecar package, in a page without the inline style of its own."""

    template_name = "api/docs.html"


urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", DocsView.as_view(), name="docs"),
]
