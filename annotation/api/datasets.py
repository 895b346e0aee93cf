"""Datasets and models to take away: exports made, listed and downloaded; versions as archives."""

from typing import Any

from django.http import Http404, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation import model_card
from annotation.api.views import NewestFirst, ProjectView, validated
from annotation.errors import BadInput
from annotation.exporters.files import FILES
from annotation.exporters.folder import (
    CARD,
    FORMATS,
    MANIFEST,
    export_file,
    export_folder,
    export_of,
    exports_of,
    is_withdrawn,
)
from annotation.models import (
    DatasetSnapshot,
    ExportOrder,
    LicenceOverride,
    ModelVersion,
    OrderState,
    Scope,
)
from annotation.permissions import ADMINISTER, RESEARCH
from annotation.services.exports import order_export
from annotation.services.licences import override_licences
from annotation.services.reasons import MAX_REASON
from annotation.services.snapshot_diff import diff
from annotation.services.snapshots import PLANS
from annotation.services.versions import directory_of, versions_of
from annotation.streaming import attachment, file_pieces, tar_pieces

NO_EXPORT = "This project has no such export, or the export no such file."
BYTES = OpenApiResponse(OpenApiTypes.BINARY, "The file, as an attachment.")


class ExportIn(serializers.Serializer[Any]):
    format = serializers.ChoiceField(choices=FORMATS)
    files = serializers.ChoiceField(choices=FILES, default=FILES[0])
    query = serializers.DictField(
        default=dict,
        help_text="annotators, languages, purposes, splits, schemes, guidelines, sources, "
        "licences, axes, tags (lists); accuracy (of annotators on hidden checks) with checks (how "
        "many at least), agreement (of the comparison's votes); since and until (ISO 8601); "
        "decisions (off, instead); weights (none, dawid_skene, bradley_terry); up_to (a position).",
    )


class ExportFileOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    split = serializers.CharField()
    rows = serializers.IntegerField()
    bytes = serializers.IntegerField()
    sha256 = serializers.CharField()


class ExportOut(serializers.Serializer[Any]):
    id = serializers.CharField()
    format = serializers.CharField()
    made_at = serializers.DateTimeField()
    snapshot = serializers.CharField(source="snapshot.sha256")
    query = serializers.DictField()
    position = serializers.DictField(child=serializers.IntegerField())
    votes = serializers.IntegerField()
    funnel = serializers.DictField(child=serializers.IntegerField())
    left_out = serializers.DictField(child=serializers.IntegerField())
    files = ExportFileOut(many=True)
    documents = serializers.ListField(
        child=serializers.CharField(), default=[MANIFEST, CARD], help_text="Downloadable too."
    )


class OrderOut(serializers.ModelSerializer[ExportOrder]):
    """An export, or counts, that workers see to. `state` is waiting, done or failed; `export` is
    the export's id, `account` holds the rows and funnel of what was counted only."""

    query = serializers.DictField()
    account = serializers.DictField()

    class Meta:
        model = ExportOrder
        fields = (
            *("id", "format", "files", "query", "counts_only", "state", "rows_done", "export"),
            *("account", "error", "created_at", "finished_at"),
        )


