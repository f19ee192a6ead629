"""Addresses under `/api/`."""

from django.urls import path

from shepherd.api.views import make_api

urlpatterns = [path("", make_api().urls)]
