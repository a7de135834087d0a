"""Writing files so that a reader never meets half of one. Standard library only."""

import os
import tempfile
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
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