class ExportsView(ProjectView):
    roles = {"GET": RESEARCH, "POST": RESEARCH}

    @extend_schema(responses=ExportOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """The project's exports, newest first."""
        return Response(ExportOut(exports_of(self.project), many=True).data)

    @extend_schema(request=ExportIn, responses={201: ExportOut, 202: OrderOut})
    def post(self, request: Request, slug: str) -> Response:
        """Freeze the project's comparisons, as they are now, and render them.

        201 with the export where that was quick; 202 with an order of a large project, which the
        workers write: ask for it until its state is done, then for its export."""
        order = order_export(project=self.project, by=self.user, **validated(ExportIn, request))
        if order.state == OrderState.WAITING:
            return Response(OrderOut(order).data, status=202)
        if order.state == OrderState.FAILED:
            raise BadInput(order.error)
        return Response(ExportOut(export_of(self.project, order.export)).data, status=201)


class OrderView(ProjectView):
    roles = {"GET": RESEARCH}

    @extend_schema(responses=OrderOut)
    def get(self, request: Request, slug: str, order_id: int) -> Response:
        """How far an export is that the workers write."""
        return Response(OrderOut(get_object_or_404(self.project.export_orders, pk=order_id)).data)


class ExportView(ProjectView):
    roles = {"GET": RESEARCH}

    @extend_schema(operation_id="projects_exports_one", responses=ExportOut)
    def get(self, request: Request, slug: str, export_id: str) -> Response:
        """One of the project's exports."""
        found = export_of(self.project, export_id)
        if found is None:
            raise Http404(NO_EXPORT)
        return Response(ExportOut(found).data)


class ExportFileView(ProjectView):
    roles = {"GET": RESEARCH}
    scopes = {"GET": Scope.EXPORT}

    @extend_schema(responses={(200, "application/octet-stream"): BYTES})
    def get(self, request: Request, slug: str, export_id: str, file: str) -> StreamingHttpResponse:
        """One file of an export; the header Repr-Digest holds its SHA-256 (RFC 9530)."""
        found = export_file(self.project, export_id, file)
        if found is None:
            raise Http404(NO_EXPORT)
        path, sha256 = found
        return attachment(
            request._request,
            file_pieces(path),
            name=f"{export_id}-{file}",
            num_bytes=path.stat().st_size,
            sha256=sha256,
        )


class ExportArchiveView(ProjectView):
    roles = {"GET": RESEARCH}
    scopes = {"GET": Scope.EXPORT}

    @extend_schema(responses={(200, "application/octet-stream"): BYTES})
    def get(self, request: Request, slug: str, export_id: str) -> StreamingHttpResponse:
        """The whole folder as a .tar; unpacked, `load_dataset` takes it as it is."""
        folder = export_folder(self.project, export_id)
        manifest = export_of(self.project, export_id)
        if folder is None or manifest is None or is_withdrawn(self.project, manifest):
            raise Http404(NO_EXPORT)
        pieces = tar_pieces(folder, root=export_id, extra={})
        return attachment(request._request, pieces, name=f"{export_id}.tar")


class CountIn(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(choices=list(PLANS), default="comparisons")
    query = serializers.DictField(default=dict, help_text="As an export takes it.")


class CountOut(serializers.Serializer[Any]):
    rows = serializers.IntegerField()
    funnel = serializers.DictField(child=serializers.IntegerField())


class CountView(ProjectView):
    roles = {"POST": RESEARCH}

    @extend_schema(request=CountIn, responses={200: CountOut, 202: OrderOut})
    def post(self, request: Request, slug: str) -> Response:
        """What freezing a query would give now; nothing is frozen. 202 with an order where that
        takes its time: its `account` is the answer once its state is done."""
        wish = validated(CountIn, request)
        format = {"demonstrations": "sft"}.get(wish["kind"], wish["kind"])
        order = order_export(
            project=self.project, format=format, query=wish["query"], by=self.user,
            counts_only=True,
        )  # fmt: skip
        if order.state == OrderState.WAITING:
            return Response(OrderOut(order).data, status=202)
        if order.state == OrderState.FAILED:
            raise BadInput(order.error)
        return Response(CountOut(order.account).data)


class OverrideIn(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=MAX_REASON)


class OverrideOut(serializers.ModelSerializer[LicenceOverride]):
    by = serializers.CharField(source="by.username")
    licences = serializers.ListField(child=serializers.CharField())

    class Meta:
        model = LicenceOverride
        fields = ("licences", "reason", "by", "created_at")


class SnapshotOut(serializers.ModelSerializer[DatasetSnapshot]):
    overrides = OverrideOut(many=True, read_only=True)

    class Meta:
        model = DatasetSnapshot
        fields = (
            *("id", "kind", "sha256", "query", "ledger_position", "rows", "counts", "notes"),
            "overrides",
        )


class SnapshotsView(ProjectView):
    roles = {"GET": RESEARCH}
    pagination_class = NewestFirst

    @extend_schema(responses=SnapshotOut(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """Frozen datasets, newest first."""
        found = DatasetSnapshot.objects.filter(project=self.project)
        return self.page(found.prefetch_related("overrides__by"), SnapshotOut)


class OverrideView(ProjectView):
    roles = {"POST": ADMINISTER}

    @extend_schema(request=OverrideIn, responses={201: OverrideOut})
    def post(self, request: Request, slug: str, snapshot_id: int) -> Response:
        """Answer for a dataset whose rows forbid commercial use: models that learned from it may be
        put in force."""
        snapshot = get_object_or_404(DatasetSnapshot, project=self.project, pk=snapshot_id)
        wish = validated(OverrideIn, request)
        made = override_licences(snapshot=snapshot, by=self.user, **wish)
        return Response(OverrideOut(made).data, status=201)


class DiffPartOut(serializers.Serializer[Any]):
    comparisons = serializers.IntegerField()
    why = serializers.DictField(child=serializers.IntegerField())
    examples = serializers.ListField(child=serializers.CharField())


class DiffOut(serializers.Serializer[Any]):
    same = serializers.IntegerField()
    gone = DiffPartOut()
    new = DiffPartOut()
    changed = DiffPartOut()


class DiffView(ProjectView):
    roles = {"GET": RESEARCH}

    @extend_schema(responses=DiffOut)
    def get(self, request: Request, slug: str, before_id: int, after_id: int) -> Response:
        """What came, went and changed between two frozen datasets, and why."""
        snapshots = DatasetSnapshot.objects.filter(project=self.project)
        one, other = (get_object_or_404(snapshots, pk=pk) for pk in (before_id, after_id))
        return Response(DiffOut(diff(one, other)).data)


class VersionArchiveView(ProjectView):
    roles = {"GET": RESEARCH}
    scopes = {"GET": Scope.EXPORT}

    @extend_schema(responses={(200, "application/octet-stream"): BYTES})
    def get(self, request: Request, slug: str, version_id: int) -> StreamingHttpResponse:
        """A version's directory as a .tar, with its model card."""
        versions = versions_of(self.project).select_related(
            "init", "reference", "reward", "value_init", "snapshot", "job"
        )
        version: ModelVersion = get_object_or_404(versions, pk=version_id)
        folder = directory_of(version)
        if not folder.is_dir():
            raise Http404("The files of this version are not on this machine.")
        root = f"{version.kind}-version-{version.pk}"
        card = {} if (folder / CARD).is_file() else {CARD: model_card.render(version).encode()}
        return attachment(
            request._request, tar_pieces(folder, root=root, extra=card), name=f"{root}.tar"
        )


urlpatterns = [
    path("projects/<slug:slug>/snapshots/", SnapshotsView.as_view()),
    path("projects/<slug:slug>/snapshots/count/", CountView.as_view()),
    path("projects/<slug:slug>/snapshots/<int:snapshot_id>/override", OverrideView.as_view()),
    path("projects/<slug:slug>/snapshots/<int:before_id>/diff/<int:after_id>/", DiffView.as_view()),
    path("projects/<slug:slug>/exports/", ExportsView.as_view()),
    path("projects/<slug:slug>/exports/orders/<int:order_id>", OrderView.as_view()),
    path("projects/<slug:slug>/exports/<slug:export_id>", ExportView.as_view()),
    path("projects/<slug:slug>/exports/<slug:export_id>.tar", ExportArchiveView.as_view()),
    path("projects/<slug:slug>/exports/<slug:export_id>/<str:file>", ExportFileView.as_view()),
    path("projects/<slug:slug>/versions/<int:version_id>/download", VersionArchiveView.as_view()),
]
