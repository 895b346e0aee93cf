"""Routes of the REST API: each subject brings its own, and they are put together here."""

from django.urls import URLPattern, URLResolver

from annotation.api import datasets, desk, loop, projects, schema

urlpatterns: list[URLPattern | URLResolver] = [
    *projects.urlpatterns,
    *desk.urlpatterns,
    *loop.urlpatterns,
    *datasets.urlpatterns,
    *schema.urlpatterns,
]
