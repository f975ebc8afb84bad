"""`make demo`: infer and prove the gauge group of two real models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MODELS = Path(sys.prefix) / "models"


def main() -> int:
    root = Path.cwd()
    worst = 0
    for name in ("minilm", "smollm2"):
        path = MODELS / name
        shown = path.relative_to(root) if path.is_relative_to(root) else path
        for verb in ("inspect", "verify"):
            print(f"\n$ regauge {verb} {shown}", flush=True)
            command = [sys.executable, "-c", "from regauge.cli.app import main; main()", verb, str(shown)]
            worst = max(worst, subprocess.run(command).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
