"""Answers the calls of DIR/bin (see `call` and standin.py), one after the other; where one is to hang,
each in a process of its own. Ends with its standard input.

A call is NUL-ended strings: how many follow, the tool, the caller's pid, some variables, the arguments.
The answer is three: exit code, standard output, standard error.
"""

import importlib
import io
import os
import select
import socket
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout

from standin import Call

NAMES = ("launchctl", "networksetup", "osascript", "scutil", "security", "systemctl")
TOOLS = {name: importlib.import_module(name) for name in NAMES}
VARIABLES = ("HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "STANDIN_JOB")


def main(directory):
    listener = socket.create_server(("127.0.0.1", 0))
    with open(os.path.join(directory, "port"), "w") as file:
        file.write(str(listener.getsockname()[1]))
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in readable:
            return
        with listener.accept()[0] as connection:
            if not may_hang(directory):
                answer(directory, connection)
            elif os.fork() == 0:
                listener.close()
                answer(directory, connection)
                os._exit(0)
        reap()


def may_hang(directory):
    try:
        with open(os.path.join(directory, "settings.json")) as file:
            return '"hang"' in file.read()
    except FileNotFoundError:
        return False


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def answer(directory, connection):
    asked = received(connection)
    if asked is None:
        return  # whoever asked is gone
    tool, caller, *rest = asked
    for name, value in zip(VARIABLES, rest):
        os.environ.pop(name, None)
        if value:
            os.environ[name] = value
    said = io.StringIO(), io.StringIO()
    module, code = TOOLS[tool], 1
    with redirect_stdout(said[0]), redirect_stderr(said[1]):
        try:
            call = Call(directory, tool, rest[len(VARIABLES):], int(caller), module.failure)
            code = call.run(module.main, lambda: gone(connection))
        except SystemExit as end:
            print(end, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
    parts = (str(code), *(text.getvalue() for text in said))
    try:
        connection.sendall("".join(part + "\0" for part in parts).encode())
    except OSError:
        pass  # likewise


def gone(connection):
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def received(connection):
    data = b""
    while b"\0" not in data or data.count(b"\0") <= int(data[: data.index(b"\0")]):
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    return [part.decode() for part in data.split(b"\0")[1:-1]]


main(sys.argv[1])
