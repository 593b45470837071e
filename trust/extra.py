"""The libraries of the `trust` extra, which an installation may be without."""

import importlib
from importlib.util import find_spec
from typing import Any

from schemas.errors import ConfigError

_LIBRARIES = {"c2pa": "c2pa-python", "cryptography": "cryptography", "reedsolo": "reedsolo"}


def is_installed(*names: str) -> bool:
    """Whether all of these modules are there; without names, all of the extra."""
    return all(find_spec(name) is not None for name in names or _LIBRARIES)


def library(name: str) -> Any:
    """The module. ConfigError says how to install it where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{_LIBRARIES[name.partition('.')[0]]} is not installed ({error}); pip install 'rushes[trust]', "
            "or render with --credentials off and without --watermark"
        ) from error
