"""Programs in clones without their seconds of imports: a process that has them, and forks.

Started as a script it serves; each call is a fork with the caller's folder, environment and files,
which imports the clone's own `ticketlab`. Notebooks get their kernels in the same way. A fork ends
with its caller, and all of them with the tests. What other signals must reach is run as the real
program.
"""

import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import matplotlib
from filelock import FileLock

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
    """A folder for PATH with the programs; all processes of a test run share what is behind it."""
    shared = "PYTEST_XDIST_WORKER" in os.environ
    run = os.environ["PYTEST_XDIST_TESTRUNUID"] if shared else uuid4().hex
    owner = os.getppid() if shared else os.getpid()
    place = Path(tempfile.gettempdir()) / f"ticketlab-{run}"
    address = str(place / "line")
    with FileLock(f"{place}.lock"):
        if place.exists():
            return place
        place.mkdir(mode=0o700)
        for name in PROGRAMS:
            program = place / name
            program.write_text(PROGRAM.format(python=sys.executable, address=address))
            program.chmod(0o755)
        spec = place / "kernels" / "python3" / "kernel.json"  # for JUPYTER_PATH
        spec.parent.mkdir(parents=True)
        spec.write_text(json.dumps(kernel_spec(place)))
        subprocess.run(  # it comes back when calls will be answered
            [sys.executable, __file__, address, str(owner)],
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return place


def kernel_spec(place: Path) -> dict[str, Any]:
    """What Jupyter has to know to start a kernel."""
    argv = [str(place / "kernel"), "-f", "{connection_file}"]
    return {"argv": argv, "display_name": "Python 3", "language": "python"}


def serve(address: str, owner: int) -> None:
    """Answer calls, each in a fork of its own; the exit code goes back as text.

    It goes on in the background, until the process `owner` has ended.
    """
    for name in IMPORTED:
        import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(address)
        line.listen()
        if os.fork() != 0:
            os._exit(0)
        while alive(owner):
            if not select.select([line], [], [], 1)[0]:
                continue
            caller, _ = line.accept()
            if os.fork() == 0:
                line.close()
                answer(caller)
                os._exit(0)
            caller.close()
    place = Path(address).parent
    shutil.rmtree(place, ignore_errors=True)
    Path(f"{place}.lock").unlink(missing_ok=True)
    os.killpg(0, signal.SIGKILL)  # the tests are gone: so are the forks, and what they started


def alive(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


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


def python(place: Path) -> None:
    """`python -c CODE ...` and `python [-W error] FILE ...`; all else is a new process."""
    if sys.argv[1:3] == ["-W", "error"]:
        warnings.simplefilter("error")
        del sys.argv[1:3]
    if sys.argv[1] == "-c":
        code, sys.argv[:2] = sys.argv[2], []
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    elif sys.argv[1].startswith("-"):
        sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))
    else:
        del sys.argv[0]
        runpy.run_path(sys.argv[0], run_name="__main__")


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
    "ticketlab": ticketlab, "dvc": dvc, "jupyter-execute": jupyter_execute, "python": python,
    "kernel": kernel, "terminal": terminal,
}  # fmt: skip
IMPORTED = (
    "IPython.display", "dvc.cli.parser", "dvc.commands.repro", "dvc.repo", "ipykernel.kernelapp",
    "ipykernel.zmqshell", "joblib", "matplotlib_inline.backend_inline", "nbclient.cli", "numpy",
    "pandas", "papermill", "pydantic", "rich.progress", "rich.table", "ruamel.yaml",
    "safetensors.torch", "scipy.stats", "seaborn", "torch", "typer",
)  # fmt: skip
"""What the programs import."""


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
