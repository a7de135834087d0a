"""Writing files so that a reader never meets half of one. Standard library only."""

import os
import uuid
from pathlib import Path


def write_atomic(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes to a temporary file beside `path`, flushes it to disk and renames it.

    Args:
        path: Where the file shall be; its folder must exist.
        content: The bytes.

    Raises:
        OSError: If the folder cannot be written; an existing file is then untouched.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
