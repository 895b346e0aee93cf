"""Routes of the REST API: each subject brings its own, and they are put together here."""

from django.urls import URLPattern, URLResolver

from annotation.api import (
    batches,
    datasets,
    desk,
    gold,
    invitations,
    jobs,
    live,
    loop,
    projects,
    reviews,
    schema,
    versions,
    voids,
)

urlpatterns: list[URLPattern | URLResolver] = [
    *projects.urlpatterns,
    *desk.urlpatterns,
    *voids.urlpatterns,
    *invitations.urlpatterns,
    *live.urlpatterns,
    *batches.urlpatterns,
    *reviews.urlpatterns,
    *gold.urlpatterns,
    *jobs.urlpatterns,
    *versions.urlpatterns,
    *loop.urlpatterns,
    *datasets.urlpatterns,
    *schema.urlpatterns,
]
