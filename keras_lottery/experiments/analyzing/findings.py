"""What an analysis found, as files: words, tables, pictures, numbers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_lottery import drawing
from keras_lottery.experiments.store import write_json
from keras_lottery.files import write_atomic

FOLDER = "analysis"
DASH = "\N{EN DASH}"  # in a table: not known
_FORMAT = 1
_KINDS = ("png", "svg")


@dataclass(frozen=True)
class Table:
    """A table as people read it.

    Attributes:
        title: What it shows.
        columns: Headings.
        rows: A list of texts for each row, as long as `columns`.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]

    def lines(self) -> list[str]:
        """The table in plain text, a line a row.

        Example:

        >>> Table("Counts", ["layer", "alive"], [["dense", "12"]]).lines()
        ['layer  alive', 'dense     12']
        """
        rows = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    Attributes:
        name: The file's, without its ending.
        alt: What it shows, for those who cannot see it.
        width: On a page, in pixels.
        files: Content by format, `"png"` and `"svg"`.
    """

    name: str
    alt: str
    width: int
    files: dict[str, bytes]


@dataclass(frozen=True)
class Finding:
    """What one analysis found.

    Attributes:
        name: The analysis, as the file's name; a later finding of that name takes its place.
        title: A heading.
        words: How to read it: paragraphs.
        tables: For people.
        pictures: Each is a file beside the numbers.
        numbers: All of it for programs, as JSON holds it.

    Example:

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> table = Table("Counts", ["layer", "alive"], [["dense", "12"]])
    >>> path = Finding("anatomy", "Anatomy", ["One layer."], [table]).write(folder)
    >>> path.name, read(folder)[0].tables[0].rows
    ('anatomy.json', [['dense', '12']])
    """

    name: str
    title: str
    words: list[str]
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Writes the pictures, then the numbers; pictures of an earlier finding go.

        Returns:
            The file of the numbers.

        Raises:
            OSError: If the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for picture in self.pictures:
            for kind, content in picture.files.items():
                write_atomic(folder / f"{picture.name}.{kind}", content)
        path = folder / f"{self.name}.json"
        write_json(path, self._content())
        kept = {picture.name for picture in self.pictures}
        for old in [*folder.glob(f"{self.name}.*"), *folder.glob(f"{self.name}_*")]:
            if old.suffix[1:] in _KINDS and old.stem not in kept:
                old.unlink()
        return path

    def _content(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "name": self.name,
            "title": self.title,
            "words": self.words,
            "tables": [vars(table) for table in self.tables],
            "pictures": [{"name": p.name, "alt": p.alt, "width": p.width} for p in self.pictures],
            "numbers": self.numbers,
        }


def pictures(name: str, figures: Mapping[str, Any]) -> list[Picture]:
    """Figures as pictures of the finding `name`.

    Args:
        name: The finding's.
        figures: matplotlib figures, made within `drawing.drawing()`, by what each shows: the
            file's name ends in it. The empty text names the file as the finding.
    """
    found = []
    with drawing.drawing():
        for what, figure in figures.items():
            title = next((t for axes in figure.axes if (t := axes.get_title())), what or name)
            files = {kind: drawing.save(figure, kind) for kind in _KINDS}
            stem = f"{name}_{what}" if what else name
            width = round(100 * figure.get_figwidth())
            found.append(Picture(stem, figure.get_suptitle() or title, width, files))
    return found


def plain(value: Any) -> Any:
    """Dataclasses, mappings, arrays and NumPy numbers as JSON holds them.

    Example:

    >>> plain({"table": Table("a", ["b"], []), 3: np.arange(2), "n": np.float32(0.5)})
    {'table': {'title': 'a', 'columns': ['b'], 'rows': []}, '3': [0, 1], 'n': 0.5}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def read(folder: Path) -> list[Finding]:
    """The findings in a folder, by name.

    Raises:
        ValueError: If a file is damaged; it says what to do.
    """
    return [_read(path) for path in sorted(folder.glob("*.json"))]


def _read(path: Path) -> Finding:
    try:
        content = json.loads(path.read_text())
        if content["format"] != _FORMAT:
            raise ValueError(f"it is of format {content['format']}, this package reads {_FORMAT}")
        shown = [
            Picture(**p, files={k: (path.parent / f"{p['name']}.{k}").read_bytes() for k in _KINDS})
            for p in content["pictures"]
        ]
        texts = {name: content[name] for name in ("name", "title", "words", "numbers")}
        return Finding(**texts, tables=[Table(**t) for t in content["tables"]], pictures=shown)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise ValueError(
            f"Cannot read the finding {str(path)!r}: {error}. Remove it, or run "
            "`keras-lottery analyze` again."
        ) from error
