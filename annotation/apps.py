"""The one Django app of Concord."""

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class AnnotationConfig(AppConfig):
    name = "annotation"
    verbose_name = "Concord"


class ConcordAdminConfig(AdminConfig):
    """The Django admin with Concord's site."""

    default_site = "annotation.admin_site.ConcordAdminSite"
