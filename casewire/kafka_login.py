"""The login of `[kafka]`: secrets read, files found, and all of it tried at start."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from casewire.tables import read_secret
from kafka_clients.login import login_of, login_options
from schemas.errors import ConfigError
from schemas.settings import KafkaSettings

_SECRETS: Final = ("sasl_password", "oauth_client_secret")
_FILES: Final = ("ca_file", "cert_file", "key_file")


def with_login(settings: KafkaSettings, folder: Path, errors: list[str]) -> KafkaSettings:
    """Return the settings with secrets read from their files, which are relative to `folder`.

    What is wrong adds a text to `errors`.
    """
    before = len(errors)
    settings = msgspec.structs.replace(
        settings,
        **_secrets(settings, folder, errors),
        **{key: str(folder / file) for key in _FILES if (file := getattr(settings, key))},
    )
    if len(errors) == before:
        errors.extend(f"[kafka] {text}" for text in settings.problems())
    if len(errors) == before:
        try:
            login_options(login_of(settings))
        except ConfigError as error:
            errors.append(f"[kafka] {error}")
    return settings


def _secrets(settings: KafkaSettings, folder: Path, errors: list[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for key in _SECRETS:
        file_key = f"{key}_file"
        file = getattr(settings, file_key)
        if file and getattr(settings, key):
            errors.append(f"[kafka] {key}: stands beside {file_key}; remove one of the two")
        elif file:
            found[key] = read_secret(folder / file, ("kafka", file_key), errors)
            found[file_key] = ""
    return found
