"""Real processes of the program without the seconds that importing takes: ``python -m tests.lab.forking``.

It imports the program once, computes nothing, and forks a process for each request: a line of JSON on stdin with ``words`` (the
command's arguments), ``env``, ``cwd``, ``out`` and ``err`` (files), and what is to be different about that process: ``versions``
(``{"torch": "9.9"}``), ``threads``, ``most_bytes`` (of a file it may write), ``plain`` (root gives up the right to write what is
read-only). It answers with the process's id and, once it has ended, with how.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
from importlib import metadata
from typing import Any

OVERRIDE = (1 << 1) | (1 << 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


def _give_up_overriding() -> None:
    """This process's root is bound by the permissions of files from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, data):
        raise OSError(ctypes.get_errno(), "capget")
    data[0] &= ~OVERRIDE
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def _become(told: dict[str, Any]) -> None:
    import torch

    os.setsid()
    os.chdir(told["cwd"])
    os.environ.update(told["env"])
    for name, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(told[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.default_int_handler if name is signal.SIGINT else signal.SIG_DFL)
    if versions := told.get("versions"):
        real = metadata.version
        metadata.version = lambda package: versions.get(package, "") or real(package)
        torch.__version__ = versions.get("torch", torch.__version__)
    torch.set_num_threads(told.get("threads", 1))
    if told.get("most_bytes"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (told["most_bytes"], told["most_bytes"]))
    if told.get("plain") and os.geteuid() == 0:
        _give_up_overriding()


def _forked(told: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        _become(told)
        from workbench.cli.main import main

        code = main(told["words"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _import_all() -> None:
    import torch._dynamo  # which torch imports when a model is made, and which is most of the work of a small training

    import workbench.cli.train
    from workbench.cli.main import _root
    from workbench.families import FAMILIES
    from workbench.lab import run
    from workbench.training import loop

    FAMILIES.load("gpt")
    _root()
    assert all((torch._dynamo, run, loop, workbench.cli.train)), "imported for the processes to come"


def _say(**facts: Any) -> None:
    os.write(1, (json.dumps(facts) + "\n").encode())


def serve() -> None:
    """Answer until stdin ends. One thread, since a fork takes only one with it."""
    _import_all()
    _say(ready=True)
    asked = b""
    while True:
        if select.select([0], [], [], 0.005)[0]:
            read = os.read(0, 1 << 16)
            if not read:
                return
            *lines, asked = (asked + read).split(b"\n")
            for line in lines:
                _say(started=_forked(json.loads(line)))
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                _say(ended=ended[0], status=os.waitstatus_to_exitcode(ended[1]))


if __name__ == "__main__":
    serve()
