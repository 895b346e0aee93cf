"""The public surface: pages at the root, the API under /api/, the Django admin under /admin/."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("api/", include("annotation.api.urls")),
    path("admin/", admin.site.urls),
    path("", include("annotation.pages.urls")),
]
