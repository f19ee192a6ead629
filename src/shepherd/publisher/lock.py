"""One Task Publisher for an SQLite database. With PostgreSQL several share the work."""

import fcntl
import os
from pathlib import Path
from typing import TextIO

from django.db import connection


def take_lock() -> TextIO | str | None:
    """Take the database's lock, which lasts as long as what is returned, or say in a sentence who has it.

    None where no lock is needed.
    """
    if connection.vendor != "sqlite":
        return None
    database = connection.settings_dict["NAME"]
    path = Path(f"{database}.publisher")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        return (
            f"A Task Publisher (process {holder}) already serves {database}. An SQLite database takes one; "
            "with PostgreSQL several share the work."
        )
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
