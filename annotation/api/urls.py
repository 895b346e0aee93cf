"""Routes of the REST API: each subject brings its own, and they are put together here."""

from django.urls import URLPattern, URLResolver

urlpatterns: list[URLPattern | URLResolver] = []
