"""What this machine and installation can do: `catalign doctor`."""

import os
import platform
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table
from rich.text import Text

from catalign.model.precision import choose_precision

DISTRIBUTION = "catalign"
GIVES = {  # what each optional part of the package is for
    "serve": "the HTTP service (catalign serve)",
    "sql": "tables of PostgreSQL and SQLite (catalign data prepare --connection)",
    "report": "the HTML report of runs (catalign report)",
    "quantize": "frozen weights in eight or four bits on a GPU (catalign train --quantize)",
    "cluster": "batch recommendation on several machines (catalign recommend --engine ray)",
    "fuzz": "the search for inputs that break the importer (make fuzz)",
    "docs": "the documentation site (make docs)",
    "release": "source distribution and wheel (make dist)",
    "dev": "the test suite and the checks (make test, make check)",
}
FORMATS = {torch.bfloat16: "bfloat16 autocast, weights and losses in float32", torch.float32: "float32"}


def show(found: dict[str, Any]) -> None:
    """Print what `examine` found as tables."""
    console = Console(markup=False)  # square brackets name optional parts here
    console.print(_table("Versions", [(row["package"], _version_line(row)) for row in found["versions"]]))
    devices = found["devices"]
    rows = [
        (
            "CPU",
            f"{devices['cpu']['name']}, {devices['cpu']['cores']} cores, {devices['cpu']['threads']} threads in use",
        ),
        ("memory", _gigabytes(devices["memory_bytes"])),
        ("free disk here", _gigabytes(devices["disk_free_bytes"])),
        *((gpu["device"], f"{gpu['name']}, {_gigabytes(gpu['memory_bytes'])}") for gpu in devices["gpus"]),
    ]
    console.print(_table("Devices", rows if devices["gpus"] else [*rows, ("GPU", "none found")]))
    precision = [(row["device"], f"{row['training']}: {row['why']}") for row in found["precision"]]
    console.print(_table("Number formats in training", precision))
    missing = [(row["part"], f"{row['gives']}\n{row['how']}") for row in found["missing"]]
    console.print(_table("Missing optional parts", missing or [("none", "")]))


def examine() -> dict[str, Any]:
    """Everything that `doctor` prints, as plain values."""
    devices = _devices()
    on = ["cpu", *(gpu["device"] for gpu in devices["gpus"])]
    chosen = [choose_precision(torch.device(device)) for device in on]
    precision = [
        {"device": device, "training": FORMATS[choice.dtype], "why": choice.reason}
        for device, choice in zip(on, chosen, strict=True)
    ]
    versions, missing = _packages()
    if not devices["gpus"]:
        gives = "fine-tuning of downloaded models; a CPU is for the presets of the embedded model"
        how = "with an NVIDIA GPU in the machine, install the CUDA build of torch"
        missing.append({"part": "GPU", "gives": gives, "how": how})
    return {
        "versions": versions,
        "devices": devices,
        "precision": precision,
        "missing": missing,
    }


def _packages() -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The versions of what the package requires, and the optional parts that are not whole."""
    versions: list[dict[str, Any]] = [
        {"package": "Python", "version": platform.python_version(), "wanted": "", "fits": True},
        {"package": DISTRIBUTION, "version": metadata.version(DISTRIBUTION), "wanted": "", "fits": True},
    ]
    absent: dict[str, list[str]] = {}
    for requirement in map(Requirement, metadata.requires(DISTRIBUTION) or []):
        version = _installed_version(requirement.name)
        fits = version is not None and requirement.specifier.contains(version, prereleases=True)
        part = next((part for part in GIVES if _belongs_to(requirement, part)), None)
        if part is None:
            row = {"package": requirement.name, "version": version, "wanted": str(requirement.specifier), "fits": fits}
            versions.append(row)
        elif not fits:
            absent.setdefault(part, []).append(requirement.name)
    missing = [
        {"part": part, "gives": GIVES[part], "how": f"pip install '{DISTRIBUTION}[{part}]' ({', '.join(names)})"}
        for part, names in absent.items()
    ]
    return versions, missing


def _belongs_to(requirement: Requirement, part: str) -> bool:
    """Whether a requirement is there for an optional part only."""
    marker = requirement.marker
    return marker is not None and not marker.evaluate({"extra": ""}) and marker.evaluate({"extra": part})


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    """CPU, memory and GPUs as torch sees them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        gpus.append({"device": f"cuda:{index}", "name": properties.name, "memory_bytes": properties.total_memory})
    if torch.backends.mps.is_available():
        gpus.append({"device": "mps", "name": "Apple GPU", "memory_bytes": None})
    return {
        "cpu": {
            "name": torch.cpu.get_capabilities().get("cpu_name", platform.machine()),
            "cores": cores,
            "threads": torch.get_num_threads(),
        },
        "memory_bytes": _memory_bytes(),
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
        "gpus": gpus,
    }


def _memory_bytes() -> int | None:
    """The machine's memory; None where the system does not tell (Windows)."""
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _version_line(row: dict[str, Any]) -> str | Text:
    if row["fits"]:
        return str(row["version"])
    return Text(f"{row['version'] or 'not installed'}, needs {row['wanted'] or 'any version'}", style="red")


def _gigabytes(number: int | None) -> str:
    return "unknown" if number is None else f"{number / 1e9:.1f} GB"


def _table(title: str, rows: Sequence[tuple[str, str | Text]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, text)
    return table
