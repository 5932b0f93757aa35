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
    address: Annotated[
        str, typer.Option(help="The address to serve on. Another one than this machine's own needs a token in the environment.")
    ] = "127.0.0.1",
    name: Annotated[list[str], typer.Option(metavar="HOST", help="What browsers call that address, where it has a name.")] = [],  # noqa: B006
    print_only: Annotated[bool, typer.Option("--print", help="Print the command that would be run, and stop.")] = False,
) -> None:
    """Serve the pages on 127.0.0.1 until Ctrl-C. Nothing outside this machine can reach them, and they send nothing.

    With --address others can reach them: then WORKBENCH_DASHBOARD_TOKEN must hold a secret, and each who opens a page is asked for it.
    """
    words, place = LAUNCH.load()(port, address, name), f"http://{address}:{port}"
    if print_only:
        show({"address": place, "command": words}, [" ".join(words)])
        return
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OSError as error:
            raise StoreError(f"Port {port} cannot be used", error.strerror or str(error), do="Choose another with --port.") from error
    note(f"The pages are at {place}; Ctrl-C ends them.")
    code = subprocess.call(words)
    show({"address": place, "exit_code": code}, f"The pages ended with code {code}.")
    if code:
        raise typer.Exit(EXIT_ERROR)
