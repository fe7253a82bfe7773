"""Secrets by name: passwords, keys and tokens that never stand in a configuration.

A configuration says ``{secret: plc-1-password}``; what the name stands for is looked up here, in
the environment, in a folder of files, or among the credentials that systemd hands to a service
(``LoadCredential=``). A secret's text appears in no message.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from domain.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from edge_agent.yaml_section import Section

VARIABLE_PREFIX: Final = "HEDDLE_SECRET_"
FOLDER_VARIABLE: Final = "HEDDLE_SECRETS_DIR"
CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
SECRET_BYTES_MAX: Final = 64 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def read_secret(name: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the text of the secret `name`, without the line break at its end.

    Looked for in ``HEDDLE_SECRET_<NAME>`` (upper case, ``_`` for ``-`` and ``.``), then as a file
    of that name in ``HEDDLE_SECRETS_DIR`` and in systemd's ``CREDENTIALS_DIRECTORY``.

    Raises
    ------
    InvalidInput
        ``secret.malformed_name``, ``secret.open_to_others`` (a file that others may read),
        ``secret.too_large``, ``secret.not_text``, ``secret.empty``
    NotFound
        ``secret.missing``
    """
    found = os.environ if environment is None else environment
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            "secret.malformed_name",
            f"{name!r:.120} cannot name a secret",
            hint="letters, digits, '.', '-' and '_', at most 100",
            value=name[:120],
        )
    variable = VARIABLE_PREFIX + re.sub(r"[.-]", "_", name).upper()
    if variable in found:
        return _checked(name, found[variable])
    for folder_variable in (FOLDER_VARIABLE, CREDENTIALS_VARIABLE):
        folder = found.get(folder_variable, "")
        if folder and (text := _from_file(name, Path(folder) / name)) is not None:
            return _checked(name, text)
    raise NotFound(
        "secret.missing",
        f"nobody has told the secret {name!r}",
        hint=f"set {variable}, or put a file {name!r} (mode 0600) into {FOLDER_VARIABLE}",
        value=name,
    )


def text_or_secret(section: Section, key: str) -> str | None:
    """Return the text at `key`: as it stands there, or what ``{secret: NAME}`` stands for.

    For user names and the like. Where only a secret will do, ask `secret`.
    """
    nested = section.child(key)
    return section.text(key) if nested is None else secret_of(nested)


def secret(section: Section, key: str) -> str | None:
    """Return what ``key: {secret: NAME}`` stands for; a text in its place is a fault."""
    nested = section.child(key)
    if nested is None:
        if section.has(key):
            section.fault(
                key,
                "secret.in_configuration",
                "a secret stands in the configuration",
                "write {secret: NAME} and tell the secret outside of it",
            )
        else:
            section.fault(key, "configuration.key_missing", f"{key!r} is missing")
        return None
    return secret_of(nested)


def secret_of(section: Section) -> str | None:
    """Return the secret that a mapping ``{secret: NAME}`` names, or None after noting why not."""
    name = section.text("secret")
    section.finish()
    return None if name is None else section.attempt("secret", lambda: read_secret(name))


def _from_file(name: str, file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            if mode & 0o077:
                raise InvalidInput(
                    "secret.open_to_others",
                    f"{file} may be read by others (mode {mode:04o})",
                    hint=f"chmod 600 {file}, and change the secret if others did read it",
                    value=f"{mode:04o}",
                    limit="0600",
                )
            raw = opened.read(SECRET_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidInput("secret.unreadable", f"{file} cannot be read: {error}") from error
    if len(raw) > SECRET_BYTES_MAX:
        raise InvalidInput(
            "secret.too_large",
            f"the secret {name!r} takes more than {SECRET_BYTES_MAX} bytes",
            value=name,
            limit=SECRET_BYTES_MAX,
        )
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidInput(
            "secret.not_text", f"the secret {name!r} is not UTF-8", value=name
        ) from None


def _checked(name: str, text: str) -> str:
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise InvalidInput("secret.empty", f"the secret {name!r} is empty", value=name)
    return text
