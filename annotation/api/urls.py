"""Routes of the REST API: each subject brings its own, and they are put together here."""

from django.urls import URLPattern, URLResolver

from annotation.api import (
    batches,
    datasets,
    deletions,
    desk,
    gold,
    guidelines,
    imports,
    invitations,
    jobs,
    live,
    loop,
    projects,
    questions,
    reviews,
    schema,
    search,
    sendbacks,
    sensitive,
    versions,
    voids,
)

urlpatterns: list[URLPattern | URLResolver] = [
    *projects.urlpatterns,
    *desk.urlpatterns,
    *guidelines.urlpatterns,
    *questions.urlpatterns,
    *sendbacks.urlpatterns,
    *sensitive.urlpatterns,
    *voids.urlpatterns,
    *deletions.urlpatterns,
    *invitations.urlpatterns,
    *live.urlpatterns,
    *batches.urlpatterns,
    *reviews.urlpatterns,
    *search.urlpatterns,
    *gold.urlpatterns,
    *jobs.urlpatterns,
    *versions.urlpatterns,
    *loop.urlpatterns,
    *imports.urlpatterns,
    *datasets.urlpatterns,
    *schema.urlpatterns,
]
