"""What `manage.py doctor` looks at, and what it says of it.

`situation.py` collects, once, everything that can be known; each function in `checks/` turns a part of it into
findings; `examination.py` has the table of them. Nothing here changes anything but one small object in the store.
"""
