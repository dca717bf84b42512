"""`ticketlab` in clones without its three seconds of imports: a process that has them, and forks.

Started as a script it serves; each call is a fork with the caller's folder, environment and files,
which imports the clone's own `ticketlab`. What signals must reach is run as the real program.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from atexit import register
from functools import cache
from pathlib import Path

PROGRAM = """#!{python} -ISu
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect({address!r})
    call = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(line, [b"x"], [0, 1, 2])
    line.sendall(json.dumps(call).encode() + b"\\n")
    answer = line.makefile().read()
sys.exit(int(answer or 1))
"""


@cache
def folder() -> Path:
    """A folder with a `ticketlab` for PATH; the process behind it ends with this one."""
    place = Path(tempfile.mkdtemp(prefix="ticketlab-"))
    address = str(place / "line")
    server = subprocess.Popen(
        [sys.executable, __file__, address], env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    register(end, server, place)
    program = place / "ticketlab"
    program.write_text(PROGRAM.format(python=sys.executable, address=address))
    program.chmod(0o755)
    while not Path(address).exists():
        assert server.poll() is None, "the server could not start"
        time.sleep(0.02)
    return place


def end(server: "subprocess.Popen[bytes]", place: Path) -> None:
    """End the process and remove its folder."""
    server.kill()
    server.wait()
    shutil.rmtree(place, ignore_errors=True)


def serve(address: str) -> None:
    """Answer calls, each in a fork of its own; the exit code goes back as text."""
    import IPython.display  # noqa: F401
    import joblib  # noqa: F401
    import numpy  # noqa: F401
    import pandas  # noqa: F401
    import rich.table  # noqa: F401
    import ruamel.yaml  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch  # noqa: F401
    import typer  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(address + ".new")
        line.listen()
        os.rename(address + ".new", address)
        while True:
            caller, _ = line.accept()
            if os.fork() == 0:
                line.close()
                answer(caller)
                os._exit(0)
            caller.close()


def answer(caller: socket.socket) -> None:
    """Run one call in this process, as if it had been started for it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(caller, 1, 3)
    call = json.loads(caller.makefile().readline())
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(call["folder"])
    os.environ.clear()
    os.environ.update(call["environment"])
    sys.argv = ["ticketlab", *call["arguments"]]
    sys.path[:0] = call["environment"]["PYTHONPATH"].split(os.pathsep)
    caller.sendall(str(exit_code()).encode())


def exit_code() -> int:
    """What the program would end with."""
    try:
        from ticketlab.cli import app

        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    serve(sys.argv[1])
