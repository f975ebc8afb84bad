"""Opening models: what a user names on the command line becomes a module with example inputs, with or without
weights."""

from regauge.checkpoint.opened import Opened, Sample
from regauge.checkpoint.spec import open_model

__all__ = ["Opened", "Sample", "open_model"]
