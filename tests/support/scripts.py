"""Programs that belong to no package (`examples/`, `benchmarks/`), as modules."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from tests.conftest import ROOT


def script(folder: str, name: str) -> ModuleType:
    """The program `folder/name.py`, which may import its neighbours."""
    place = str(ROOT / folder)
    sys.path.insert(0, place)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(place)
