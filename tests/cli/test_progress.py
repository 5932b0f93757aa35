"""The bar: nothing without a terminal, one line with one."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from workbench.cli.progress import bar

DRAW = """
import time
from workbench.cli.progress import bar
with bar() as progress:
    for n in range(1, 21):
        progress(n, 20, f"loss 1.{n} [b]")
        time.sleep(0.02)
    progress(1, 3, "next part")
    time.sleep(0.3)
"""


def test_nothing_is_written_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with bar() as progress:
        for n in range(5):
            progress(n, 5, "words")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_sees_the_words_the_count_and_the_time_left_on_stderr() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", DRAW], stderr=theirs, stdout=subprocess.PIPE, env=os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    )
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 4096):
            seen += part
    except OSError:
        pass  # the other side is closed
    os.close(ours)
    assert process.communicate()[0] == b""
    assert process.returncode == 0
    text = seen.decode()
    assert "loss 1." in text
    assert "[b]" in text, "words are no markup"
    assert "/20" in text
    assert "next part" in text
    assert "left" in text
