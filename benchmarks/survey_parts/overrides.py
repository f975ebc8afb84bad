"""Exceptions by type: what a tiny configuration needs beyond the meaning of its fields.

Values are assigned after `shrink_config`, by dotted path into the configuration. Everything general belongs in
`regauge.checkpoint.shrink`; this table may know types by name because it is a benchmark's, not the library's.
"""

from __future__ import annotations

from typing import Any

BEFORE: dict[str, dict[str, Any]] = {}
AFTER: dict[str, dict[str, Any]] = {}
