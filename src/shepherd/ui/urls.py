"""Addresses of the pages."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from shepherd.ui import cards, handles, views

urlpatterns = [
    path("", views.runs, name="runs"),
    path("runs/<int:number>/", views.run, name="run"),
    path("runs/<int:number>/cancel/", handles.cancel, name="cancel"),
    path("runs/<int:number>/resume/", handles.resume, name="resume"),
    path("runs/<int:number>/rerun/", handles.rerun, name="rerun"),
    path("runs/<int:number>/pause/", handles.pause, name="pause"),
    path("runs/<int:number>/unpause/", handles.unpause, name="unpause"),
    path("runs/<int:number>/tasks/<str:task>/card/", cards.task_card, name="task-card"),
    path("runs/<int:number>/log/", views.run_log, name="run-log"),
    path("login/", LoginView.as_view(template_name="ui/login.html", redirect_authenticated_user=True), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
]
