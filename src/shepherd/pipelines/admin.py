"""Rows to look at; only tokens are made and taken away here. What is in a run changes through `services` alone."""

from typing import Any

from django.contrib import admin, messages
from django.db import models
from django.http import HttpRequest

from shepherd.pipelines.models import ApiToken, DeadMessage, Offer, Run, Task, WorkerSeen
from shepherd.pipelines.tokens import new_token


class LookOnly(admin.ModelAdmin):  # type: ignore[type-arg]  # Django's own class takes no arguments at run time
    """Shows, and lets nobody write."""

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:  # noqa: ARG002
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:  # noqa: ARG002
        return False


class TaskInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Task
    fields = ("position", "order_no", "name", "status", "attempt_no", "started_at", "finished_at")
    readonly_fields = fields
    ordering = ("position",)
    can_delete = False
    extra = 0
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:  # noqa: ARG002
        return False


@admin.register(Run)
class RunAdmin(LookOnly):
    list_display = ("number", "pipeline_name", "project", "status", "accepted_at", "finished_at")
    list_filter = ("status", "project")
    search_fields = ("pipeline_name", "number")
    ordering = ("-number",)
    show_full_result_count = False
    inlines = (TaskInline,)


@admin.register(Task)
class TaskAdmin(LookOnly):
    list_display = ("number", "run", "order_no", "name", "status", "started_at", "finished_at")
    list_filter = ("status",)
    list_select_related = ("run",)
    search_fields = ("name",)
    ordering = ("-number",)
    show_full_result_count = False


@admin.register(WorkerSeen)
class WorkerSeenAdmin(LookOnly):
    list_display = ("worker", "host", "state", "slots", "free_slots", "version", "last_seen_at")
    list_filter = ("state",)
    search_fields = ("worker", "host")
    ordering = ("-last_seen_at",)


@admin.register(Offer)
class OfferAdmin(LookOnly):
    list_display = ("name", "worker", "data")
    list_select_related = ("worker",)
    search_fields = ("name",)
    ordering = ("name", "-number")


@admin.register(DeadMessage)
class DeadMessageAdmin(LookOnly):
    list_display = ("number", "at", "source", "reason")
    list_filter = ("source",)
    search_fields = ("reason",)
    ordering = ("-number",)
    show_full_result_count = False


@admin.register(ApiToken)
class ApiTokenAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Makes tokens, each shown once, and takes them away."""

    list_display = ("name", "user", "created_at")
    list_select_related = ("user",)
    fields = ("user", "name")

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:  # noqa: ARG002
        return False

    def save_model(self, request: HttpRequest, obj: ApiToken, form: Any, change: bool) -> None:
        token, obj.sha256 = new_token()
        super().save_model(request, obj, form, change)
        messages.warning(request, f"The token of {obj.user}, shown only now: {token}")
