"""Shepherd runs ordered pipelines on several servers."""

__version__ = "0.1.0"
