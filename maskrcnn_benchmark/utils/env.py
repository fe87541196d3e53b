"""Devices, and the versions of the libraries in use."""

from __future__ import annotations

import platform

import torch

from maskrcnn_benchmark.utils.errors import DeviceError


def resolve_device(name: str) -> torch.device:
    """Resolve a value of MODEL.DEVICE; "auto" is the GPU if there is one, else the CPU.

    Raises:
        DeviceError: the requested GPU does not exist, or the name is no device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"MODEL.DEVICE {name!r} is no device; use auto, cpu, cuda or cuda:0") from None
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        reason = "this torch was built without CUDA" if torch.version.cuda is None else "no GPU was found"
        raise DeviceError(f"MODEL.DEVICE is {name!r}, but {reason}; use MODEL.DEVICE auto or cpu")
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise DeviceError(
            f"MODEL.DEVICE is {name!r}, but there are only {count} GPUs (cuda:0 to cuda:{count - 1})"
        )
    return device


def device_name(device: torch.device) -> str:
    """Name of the GPU, or of the processor (where the system tells it) with the number of torch threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor_name()}, {torch.get_num_threads()} threads"


def _processor_name() -> str:
    """Model name of the processor where the system tells it, else its architecture."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((x.split(":", 1)[1].strip() for x in file if x.startswith("model name")), name)
    except OSError:
        return name


def versions() -> dict[str, str]:
    """Versions of Python and libraries, stored with checkpoints and printed at the start of a run."""
    import torchvision

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a subclass of str, which safe loading refuses
        "torchvision": torchvision.__version__,
        "cuda": torch.version.cuda or "none",
    }
