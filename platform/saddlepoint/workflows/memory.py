"""How much memory a training took, and how much there is."""

import os
import resource
import sys

import torch

CONTEXT = 500.0  # megabytes of a GPU, about, that a process takes before its first tensor


def peak_megabytes(device: torch.device) -> float:
    """The most that this process has held so far; if the device is a GPU, there: what torch took from it, be it in use
    or kept for later, and the context."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 1e6 + CONTEXT
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3  # bytes there, kilobytes here


def free_megabytes(device: torch.device, gpus: float) -> float:
    """What is free for trials: on all GPUs of this machine where trials take one (or a part: gpus), else the memory
    that the system could give without swapping."""
    if device.type == "cuda" and gpus:
        return sum(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())) / 1e6
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":") for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024 / 1e6
    except (OSError, KeyError):  # no Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
