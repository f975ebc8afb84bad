"""Work on directories: apply an element to a checkpoint, take it back, and what stands beside the weights to say so."""

from regauge.jobs.apply import apply
from regauge.jobs.mapping import export_mapping
from regauge.jobs.undo import undo

__all__ = ["apply", "export_mapping", "undo"]
