"""A python that has imported what a run needs, and forks for every command line it receives.

Those imports take seconds, and the tests start a hundred processes. A forked process is like any
other: it has its own pid, signals, folder, variables, output and exit code.

``python warm_python.py ADDRESS MODULE ...`` imports the modules; without modules it imports
prunebench and refuses torch and other heavy packages from then on. ``conftest.py`` connects to the
socket ADDRESS once for each testing process, to keep this process alive until it hangs up, and once
for each command: it sends two files for the output and the command, and receives pid and exit code.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import threading
import time
import weakref
from dataclasses import is_dataclass
from multiprocessing.connection import Connection
from pathlib import Path

#: id of a process -> the connection to which its exit code is sent
RUNNING = {}
LARGE, COLLAPSE = 2 << 20, 25  # bytes, and MADV_COLLAPSE
HEAVY = {"torch", "torchvision", "wandb", "matplotlib", "pandas"}


class Refuse:
    """Refuses to import heavy packages."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HEAVY:
            raise AssertionError("imported " + name)


def prepare(modules):
    """Imports `modules`; none may start a thread, since a fork would lack it."""
    if not modules:
        sys.meta_path.insert(0, Refuse())
    for name in modules or ["prunebench.cli", "prunebench.config"]:
        with contextlib.suppress(ModuleNotFoundError):  # older releases lack some private ones
            importlib.import_module(name)
    compose_once()
    if modules:
        import_all()
        cheapen()
    for registered in [*weakref.finalize._registry]:
        registered.atexit = False  # torch's clean-up at exit is slow and not needed
    gc.freeze()  # memory that is never collected stays shared with the forks
    gc.set_threshold(5000, 10, 50)
    if modules:
        use_large_pages()


def use_large_pages():
    """Moves shared memory to pages of 2 MiB: a fork takes a third of the time.

    Linux before 6.1 refuses this, and other systems lack it.
    """
    with contextlib.suppress(OSError, AttributeError):
        advise = ctypes.CDLL(None).madvise
        for line in Path("/proc/self/maps").read_text().splitlines():
            addresses, access, _, _, _, *name = line.split()
            begin, end = (int(address, 16) for address in addresses.split("-"))
            begin, end = -(-begin // LARGE) * LARGE, end // LARGE * LARGE
            if "w" in access and name in ([], ["[heap]"]) and begin < end:
                advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), COLLAPSE)


def compose_once():
    """Spares Hydra to compose every command just to see whether it is a sweep.

    Only an experiment can say so; None is Hydra's answer if nothing does. It also fills the caches
    of Hydra's parsers and plugins, and reads the YAMLs.
    """
    from hydra import compose, initialize_config_dir
    from hydra._internal.hydra import Hydra

    from prunebench.options.files import conf_dir

    sys.path.insert(0, os.path.dirname(__file__))
    from composed_once import hasten

    sys.path.pop(0)
    hasten()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        compose("config", ["name=a", "model.width=0.5", "run.seed=1", "budget.exclude=[a,b.*]"])

    folder = conf_dir() / "experiment"
    sweeps = [path.stem for path in folder.glob("*.yaml") if "MULTIRUN" in path.read_text()]
    asks = {"hydra.mode", *(f"experiment={name}" for name in sweeps)}
    whole = Hydra.get_mode

    def get_mode(self, config_name, overrides):
        asked = any(word.startswith(start) for word in overrides for start in asks)
        return whole(self, config_name, overrides) if asked else None

    Hydra.get_mode = get_mode


