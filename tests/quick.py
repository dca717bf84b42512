"""Programs in clones without their seconds of imports: a process that has them, and forks.

Started as a script it serves; each call is a fork with the caller's folder, environment and files,
which imports the clone's own `ticketlab`. Notebooks get their kernels in the same way. A fork ends
with its caller, and all of them with the tests. What other signals must reach is run as the real
program.
"""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from atexit import register
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib

PROGRAM = """#!{python} -ISu
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect({address!r})
    call = {{"arguments": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(line, [b"x"], [0, 1, 2])
    line.sendall(json.dumps(call).encode() + b"\\n")
    answer = line.makefile().read()
sys.exit(int(answer or 1))
"""


@cache
def folder() -> Path:
    """A folder for PATH with the programs; what is behind it ends with this process."""
    place = Path(tempfile.mkdtemp(prefix="ticketlab-"))
    address = str(place / "line")
    server = subprocess.Popen(
        [sys.executable, __file__, address],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}, stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    register(end, server)
    for name in PROGRAMS:
        program = place / name
        program.write_text(PROGRAM.format(python=sys.executable, address=address))
        program.chmod(0o755)
    spec = place / "kernels" / "python3" / "kernel.json"  # for JUPYTER_PATH
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps(kernel_spec(place)))
    while not Path(address).exists():
        assert server.poll() is None, "the server could not start"
        time.sleep(0.02)
    return place


def kernel_spec(place: Path) -> dict[str, Any]:
    """What Jupyter has to know to start a kernel."""
    argv = [str(place / "kernel"), "-f", "{connection_file}"]
    return {"argv": argv, "display_name": "Python 3", "language": "python"}


def end(server: "subprocess.Popen[bytes]") -> None:
    """End the process, which removes its folder."""
    assert server.stdin
    server.stdin.close()
    server.wait()


def serve(address: str) -> None:
    """Answer calls, each in a fork of its own; the exit code goes back as text."""
    for name in IMPORTED:
        import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(address + ".new")
        line.listen()
        os.rename(address + ".new", address)
        while sys.stdin not in select.select([line, sys.stdin], [], [])[0]:
            caller, _ = line.accept()
            if os.fork() == 0:
                line.close()
                answer(caller)
                os._exit(0)
            caller.close()
    shutil.rmtree(Path(address).parent, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)  # the tests are gone: so are the forks, and what they started


def answer(caller: socket.socket) -> None:
    """Run one call in this process, as if it had been started for it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(caller, 1, 3)
    call = json.loads(caller.makefile().readline())
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    threading.Thread(target=end_with, args=(caller,), daemon=True).start()
    os.chdir(call["folder"])
    os.environ.clear()
    os.environ.update(call["environment"])
    draw_as_told()
    sys.argv = call["arguments"]
    sys.path[:0] = call["environment"]["PYTHONPATH"].split(os.pathsep)
    caller.sendall(str(exit_code(Path(sys.argv[0]))).encode())


def draw_as_told() -> None:
    """What matplotlib does when it is imported, which was in another environment."""
    if backend := os.environ.get("MPLBACKEND"):
        matplotlib.rcParams["backend"] = backend


def end_with(caller: socket.socket) -> None:
    """End this process when its caller is gone."""
    caller.recv(1)
    os._exit(1)


def exit_code(program: Path) -> int:
    """What the program would end with."""
    try:
        PROGRAMS[program.name](program.parent)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


# ---------------------------------------------------------------- the programs


def ticketlab(place: Path) -> None:
    """The command line, whose notebooks get their kernels from here."""
    from ipykernel import kernelspec

    from ticketlab.cli import app

    kernelspec.get_kernel_dict = partial(kernel_spec, place)
    app()


def dvc(place: Path) -> None:
    """DVC, whose stages find these programs first, as they are in PATH."""
    from dvc.cli import main

    sys.exit(main(sys.argv[1:]))


def jupyter_execute(place: Path) -> None:
    """`jupyter execute`."""
    from nbclient.cli import main

    main()


def kernel(place: Path) -> None:
    """A notebook's kernel, which ends with the process behind all of this."""
    from ipykernel.kernelapp import IPKernelApp

    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    draw_as_told()
    sys.argv.append(f"--IPKernelApp.parent_handle={os.getppid()}")
    IPKernelApp.launch_instance()


def terminal(place: Path) -> None:
    """`ticketlab` for many calls (see `clone.Terminal`)."""
    from clone import serve

    serve(sys.stdin, sys.stdout)


PROGRAMS: dict[str, Callable[[Path], None]] = {
    "ticketlab": ticketlab, "dvc": dvc, "jupyter-execute": jupyter_execute, "kernel": kernel,
    "terminal": terminal,
}  # fmt: skip
IMPORTED = (
    "IPython.display", "dvc.cli.parser", "dvc.commands.repro", "dvc.repo", "ipykernel.kernelapp",
    "ipykernel.zmqshell", "joblib", "matplotlib_inline.backend_inline", "nbclient.cli", "numpy",
    "pandas", "papermill", "pydantic", "rich.progress", "rich.table", "ruamel.yaml",
    "safetensors.torch", "scipy.stats", "seaborn", "torch", "typer",
)  # fmt: skip
"""What the programs import."""


if __name__ == "__main__":
    serve(sys.argv[1])
