"""What the stand-ins share: state in a directory, a log of calls, failures on request.

A test makes DIR/bin with links to `call`, named like the tools, puts it first in PATH and starts tools.py,
which answers them. In DIR:
  port           where tools.py listens
  settings.json  what a test asks for (see SETTINGS); only tests write it
  state.json     what the tools have set; a test may change it as a person would
  calls          one JSON line per call: n, tool, args, exit
  jobs/          what really runs, if `start` is set (launchd.py)
"""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.realpath(__file__))

SETTINGS = {
    # The call to fail: {"at": n} counted over all tools from 1, but for calls of jobs, or
    # {"tool": .., "args": regex}.
    # "code" and "text" instead of the tool's usual failure; "effect": it is done all the same;
    # "kill": the caller is killed after the call; "hang": seconds before anything happens.
    "fail": [],
    # Whether the user sits at the screen: no gui/UID domain and no dialogs otherwise.
    "gui": True,
    # The session that launchctl is called in: over ssh it is Background, whose variables are others than those
    # of the session at the screen. Agents are called in that.
    "context": "Aqua",
    # Further launchctl calls for which a label is still taken after its bootout.
    "drain": 0,
    # bootout ends with this (36, 5) although it does stop.
    "bootout_code": None,
    # bootstrap reports success and starts nothing, as while a session is being set up.
    "on_demand": False,
    # Whether agents' programs are really started, with which ThrottleInterval instead of their
    # own, which variables more, and until which process has ended.
    "start": False,
    "throttle": None,
    "environment": {},
    "while_pid": None,
    # Whether networksetup may change anything.
    "admin": True,
    # What the person does in the trust dialog: yes, no, lie (success that is none).
    "consent": "yes",
}


def empty_proxy():
    return {"on": False, "server": "", "port": 0}


def service(name, on=True):
    return {
        "name": name,
        "on": on,
        "web": empty_proxy(),
        "secure": empty_proxy(),
        "socks": empty_proxy(),
        "auto": {"on": False, "url": None},
        "bypass": ["*.local", "169.254/16"],
    }


def first_state():
    return {
        "launchd": {"loaded": {}, "draining": {}, "disabled": [], "env": {}},
        # For so many calls from now networksetup finds nothing: the network has just changed.
        "unready": 0,
        # The first one that is on is the primary service.
        "network": [
            service("USB 10/100/1000 LAN 2", on=False),
            service("Wi-Fi"),
            service("Corp VPN (1)"),
            service("Thunderbolt Bridge"),
        ],
        # By SHA-256: {"sha1", "trusted"}.
        "security": {},
        # SHA-256 of what is trusted, but in no keychain any more.
        "trusted": [],
    }


class Failed(Exception):
    """The tool says this and ends so."""

    def __init__(self, code, text="", to_stdout=False):
        super().__init__(text)
        self.code, self.text, self.to_stdout = code, text, to_stdout


class Call:
    """One call of a tool, alone on the state until it ends."""

    def __init__(self, directory, tool, args, caller, usual_failure):
        self.dir, self.tool, self.args, self.caller = directory, tool, args, caller
        self.usual_failure = usual_failure
        # What jobs call is not counted, as it comes whenever it comes (launchd.py sets this).
        self.job = os.environ.get("STANDIN_JOB")
        self.settings = {**SETTINGS, **self._read("settings.json", {})}

    def run(self, work, gone):
        """The exit code. `gone` says whether the tool was killed while it hung."""
        n = 0 if self.job else self._count()
        rule = next((r for r in self.settings["fail"] if self._meant(r, n)), None)
        if rule and "hang" in rule:
            time.sleep(rule["hang"])
            if gone():
                return -signal.SIGKILL
        with open(os.path.join(self.dir, "lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            code = self._work(work, rule)
        self._log({"n": n, "tool": self.tool, "args": self.args, "exit": code})
        if rule and rule.get("kill"):
            os.kill(self.caller, signal.SIGKILL)
        return code

    def _work(self, work, rule):
        self.state = self._read("state.json", None) or first_state()
        fails = rule and not {"hang", "kill"} & rule.keys()
        try:
            if fails and rule.get("effect"):
                try:
                    work(self)
                except Failed:
                    pass
            if not fails:
                work(self)
                self._write("state.json", self.state)
            if fails:
                usual = self.usual_failure(self)
                usual.code, usual.text = rule.get("code", usual.code), rule.get("text", usual.text)
                raise usual
        except Failed as failed:
            # What was done before it failed stays done, as with the real ones.
            self._write("state.json", self.state)
            print(failed.text, file=sys.stdout if failed.to_stdout else sys.stderr)
            return failed.code
        return 0

    def _meant(self, rule, n):
        if rule.get("at", n) != n or rule.get("tool", self.tool) != self.tool:
            return False
        return re.search(rule.get("args", ""), " ".join(self.args)) is not None

    def _count(self):
        path = os.path.join(self.dir, "count")
        with open(path, "a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            n = int(file.read() or 0) + 1
            file.truncate(0)
            file.write(str(n))
        return n

    def _log(self, entry):
        with open(os.path.join(self.dir, "calls"), "a") as file:
            file.write(json.dumps(entry) + "\n")

    def _read(self, name, default):
        try:
            with open(os.path.join(self.dir, name)) as file:
                return json.load(file)
        except FileNotFoundError:
            return default

    def _write(self, name, value):
        path, text = os.path.join(self.dir, name), json.dumps(value)
        try:
            with open(path) as file:
                if file.read() == text:
                    return  # most calls only ask, and a file that is replaced waits for the disk
        except FileNotFoundError:
            pass
        with open(path + ".tmp", "w") as file:
            file.write(text)
        os.replace(path + ".tmp", path)


def start_really(call, label, plist):
    """Has the job kept, and its program run, by a process of its own (launchd.py)."""
    os.makedirs(os.path.join(call.dir, "jobs"), exist_ok=True)
    keeper = subprocess.Popen(
        [sys.executable, os.path.join(HERE, "launchd.py"), call.dir], start_new_session=True, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/",
    )
    keeper.stdin.write(json.dumps({"label": label, "plist": plist, "settings": call.settings}))
    keeper.stdin.close()
    # It says so when the sockets are open and the job has its file.
    if not keeper.stdout.readline():
        sys.exit("the stand-in for launchd did not start")


def really(call, label):
    """What the keeper of the job has noted, while it lives."""
    try:
        with open(os.path.join(call.dir, "jobs", f"{label}.json")) as file:
            seen = json.load(file)
        os.kill(seen["keeper"], 0)
        return seen
    except OSError:
        return None
