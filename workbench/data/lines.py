"""The lines of a text file by number, read when they are asked for: a file may be larger than memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

from workbench.core.errors import CorruptFile, MissingFile


class Lines(Sequence[str]):
    """The lines of a UTF-8 file that are not blank, without their line ends. In memory are eight bytes a line."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise MissingFile(self.path, "text file")
        self._starts = array("q")
        with self.path.open("rb") as file:
            at = 0
            for line in file:
                if line.strip():
                    self._starts.append(at)
                at += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        """A line (a slice is read whole). Raises CorruptFile for one that is not UTF-8."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        with self.path.open("rb") as file:
            file.seek(self._starts[index])
            content = file.readline()
        try:
            return content.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise CorruptFile(self.path, "UTF-8", f"line {index} of its text is not ({error.reason})") from None

    def __iter__(self) -> Iterator[str]:
        return (self[number] for number in range(len(self)))
