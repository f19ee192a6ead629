"""Django's settings. Everything that may differ between two servers is in `config.py`."""

import os
import secrets
import sys
from pathlib import Path

from shepherd.environment import hand_on, with_env_file
from shepherd.site.config import ServerConfig, database_settings

_settings = with_env_file(os.environ, start=Path.cwd())
hand_on(_settings, os.environ)
SHEPHERD = ServerConfig.from_env(_settings, folder=Path.cwd())

# Without a key of its own a process makes one up: sessions end with it, and two web processes don't share them.
SECRET_KEY = SHEPHERD.secret_key or secrets.token_urlsafe(50)
DEBUG = SHEPHERD.is_debug
ALLOWED_HOSTS = list(SHEPHERD.allowed_hosts)

#: What only the web process and its users need; more than half of the time in which Django starts goes into these.
_WEB_APPS = [
    "django.contrib.admin",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    # For the files of its documentation page, which would come from elsewhere otherwise.
    "ninja",
    "shepherd.api",
    "shepherd.ui",
]
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "shepherd.pipelines",
    "shepherd.site",
    # The Task Publisher, `manage.py runscript`, serves no page.
    *([] if sys.argv[1:2] == ["runscript"] else _WEB_APPS),
]

MIDDLEWARE = [
    "shepherd.api.middleware.JsonErrors",
    "shepherd.ui.middleware.ContentSecurityPolicy",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "shepherd.site.urls"
WSGI_APPLICATION = "shepherd.site.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": database_settings(SHEPHERD.database_url)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [{"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"}]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "runs"
LOGOUT_REDIRECT_URL = "login"

# A body over 1 MiB is refused by the API itself, with the reason.
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
# Served from the packages themselves: nothing to collect before a start.
WHITENOISE_USE_FINDERS = True

SESSION_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "shepherd.site.logging.EventFormatter"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
    "loggers": {
        "django.request": {"level": "ERROR"},
        # A line for each call that Prefect's client makes.
        "httpx": {"level": "WARNING"},
    },
}
