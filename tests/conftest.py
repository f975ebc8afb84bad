"""Shared models: tiny, random, on disk; and real ones that PyPI packages carry."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    """The pages of the documentation set what a reader's program may set for good; the next test starts afresh."""
    import torch

    dtype = torch.get_default_dtype()
    yield
    torch.set_grad_enabled(True)
    torch.set_default_dtype(dtype)
