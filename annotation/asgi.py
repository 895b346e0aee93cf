"""ASGI entry point of the web process."""

import os

from django.core.asgi import get_asgi_application

from annotation.events import EventStreams

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "annotation.settings")
application = EventStreams(get_asgi_application())
