from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "shepherd.site"
    label = "shepherd_site"
