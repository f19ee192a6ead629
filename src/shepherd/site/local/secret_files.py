"""What a local system keeps for its next start, readable by its owner only."""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """How to log in to a local system and to call its API."""

    username: str
    password: str
    #: Empty until the database has given one.
    token: str


def read_credentials(file: Path) -> Credentials:
    """Return what the file holds, or the login of a new administrator."""
    if not file.exists():
        return Credentials(username="admin", password=secrets.token_urlsafe(12), token="")
    return Credentials(**json.loads(file.read_text(encoding="utf-8")))


def write_credentials(file: Path, credentials: Credentials) -> None:
    write(file, json.dumps(asdict(credentials), indent=2) + "\n")


def secret_key(file: Path) -> str:
    """Return the key of the file, which is made the first time, so that sessions outlive a restart."""
    if not file.exists():
        write(file, secrets.token_urlsafe(50) + "\n")
    return file.read_text(encoding="utf-8").strip()


def write_settings(file: Path, settings: Mapping[str, str]) -> None:
    """Leave the settings where programs started by hand find them (`shepherd.environment`)."""
    lines = (f"{name}={value}\n" for name, value in settings.items())
    write(file, "# Written by `make run`. Real environment variables come before these.\n" + "".join(lines))


def write(file: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
    new.replace(file)
