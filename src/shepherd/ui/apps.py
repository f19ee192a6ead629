from django.apps import AppConfig


class UiConfig(AppConfig):
    name = "shepherd.ui"
    label = "shepherd_ui"
