"""Which address leads where."""

from django.contrib import admin
from django.urls import include, path

from shepherd.site.health import healthz

urlpatterns = [
    path("", include("shepherd.ui.urls")),
    path("api/", include("shepherd.api.urls")),
    path("transformer/", include("shepherd.api.transformer")),
    path("admin/", admin.site.urls),
    path("healthz", healthz, name="healthz"),
]
