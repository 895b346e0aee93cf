"""WSGI entry point of the web process."""

import os

from django.core.wsgi import get_wsgi_application

from annotation.garbage import spare_what_stays

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotation.settings")
application = get_wsgi_application()
spare_what_stays()
