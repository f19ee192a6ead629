"""The whole system on one machine: `python -m shepherd.site.local run` or `demo`."""
