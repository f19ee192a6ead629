"""What a WSGI server serves: `shepherd.site.wsgi:application`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shepherd.site.settings")

application = get_wsgi_application()
