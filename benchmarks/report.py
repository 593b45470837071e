"""How every benchmark ends: lines for people, JSON for machines."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DEFAULT_FOLDER = Path("out/benchmarks")


def write_report(name: str, figures: Mapping[str, Any], path: Path | None) -> Path:
    """Write the figures with the machine they were measured on; returns where."""
    target = path or DEFAULT_FOLDER / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "machine": platform.machine()}
    target.write_text(json.dumps({"benchmark": name, "machine": machine, **figures}, indent=1))
    return target
