"""Answers the calls of DIR/bin (see `call` and standin.py), each in a process of its own. Ends with its
standard input.

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
        connection = listener.accept()[0]
        if os.fork() == 0:
            listener.close()
            answer(directory, connection)
            os._exit(0)
        connection.close()
        reap()


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def answer(directory, connection):
    tool, caller, *rest = received(connection)
    for name, value in zip(VARIABLES, rest):
        os.environ.pop(name, None)
        if value:
            os.environ[name] = value
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    module, code = TOOLS[tool], 1
    try:
        call = Call(directory, tool, rest[len(VARIABLES):], int(caller), module.failure)
        code = call.run(module.main, lambda: gone(connection))
    except SystemExit as end:
        print(end, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    said = (str(code), sys.stdout.getvalue(), sys.stderr.getvalue())
    try:
        connection.sendall("".join(part + "\0" for part in said).encode())
    except OSError:
        pass  # whoever asked is gone


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
            os._exit(0)
        data += more
    return [part.decode() for part in data.split(b"\0")[1:-1]]


main(sys.argv[1])
