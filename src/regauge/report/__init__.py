"""A gauge for people and programs: plain data with a schema version, terminal text, one self-contained HTML page."""

from regauge.report.near import near_strata
from regauge.report.page import fragment, page
from regauge.report.text import inspection, verification
from regauge.report.view import SCHEMA, describe

__all__ = ["SCHEMA", "describe", "fragment", "inspection", "near_strata", "page", "verification"]
