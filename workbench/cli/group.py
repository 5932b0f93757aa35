"""The command group: lazy, with our own words for unknown names, and with --json and --debug on every command.

Only the catalogue of commands is read for ``workbench --help``; a command's module is imported when the command is named.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from workbench.cli.output import SESSION
from workbench.core.catalog import Catalog
from workbench.core.errors import EXIT_INTERRUPTED, UnknownName

EXIT_BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended

COMMANDS = Catalog(
    "command",
    {
        "audit": ("workbench.cli.audit:app", "train, look inside, evaluate and report: the whole audit", "headline"),
        "train": ("workbench.cli.train:app", "train a model by a recipe", "headline"),
        "probe": ("workbench.cli.probe:app", "ask one instrument about a model", "headline"),
        "harvest": ("workbench.cli.harvest:app", "keep a model's activations on a corpus", "standard"),
        "eval": ("workbench.cli.eval:app", "run evaluation suites on a model", "headline"),
        "calibrate": ("workbench.cli.calibrate:app", "score instruments where the truth was planted, write cards", "headline"),
        "report": ("workbench.cli.report:app", "write the report of a finished run", "headline"),
        "trend": ("workbench.cli.trend:app", "report a training over its checkpoints, pair by pair", "standard"),
        "verify": ("workbench.cli.verify:app", "check an evidence bundle and derive its report again", "headline"),
        "gate": ("workbench.cli.gate:app", "hold a run against a policy by confidence bounds", "headline"),
        "keys": ("workbench.cli.keys:app", "make keys that sign bundles, say whom to trust", "standard"),
        "compare": ("workbench.cli.compare:app", "compare two runs of one suite, pair by pair", "standard"),
        "curve": ("workbench.cli.curve:app", "score a run in every reasonable way, side by side", "standard"),
        "runs": ("workbench.cli.runs:app", "list runs, show, draw, export and import them", "standard"),
        "models": ("workbench.cli.models:app", "list models, show one", "standard"),
        "sites": ("workbench.cli.sites:app", "list every activation site of a model with axes", "standard"),
        "data": ("workbench.cli.data:app", "list, fetch and verify public data sets", "standard"),
        "dashboard": ("workbench.cli.dashboard:app", "open the interactive pages on this machine", "standard"),
        "doctor": ("workbench.cli.doctor:app", "check this installation", "standard"),
    },
)

_SETTINGS: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}


class Group(TyperGroup):
    """A group whose unknown commands are named with the nearest ones, and whose leaves all take --json and --debug."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            raise UnknownName("command", args[0], self.list_commands(ctx), where=f"of `{ctx.command_path}`")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return with_shared(super().get_command(ctx, cmd_name))


class Root(Group):
    """The group of all commands, read from the catalogue."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        command = get_command(COMMANDS.load(cmd_name))
        command.name = cmd_name
        return with_shared(command)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.words) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, BrokenPipeError) as stop:
            raise Stopped(stop) from stop


class Stopped(Exception):
    """The command was ended from outside, by Ctrl-C or by a reader that went away. Carried past the parser, which has codes of
    its own for both and drops what was to be said."""

    def __init__(self, stop: BaseException) -> None:
        self.broken = isinstance(stop, BrokenPipeError)
        self.exit_code = EXIT_BROKEN_PIPE if self.broken else EXIT_INTERRUPTED
        super().__init__("" if self.broken else str(stop) or "Interrupted.")


def new_app(help: str = "") -> typer.Typer:
    """A Typer application for one command, or with several for a group of commands."""
    return typer.Typer(cls=Group, help=help, no_args_is_help=True, **_SETTINGS)


def with_shared(command: Any) -> Any:
    """``command`` with the shared options, unless it has them already."""
    if command is None or any("--json" in p.opts for p in command.params):
        return command
    shared = typer.Typer(**_SETTINGS)
    shared.command()(_shared)
    for option in get_command(shared).params:
        if "--help" not in option.opts:
            option.expose_value = False
            command.params.append(option)
    return command


def _remember_json(value: bool) -> None:
    SESSION.json = SESSION.json or value


def _remember_debug(value: bool) -> None:
    SESSION.debug = SESSION.debug or value


def _shared(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.", callback=_remember_json, is_eager=True)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback on errors.", callback=_remember_debug, is_eager=True)] = False,
) -> None:
    """The options of every command."""
