"""The program ``workbench``: parse, run one command, turn whatever happens into words and an exit code.

0 done or passed, 1 a gate failed, 2 inconclusive, 3 error, 64 bad usage, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.main import get_command

from workbench.cli import output
from workbench.cli.group import EXIT_BROKEN_PIPE, Root, Stopped, new_app, with_shared
from workbench.core.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, AssayError, UnknownName
from workbench.lab.silence import silence

HELP = "Audit transformers: train, look inside, evaluate, and report what a sceptic can re-derive."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command (default: this process's arguments) and return its exit code."""
    silence()
    _stop_on_terminate()
    words = list(sys.argv[1:] if argv is None else argv)
    session = output.begin()
    # read ahead, so that an error of the parser itself already knows how to speak
    ahead = words[: words.index("--")] if "--" in words else words
    session.json, session.debug = "--json" in ahead, "--debug" in ahead
    try:
        code = _root().main(args=words, prog_name="workbench", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else EXIT_OK
    except Stopped as stop:
        return _unread() if stop.broken else output.fail(stop, stop.exit_code)
    except AssayError as error:
        return output.known(error)
    except BrokenPipeError:
        return _unread()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_OK
    except KeyboardInterrupt as stop:
        return output.fail(stop, EXIT_INTERRUPTED, str(stop) or "Interrupted.")
    except Exception as error:
        return _refused(error, words) if hasattr(error, "format_message") else output.unexpected(error)


def _unread() -> int:
    """Nobody reads our output any more: end quietly, without the interpreter's complaint at its last flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_BROKEN_PIPE


def _root() -> Any:
    app = new_app(HELP)
    app.registered_groups.clear()
    app.info.cls = Root
    app.callback()(_nothing)
    return with_shared(get_command(app))


def _say_version(asked: bool) -> None:
    """Which workbench this is, on one line."""
    if asked:
        try:
            own = metadata.version("assay-workbench")
        except metadata.PackageNotFoundError:
            own = "(run from its source)"
        typer.echo(f"assay-workbench {own}")
        raise typer.Exit


def _nothing(
    version: Annotated[bool, typer.Option("--version", help="Say which version this is, and stop.", callback=_say_version)] = False,
) -> None:
    pass


_nothing.__doc__ = HELP


def _refused(error: Any, words: Sequence[str]) -> int:
    """What the argument parser will not take: always exit code 64, in our words. Not every error of the parser knows its command."""
    context = getattr(error, "ctx", None)
    command = " ".join(["workbench", *(word for word in words[:1] if not word.startswith("-"))])
    where = f"`{context.command_path}`" if context is not None else f"`{command}`"
    name = getattr(error, "option_name", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return output.fail(error, EXIT_USAGE, error.format_message())
    if type(error).__name__ == "NoSuchOption" and context is not None and name:
        allowed = [opt for param in context.command.get_params(context) for opt in (*param.opts, *param.secondary_opts) if opt[0] == "-"]
        return output.fail(error, EXIT_USAGE, str(UnknownName("option", name, allowed, where=f"of {where}")))
    words = error.format_message().rstrip(".")
    return output.fail(error, EXIT_USAGE, f"{words}. Run {where[:-1]} --help` to see what it takes.")


def _stop_on_terminate() -> None:
    """SIGTERM is taken as Ctrl-C, so that what a scheduler ends can be resumed like what a person ends."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(main())
