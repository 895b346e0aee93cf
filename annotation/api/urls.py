"""Routes of the REST API: each subject brings its own, and they are put together here."""

from django.urls import URLPattern, URLResolver

from annotation.api import batches, datasets, desk, jobs, loop, projects, reviews, schema, versions

urlpatterns: list[URLPattern | URLResolver] = [
    *projects.urlpatterns,
    *desk.urlpatterns,
    *batches.urlpatterns,
    *reviews.urlpatterns,
    *jobs.urlpatterns,
    *versions.urlpatterns,
    *loop.urlpatterns,
    *datasets.urlpatterns,
    *schema.urlpatterns,
]
