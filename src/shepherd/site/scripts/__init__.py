"""What `manage.py runscript NAME` starts: each module here has a function `run`."""
