from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module toy.py beside this file: pytest's importlib mode does not let a test import what stands beside it."""
    spec = importlib.util.spec_from_file_location("medssl_tests_toy", Path(__file__).with_name("toy.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
