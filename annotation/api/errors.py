"""Every error of the API is {"code", "detail"}: ours, DRF's and Django's."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from annotation.errors import ConcordError, NothingToDo


def handle_exception(error: Exception, context: dict[str, Any]) -> Response | None:
    """The response to an error; None for one that nobody foresaw (500, logged by Django)."""
    if isinstance(error, ConcordError):
        response = _response(error.code, error.detail, error.status)
        if isinstance(error, NothingToDo):
            response.data["reason"] = error.reason
            if error.because:
                response.data["because"] = error.because
            if error.retry_after_seconds is not None:
                response.data["retry_after_seconds"] = error.retry_after_seconds
                response["Retry-After"] = str(error.retry_after_seconds)
    elif isinstance(error, Http404):
        response = _response("not_found", _first(error) or "There is nothing here.", 404)
    elif isinstance(error, PermissionDenied):
        response = _response("not_allowed", _first(error) or "You may not do this.", 403)
    elif isinstance(error, exceptions.ValidationError):
        response = _response("bad_input", " ".join(_sentences(error.detail)), 400)
    elif isinstance(error, exceptions.APIException):
        code = error.default_code
        if isinstance(error, exceptions.PermissionDenied):
            code = "not_allowed"
        response = _response(code, " ".join(_sentences(error.detail)), error.status_code)
        if header := getattr(error, "auth_header", None):
            response["WWW-Authenticate"] = header
        if wait := getattr(error, "wait", None):
            response["Retry-After"] = str(int(wait))
    else:
        return None
    set_rollback()
    return response


def _response(code: str, detail: str, status: int) -> Response:
    return Response({"code": code, "detail": detail}, status=status)


def _first(error: Exception) -> str:
    return str(error.args[0]) if error.args and isinstance(error.args[0], str) else ""


def _sentences(detail: Any, field: str = "") -> list[str]:
    """DRF's nested messages as `field: message`, in order."""
    if isinstance(detail, dict):
        return [
            sentence
            for key, inner in detail.items()
            for sentence in _sentences(
                inner, field if key == "non_field_errors" else f"{field}.{key}".lstrip(".")
            )
        ]
    if isinstance(detail, list):
        return [sentence for inner in detail for sentence in _sentences(inner, field)]
    return [f"{field}: {detail}" if field else str(detail)]
