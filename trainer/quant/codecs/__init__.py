"""Lossless codecs for the symbols of an artifact: one module per codec, named after it and found by its file.

The names come from the files, so that a config is checked without loading a compression library.
"""

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from trainer.quant.codecs._base import Codec


def codec_names() -> list[str]:
    """Return the values that `export.codec` may have, sorted."""
    return list(_names_in(tuple(__path__)))


@cache  # every config that is built asks
def _names_in(folders: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(found.name for found in pkgutil.iter_modules(folders) if not found.name.startswith("_")))


def check_codec_name(name: str) -> str:
    """Return `name` unchanged. Raises ValueError if there is no such codec."""
    if name not in codec_names():
        raise ValueError(f"must be one of {', '.join(codec_names())}")
    return name


def load_codec(name: str) -> "Codec":
    """Import the codec `name` and its library. Raises ValueError if there is no such codec."""
    return cast("Codec", importlib.import_module(f"{__name__}.{check_codec_name(name)}").CODEC)
