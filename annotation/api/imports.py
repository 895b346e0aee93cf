"""Files handed in to be imported: looked at first, then imported."""

from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.shortcuts import get_object_or_404
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.parsers import JSONParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.views import NewestFirst, ProjectView, validated
from annotation.errors import BadInput
from annotation.importers.formats import FORMATS, Reading
from annotation.models import FileImport
from annotation.permissions import RESEARCH
from annotation.services.imports import ask_for_look, discard_import, receive_file, start_import


class FileIn(serializers.Serializer[Any]):
    file = serializers.FileField()


class LookIn(serializers.Serializer[Any]):
    format = serializers.ChoiceField(choices=FORMATS)
    columns = serializers.DictField(
        child=serializers.CharField(),
        default=dict,
        help_text="Of a csv: what each stands for -> its name, as import_preferences --columns.",
    )
    values = serializers.DictField(
        child=serializers.CharField(),
        default=dict,
        help_text="What a winner's cell says -> first, second, tie, both_bad or cannot_tell.",
    )
    source = serializers.CharField(max_length=120, allow_blank=True, default="")  # type: ignore[assignment]
    licence = serializers.CharField(max_length=80, allow_blank=True, default="")
    terms = serializers.CharField(max_length=2000, allow_blank=True, default="")
    batch = serializers.CharField(max_length=120, default="imported", help_text="Of questions.")
    answers_wanted = serializers.IntegerField(default=1, min_value=1, max_value=50)


class ImportOut(serializers.ModelSerializer[FileImport]):
    """A file. `account` holds rows, good, already_there, refused, and the first refusals with their
    lines; while `state` is checking or importing a worker is at it."""

    account = serializers.DictField()
    reading = serializers.DictField()

    class Meta:
        model = FileImport
        fields = (
            *("id", "name", "sha256", "num_bytes", "state", "reading", "source_name", "licence"),
            *("terms", "account", "rows_done", "error", "created_at", "finished_at"),
        )


class ImportsView(ProjectView):
    roles = {"GET": RESEARCH, "POST": RESEARCH}
    pagination_class = NewestFirst
    parser_classes = [MultiPartParser, JSONParser]

    @extend_schema(responses=ImportOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """Files handed in, newest first."""
        return self.page(FileImport.objects.filter(project=self.project), ImportOut)

    @extend_schema(request={"multipart/form-data": FileIn}, responses={201: ImportOut})
    def post(self, request: Request, slug: str) -> Response:
        """Hand a file in; nothing is imported yet. `reading` names the format if one alone fits."""
        file = request.FILES.get("file")
        if not isinstance(file, UploadedFile):
            raise BadInput("Send the file in the field `file` of a multipart form.")
        one = receive_file(
            project=self.project, name=file.name or "", pieces=file.chunks(), by=self.user
        )
        return Response(ImportOut(one).data, status=201)


class ImportView(ProjectView):
    roles = {"GET": RESEARCH, "DELETE": RESEARCH}

    @extend_schema(responses=ImportOut)
    def get(self, request: Request, slug: str, import_id: int) -> Response:
        """How far a file is."""
        one = get_object_or_404(self.project.file_imports, pk=import_id)
        return Response(ImportOut(one).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, slug: str, import_id: int) -> Response:
        """Forget a file that was not imported."""
        discard_import(one=get_object_or_404(self.project.file_imports, pk=import_id), by=self.user)
        return Response(status=204)


class ImportLookView(ProjectView):
    roles = {"POST": RESEARCH}

    @extend_schema(request=LookIn, responses=ImportOut)
    def post(self, request: Request, slug: str, import_id: int) -> Response:
        """Say what a file is and have it read to its end: `account` says what importing it would
        do. Nothing is imported."""
        one = get_object_or_404(self.project.file_imports, pk=import_id)
        said = validated(LookIn, request)
        reading = Reading(**{name: said.pop(name) for name in Reading.__slots__})
        return Response(ImportOut(ask_for_look(one=one, reading=reading, **said)).data)


class ImportStartView(ProjectView):
    roles = {"POST": RESEARCH}

    @extend_schema(request=None, responses=ImportOut)
    def post(self, request: Request, slug: str, import_id: int) -> Response:
        """Import a file that was looked at; asked again it is the same import."""
        one = get_object_or_404(self.project.file_imports, pk=import_id)
        return Response(ImportOut(start_import(one=one, by=self.user)).data)


urlpatterns = [
    path("projects/<slug:slug>/imports/", ImportsView.as_view()),
    path("projects/<slug:slug>/imports/<int:import_id>/", ImportView.as_view()),
    path("projects/<slug:slug>/imports/<int:import_id>/look", ImportLookView.as_view()),
    path("projects/<slug:slug>/imports/<int:import_id>/start", ImportStartView.as_view()),
]
