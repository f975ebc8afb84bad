"""Shared models: tiny, random, on disk; and real ones that PyPI packages carry."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