def import_all():
    """Imports all of prunebench, whose options are usually imported when chosen.

    It also reads the digits, and asks git about the checkout.
    """
    import prunebench

    for module in pkgutil.walk_packages(prunebench.__path__, "prunebench."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    prunebench.datasets.digits.shipped()
    prunebench.records.environment.environment()
    know_fields()


def know_fields():
    """Looks up the fields of options and sections, which each run does for those that it reads."""
    from prunebench.config import Recipe
    from prunebench.config.sections import Baseline, Settings
    from prunebench.options.code import imported
    from prunebench.options.files import conf_dir, read_option
    from prunebench.options.schema import fields_of, hints_of

    values = [read_option(path) for path in conf_dir().glob("*/*.yaml")]
    targets = {one["_target_"] for one in values if "_target_" in one}
    schemas = [Baseline, Recipe, Settings, *(imported("", target) for target in targets)]
    for schema in schemas:
        parts = [kind for kind in hints_of(schema).values() if is_dataclass(kind)]
        schemas += parts
        if not parts:
            fields_of(schema)


def cheapen():
    """Speeds up what takes most of a run's time with very small networks.

    A latency is that of one pass, or of a few if a budget depends on it; networks of the same
    shapes are counted once; and further processes of a run are forked, too, unless
    START_METHOD=spawn.
    """
    from torch.multiprocessing.spawn import start_processes
    from torch.utils.benchmark import Timer

    from prunebench.measure import costs, layers
    from prunebench.run import clock, workers

    count, counted = costs._counted, {}

    def counts(network, example):
        shapes = [(name, p.shape) for name, p in network.named_parameters()]
        key = (type(network), example.shape, *shapes)
        if key not in counted:
            counted[key] = count(network, example)
        return counted[key]

    def start(*arguments, **more):
        method = os.environ.get("START_METHOD", "fork")
        return start_processes(*arguments, **more, start_method=method)

    Timer.adaptive_autorange = lambda self, **_: self.timeit(1)
    clock.SECONDS, layers.fastest.__defaults__ = 0.2, (0.005,)
    workers.spawn = start
    costs._counted = counts


def next_command(address):
    """Serves commands; returns only in a forked process, with the words after ``python``."""
    signal.signal(signal.SIGCHLD, tell_ends)
    users = set()
    with socket.socket(socket.AF_UNIX) as listener:
        with contextlib.suppress(FileNotFoundError):  # a killed server has left the socket
            os.unlink(address)
        listener.bind(address)
        listener.listen(64)
        while True:
            for ready in select.select([listener, *users], [], [])[0]:
                if ready in users:  # this testing process has hung up
                    users.remove(ready)
                    ready.close()
                    continue
                asking, _ = listener.accept()
                sent, files, *_ = socket.recv_fds(asking, 1, 2)
                if not files:
                    users.add(asking)
                    asking.send(sent)
                elif words := forked(Connection(asking.detach()), *files):
                    for user in users:
                        user.close()
                    return words
            if not users:
                os.unlink(address)
                while RUNNING:
                    time.sleep(0.02)
                raise SystemExit


def forked(connection, out, err):
    """Forks; returns None here, and in the forked process the words that it shall run."""
    words, folder, variables = connection.recv()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # until RUNNING knows the child
    if pid := os.fork():
        RUNNING[pid] = connection
        connection.send(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        os.close(out)
        os.close(err)
        return None
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    for other in (connection, *RUNNING.values()):
        other.close()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    if wandb := sys.modules.get("wandb.sdk.data_types._private"):
        atexit.unregister(wandb.MEDIA_TMP.cleanup)  # would remove a folder that all forks share
    return words


def tell_ends(*_):
    """Sends the exit code of every forked process that has ended."""
    with contextlib.suppress(ChildProcessError):  # raised when no child is left
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with RUNNING.pop(ended[0]) as connection, contextlib.suppress(OSError):
                connection.send(os.waitstatus_to_exitcode(ended[1]))


def run(words):
    """Does what ``python WORDS`` does."""
    if words[0] == "-m":
        sys.argv, sys.path[:0] = words[1:], [os.getcwd()]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv, sys.path[:0] = ["-c", *words[2:]], [os.getcwd()]
        exec(words[1], {"__name__": "__main__"})
    else:
        sys.argv, sys.path[:0] = words, [os.path.dirname(words[0])]
        runpy.run_path(words[0], run_name="__main__")


def end(words):
    """Runs `words` and exits like the interpreter, but without destroying every module."""
    code = 0
    try:
        run(words)
    except SystemExit as stopped:
        code = stopped.code or 0
        if not isinstance(code, int):
            sys.stderr.write(f"{code}\n")
            code = 1
    except BaseException:  # noqa: BLE001 - whatever it is, it ends the process
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare(sys.argv[2:])
    end(next_command(sys.argv[1]))
