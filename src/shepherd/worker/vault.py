"""The secrets that a worker may give to its tasks: where they come from, and that they go nowhere else."""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from shepherd.domain.placeholders import Literal, Placeholder, SecretReference, replaced
from shepherd.errors import InvalidInputError, TaskFailedError
from shepherd.store.port import Store
from shepherd.wire import strict_json
from shepherd.wire.envelope import Finished, TaskError
from shepherd.worker.guarded import GuardedStore, secret_in_result
from shepherd.worker.mask import SHORTEST, Mask

#: A secret is a variable of the worker's with this before its name; not only its name, since a pipeline that anybody
#: posts must not reach other variables.
PREFIX: Final = "SHEPHERD_TASK_SECRET_"
#: Bytes of a secret's file.
_LARGEST: Final = 64 * 1024


def environment_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets that variables hold, by name."""
    return {name.removeprefix(PREFIX): value for name, value in environ.items() if name.startswith(PREFIX) and value}


class Vault:
    """For the process that executes tasks. `tell` is called with each secret's name and value before a task has it."""

    def __init__(
        self,
        secrets: Mapping[str, str] | None = None,
        *,
        folder: Path | None = None,
        tell: Callable[[str, str], None] = lambda _name, _value: None,
    ) -> None:
        self._secrets = dict(secrets or {})
        self._folder = folder
        self._tell = tell
        self.mask = Mask()
        for name, value in self._secrets.items():
            if len(value) >= SHORTEST:
                self.mask.add(name, value)
        #: Names of those that tasks were given.
        self._given: set[str] = set()

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str], *, folder: str, tell: Callable[[str, str], None]) -> "Vault":
        """Return the vault of a process, and hide its variables from what the task's code starts or shows."""
        secrets = environment_secrets(environ)
        for name in secrets:
            del environ[f"{PREFIX}{name}"]
        return cls(secrets, folder=Path(folder) if folder else None, tell=tell)

    def filled(self, context: Any) -> Any:
        """Return a context with the value of every secret in its place, and each literal as it is.

        Raises:
            InvalidInputError: Something else stands there in place of a value.
            TaskFailedError: `secret_missing`, `secret_unusable`.
        """
        return replaced(context, self._value)

    def guarded(self, store: Store) -> Store:
        """Return a store that takes nothing in which one of the secrets stands that tasks were given."""
        return GuardedStore(store, self.mask, is_needed=lambda: bool(self._given))

    def kept(self, reply: Finished) -> Finished:
        """Return a reply without any secret in it: the error's texts masked, a result that holds one refused."""
        if reply.error is not None:
            return replace(reply, error=self._masked(reply.error))
        name = self._found_in(reply) if self._given else None
        if name is not None:
            refused = secret_in_result(name)
            error = TaskError(code=refused.code, message=refused.message)
            return replace(reply, result=None, card=None, error=error)
        return reply

    def _found_in(self, reply: Finished) -> str | None:
        body = reply.to_bytes()
        return self.mask.find([body, b"\n", _readable(body)])

    def _masked(self, error: TaskError) -> TaskError:
        text = self.mask.text
        is_code = text(error.code) == error.code
        return replace(
            error,
            code=error.code if is_code else "error",
            message=text(error.message),
            traceback=text(error.traceback),
        )

    def _value(self, placeholder: Placeholder, path: str) -> Any:
        if isinstance(placeholder, Literal):
            return placeholder.value
        if isinstance(placeholder, SecretReference):
            return self._secret(placeholder.name)
        raise InvalidInputError.at(path, "refers to a result that nobody has put in its place")

    def _secret(self, name: str) -> str:
        value = self._secrets.get(name)
        if value is None:
            value = self._secrets[name] = self._from_file(name)
        if len(value) < SHORTEST:
            message = f"the secret {name!r} has fewer than {SHORTEST} characters: it couldn't be kept out of logs"
            raise TaskFailedError("secret_unusable", message)
        if name not in self._given:
            # First: whatever the task's code writes around Python's own streams is masked by who hears it.
            self._tell(name, value)
            self.mask.add(name, value)
            self._given.add(name)
        return value

    def _from_file(self, name: str) -> str:
        # The name can't lead out of the folder: it has letters, digits and underscores only.
        file = self._folder / name if self._folder is not None else None
        if file is None or not file.is_file():
            or_file = f"no file {file}" if file is not None else "SHEPHERD_SECRETS_FOLDER isn't set"
            reason = f"there is no variable {PREFIX}{name}, and {or_file}"
            raise TaskFailedError("secret_missing", f"this worker has no secret {name!r}: {reason}")
        try:
            content = file.read_bytes()[: _LARGEST + 1]
            if len(content) > _LARGEST:
                raise TaskFailedError("secret_unusable", f"the secret {name!r} has more than {_LARGEST} bytes")
            return content.decode().removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            # Without the error's text: that of a decoder shows bytes of the secret.
            reason = f"the file of the secret {name!r} can't be read: {type(error).__name__}"
            raise TaskFailedError("secret_unusable", reason) from None


def _readable(body: bytes) -> bytes:
    """Return a message with its characters as they are, in place of their escapes."""
    try:
        return json_unescaped(strict_json.loads(body)).encode("utf-8", "surrogateescape")
    except strict_json.StrictJsonError:
        return b""


def json_unescaped(value: Any) -> str:
    """Return all texts in a JSON value, one after another."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "\n".join(part for key, inner in value.items() for part in (key, json_unescaped(inner)))
    return "\n".join(map(json_unescaped, value)) if isinstance(value, list) else ""
