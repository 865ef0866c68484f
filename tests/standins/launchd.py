"""One job as launchd keeps it: opens its sockets, starts it, starts it again. Started by the stand-in
for launchctl, told by signals: TERM = bootout, USR1 = kickstart, USR2 = kickstart -k.

The socket is handed over as systemd does (LISTEN_FDS), as only macOS has launch_activate_socket.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

LOOK = 0.02


class Job:
    def __init__(self, directory, order):
        self.dir, self.label, self.plist = directory, order["label"], order["plist"]
        self.settings = order["settings"]
        self.process, self.runs, self.last, self.started = None, 0, None, 0.0
        self.told, self.ending = set(), None
        at_load = self.plist.get("RunAtLoad") or self.plist.get("KeepAlive")
        self.wanted = bool(at_load) and not self.settings["on_demand"]
        self.sockets = [s for s in map(bound, self.plist.get("Sockets", {}).values()) if s]
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda n, _: self.told.add(n))

    def run(self):
        self.note()
        print("ready", flush=True)
        while not (self.ending and self.process is None):
            self.obey()
            self.reap()
            self.start()
            self.note()
            time.sleep(LOOK)
        for suffix in ("json", "ending"):
            try:
                os.remove(self.path(suffix))
            except OSError:
                pass

    def obey(self):
        now = time.monotonic()
        told, self.told = self.told, set()
        if not os.path.isdir(os.path.join(self.dir, "jobs")) or not lives(self.settings["while_pid"]):
            told.add(signal.SIGTERM)
            self.plist["ExitTimeOut"] = 1
        if signal.SIGTERM in told and not self.ending:
            self.ending = now + (self.plist.get("ExitTimeOut", 5) or 3600)
            self.send(signal.SIGTERM)
        if self.ending and now > self.ending:
            self.send(signal.SIGKILL)
        if signal.SIGUSR1 in told:
            self.wanted = True
        if signal.SIGUSR2 in told:
            self.wanted = True
            self.send(signal.SIGKILL)

    def reap(self):
        if self.process is None or self.process.poll() is None:
            return
        if not self.plist.get("AbandonProcessGroup"):
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except OSError:
                pass
        self.last, self.process = self.process.returncode, None
        keep = self.plist.get("KeepAlive", False)
        if isinstance(keep, dict):
            keep = keep.get("SuccessfulExit") is (self.last == 0) or (self.last < 0 and keep.get("Crashed", False))
        self.wanted = self.wanted and bool(keep) if self.last is not None else self.wanted

    def start(self):
        throttle = self.settings["throttle"]
        throttle = self.plist.get("ThrottleInterval", 10) if throttle is None else throttle
        ready = self.runs == 0 or time.monotonic() - self.started >= throttle
        if self.ending or self.process or not self.wanted or not ready:
            return
        self.started, self.runs = time.monotonic(), self.runs + 1
        env = {
            "PATH": f"{self.dir}/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": os.environ.get("HOME", "/"),
            "XPC_SERVICE_NAME": self.label, "STANDIN_JOB": self.label,
            **self.session(), **self.settings["environment"], **self.plist.get("EnvironmentVariables", {}),
        }
        descriptors = [s.fileno() for s in self.sockets]
        if descriptors:
            env["LISTEN_FDS"] = str(len(descriptors))
        try:
            self.process = subprocess.Popen(
                self.plist["ProgramArguments"], env=env, stdin=subprocess.DEVNULL, stdout=self.out("StandardOutPath"),
                stderr=self.out("StandardErrorPath"), cwd=self.plist.get("WorkingDirectory", "/"),
                close_fds=False, preexec_fn=lambda: hand_over(descriptors),
            )
        except OSError:
            self.last = 78

    def session(self):
        """What setenv has set by now."""
        try:
            with open(os.path.join(self.dir, "state.json")) as file:
                return json.load(file)["launchd"]["env"]
        except OSError:
            return {}

    def out(self, key):
        path = self.plist.get(key)
        return open(path, "a") if path else subprocess.DEVNULL

    def send(self, number):
        if self.process:
            self.process.send_signal(number)

    def note(self):
        state = {
            "keeper": os.getpid(), "pid": self.process.pid if self.process else None, "runs": self.runs,
            "last": self.last, "ending": self.ending is not None or os.path.exists(self.path("ending")),
        }
        text = json.dumps(state)
        if text == getattr(self, "noted", None):
            return
        self.noted = text
        try:
            with open(self.path("tmp"), "w") as file:
                file.write(text)
            os.replace(self.path("tmp"), self.path("json"))
        except OSError:
            pass  # The directory is gone, and with it whoever would read this; the job is to end all the same.

    def path(self, suffix):
        return os.path.join(self.dir, "jobs", f"{self.label}.{suffix}")


def bound(entry):
    """As launchd: a port that is taken costs the socket, and nobody is told."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((entry["SockNodeName"], int(entry["SockServiceName"])))
    except OSError:
        return None
    listener.listen(128)
    return listener


def hand_over(descriptors):
    os.setsid()
    for i, descriptor in enumerate(descriptors):
        os.dup2(descriptor, 3 + i)
        os.set_inheritable(3 + i, True)


def lives(pid):
    try:
        os.kill(pid, 0) if pid else None
        return True
    except OSError:
        return False


if __name__ == "__main__":
    Job(sys.argv[1], json.load(sys.stdin)).run()
