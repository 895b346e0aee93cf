"""What the OpenAPI description says of an operation: its docstring, and the scope of tokens."""

from drf_spectacular.openapi import AutoSchema


class ScopedSchema(AutoSchema):
    """Adds the scope that annotation/api/views.py will ask for."""

    def get_description(self) -> str:  # type: ignore[override]  # DRF's own takes more
        """The docstring, then the scope of tokens."""
        told = super().get_description() or ""
        scope_for = getattr(self.view, "scope_for", None)
        if scope_for is None:
            return told
        return f"{told}\n\nToken scope: `{scope_for(self.method)}`.".strip()
