from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "shepherd.api"
    label = "shepherd_api"
