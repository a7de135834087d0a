"""The state of a training in one file: all that is needed to go on as if never interrupted."""

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save as to_safetensors

from keras_lottery.files import write_atomic
from keras_lottery.rewinding import Snapshot

FORMAT = "keras_lottery.checkpoint"
VERSION = "1"
Curve = dict[str, list[float | int | None]]


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        snapshot: Its step, and all variables of the model and the optimizer.
        curve: What was measured so far: lists of equal length, `"step"` among them.
        seconds: Wall time so far, without interruptions.
    """

    snapshot: Snapshot
    curve: Curve = field(default_factory=dict)
    seconds: float = 0.0


def save(path: Path, progress: Progress) -> None:
    """Writes a checkpoint, atomically.

    Raises:
        OSError: If it cannot be written; an older one is then still there.
    """
    snapshot = progress.snapshot
    arrays = [*snapshot.variables.values(), *(snapshot.optimizer or [])]
    tensors = {f"{i:05d}": np.array(a, order="C") for i, a in enumerate(arrays)}
    about = {
        "step": snapshot.step,
        "paths": list(snapshot.variables),
        "optimizer": snapshot.optimizer is not None,
        "curve": progress.curve,
        "seconds": progress.seconds,
        "crc32": _crc(tensors),
    }
    write_atomic(path, to_safetensors(tensors, {FORMAT: VERSION, "about": json.dumps(about)}))


def load(path: Path) -> Progress:
    """Reads a checkpoint.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged, truncated or of another format; names file and reason.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint at {str(path)!r}.")
    try:
        return _parse(path)
    except (ValueError, TypeError, KeyError, OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"Cannot read the checkpoint {str(path)!r}: {error}") from error


def _parse(path: Path) -> Progress:
    with safetensors.safe_open(path, framework="numpy") as file:
        header = file.metadata() or {}
        if header.get(FORMAT) != VERSION:
            raise ValueError(f"expected format {FORMAT} {VERSION}, found {header.get(FORMAT)}")
        about: dict[str, Any] = json.loads(header["about"])
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    if _crc(tensors) != about["crc32"]:
        raise ValueError("its tensors are damaged (checksum)")
    arrays, paths = list(tensors.values()), about["paths"]
    slots = arrays[len(paths) :] if about["optimizer"] else None
    variables = dict(zip(paths, arrays[: len(paths)], strict=True))
    snapshot = Snapshot(about["step"], variables, slots)
    return Progress(snapshot, about["curve"], about["seconds"])


def _crc(tensors: dict[str, Any]) -> int:
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].tobytes(), crc)
    return crc
