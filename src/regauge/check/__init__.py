"""The two-sided proof: sound (the function does not change) and tight (nothing is missed)."""

from regauge.check.sound import Soundness, sound
from regauge.check.tight import Tightness, tight

__all__ = ["Soundness", "Tightness", "sound", "tight"]
