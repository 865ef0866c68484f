"""Types into an interactive bash on a terminal of its own, and prints as JSON what it showed and which text
did not come.

Argument: JSON, a list of pairs: the text to wait for, what to type then.
"""
import json
import os
import pty
import select
import sys
import time

steps = json.loads(sys.argv[1])
pid, master = pty.fork()
if pid == 0:
    os.environ.update(PS1="PROMPT> ", TERM="dumb", INPUTRC="/dev/null", HISTFILE="")
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
shown, seen, missing = b"", 0, None
for wanted, keys in steps:
    end = time.monotonic() + 30
    while (at := shown.find(wanted.encode(), seen)) < 0 and time.monotonic() < end:
        if select.select([master], [], [], 0.05)[0]:
            try:
                shown += os.read(master, 65536)
            except OSError:
                break
    if at < 0:
        missing = wanted
        break
    seen = at + len(wanted)
    os.write(master, keys.encode())
# The shell's jobs go with their terminal.
os.close(master)
end = time.monotonic() + 5
while os.waitpid(pid, os.WNOHANG)[0] == 0:
    if time.monotonic() > end:
        os.kill(pid, 9)
    time.sleep(0.02)
print(json.dumps({"shown": shown.decode("utf-8", "replace"), "missing": missing}))
