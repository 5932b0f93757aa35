"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[str, typer.Option("--model", "-m", metavar="REF", help="A checkpoint folder, run:ID, or organism:NAME[@option=value].")]
Settings = Annotated[list[str], typer.Option("--set", "-s", metavar="NAME=VALUE", help="Change a field; may be given again.")]
Resume = Annotated[str, typer.Option(metavar="RUN", help="Go on with an interrupted run; 'auto' finds the newest with this spec.")]
