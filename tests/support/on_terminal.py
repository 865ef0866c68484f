"""Runs a command on a terminal of its own: waits until it has shown a text, types, and prints as JSON what
it showed, how it ended, and whether the terminal is as it was.

Arguments: the text, what to type (`^C` is Ctrl-C), the command.
"""
import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
import time

wanted, keys, command = sys.argv[1], sys.argv[2], sys.argv[3:]
keys = keys.replace("^C", "\x03").encode()
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
before = termios.tcgetattr(slave)
pid = os.fork()
if pid == 0:
    os.login_tty(slave) if hasattr(os, "login_tty") else (os.setsid(), [os.dup2(slave, n) for n in range(3)])
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.execvp(command[0], command)
shown, typed, status = b"", False, None
end = time.monotonic() + 60
while status is None and time.monotonic() < end:
    if select.select([master], [], [], 0.05)[0]:
        shown += os.read(master, 65536)
    if not typed and wanted.encode() in shown:
        os.write(master, keys)
        typed = True
    done, code = os.waitpid(pid, os.WNOHANG)
    if done:
        status = os.waitstatus_to_exitcode(code)
if status is None:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
while select.select([master], [], [], 0.1)[0]:
    shown += os.read(master, 65536)
restored = termios.tcgetattr(slave) == before
print(json.dumps({"shown": shown.decode("utf-8", "replace"), "status": status, "restored": restored}))
