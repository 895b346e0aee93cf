"""WSGI entry point of the web process."""

import os

from django.core.wsgi import get_wsgi_application

from annotation.garbage import spare_what_stays

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotation.settings")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see asgi.py
application = get_wsgi_application()
spare_what_stays()
