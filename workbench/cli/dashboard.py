"""``workbench dashboard``."""

from __future__ import annotations

import socket
import subprocess
from typing import Annotated

import typer

from workbench.cli.group import new_app
from workbench.cli.output import note, show
from workbench.core.catalog import Entry
from workbench.core.errors import EXIT_ERROR, StoreError

# Found by name: the pages are a shell of their own, and this one imports none of it.
LAUNCH = Entry("dashboard", "dashboards.launch:command", "the command that serves the pages", "standard")

app = new_app("Open the interactive pages on this machine.")


@app.command()
def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port on 127.0.0.1.")] = 8501,
    print_only: Annotated[bool, typer.Option("--print", help="Print the command that would be run, and stop.")] = False,
) -> None:
    """Serve the pages on 127.0.0.1 until Ctrl-C. Nothing outside this machine can reach them, and they send nothing."""
    words, address = LAUNCH.load()(port), f"http://127.0.0.1:{port}"
    if print_only:
        show({"address": address, "command": words}, [" ".join(words)])
        return
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            raise StoreError(f"Port {port} cannot be used", error.strerror or str(error), do="Choose another with --port.") from error
    note(f"The pages are at {address}; Ctrl-C ends them.")
    code = subprocess.call(words)
    show({"address": address, "exit_code": code}, f"The pages ended with code {code}.")
    if code:
        raise typer.Exit(EXIT_ERROR)
