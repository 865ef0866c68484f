#!/bin/bash
# Runs a command as an unprivileged user under a `systemd --user` of its own, with a network of its own
# (loopback only), about a second after the call. Touches nothing outside its namespaces; whatever it
# starts ends with it. The command gets a login's environment, not the caller's. Needs root and systemd:
# says "NOT CHECKED: why" and exits 3 where it has none.
# usage: tools/user-systemd.sh [--bind FILE=PATH]... COMMAND [ARG...]     PATH (below /run) shows FILE
set -euo pipefail
missing() { echo "NOT CHECKED: no systemd --user here: $*" >&2; exit 3; }
uid=1234

if [ "${US_STAGE:-}" = "" ]; then
  binds=()
  while [ "${1:-}" = --bind ]; do binds+=("$2"); shift 2; done
  [ $# -ge 1 ] || { echo "usage: $0 [--bind FILE=PATH]... COMMAND..." >&2; exit 2; }
  [ "$(id -u)" = 0 ] || missing "not root"
  [ -x /lib/systemd/systemd ] || missing "no /lib/systemd/systemd"
  for tool in unshare setpriv dbus-daemon ip systemctl; do
    command -v "$tool" >/dev/null || missing "no $tool"
  done
  unshare -m -p -C -i -n -f --kill-child true 2>/dev/null || missing "no namespaces"
  # However this ends (a test that takes too long is told to by a signal): what was started goes, then
  # its group, then the mount.
  child= group= mounted=
  clean() {
    trap '' TERM INT HUP
    [ -z "$child" ] || { kill -KILL "$child" && wait "$child"; } 2>/dev/null || true
    if [ -n "$group" ]; then
      # The kernel lets go of the group a moment after its last process.
      for _ in $(seq 100); do
        [ -d "$group" ] || break
        { echo 1 >"$group/cgroup.kill"; } 2>/dev/null || true
        find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        [ ! -d "$group" ] || sleep 0.05
      done
    fi
    [ -z "$mounted" ] || { umount -l "$mounted" && rmdir "$mounted"; } || true
  }
  trap clean EXIT
  trap 'exit 143' TERM
  trap 'exit 130' INT
  trap 'exit 129' HUP
  # A control group of its own: the manager must not move anybody else's processes.
  root=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
  if [ -z "$root" ]; then
    root=$(mktemp -d)
    mount -t cgroup2 cgroup2 "$root" || { rmdir "$root"; missing "no cgroup2"; }
    mounted=$root
  fi
  group=$root/user-systemd-$$
  mkdir "$group" 2>/dev/null || { group=; missing "no control group of our own"; }
  export US_STAGE=inside US_BINDS="${binds[*]:-}"
  rc=0
  # In the background: a signal is not heard while a command is waited for in the foreground.
  (trap - EXIT TERM INT HUP
    echo $BASHPID >"$group/cgroup.procs" &&
      exec unshare -m -p -C -i -n -f --kill-child --mount-proc bash "$0" "$@") <&0 &
  child=$!
  wait "$child" || rc=$?
  child=
  exit $rc
fi

mount --make-rprivate /
seen=()
for bind in $US_BINDS; do
  # Opened before /run is hidden, should it be below it.
  exec {fd}<"${bind%%=*}"
  seen+=("$fd=${bind#*=}")
done
mount -t tmpfs -o mode=755 tmpfs /run
# /run/systemd/system is what sd_booted() looks for.
mkdir -p /run/systemd/system /run/user/$uid /run/home
for bind in "${seen[@]:-}"; do
  [ -n "$bind" ] || continue
  touch "${bind#*=}"
  mount --bind "/proc/self/fd/${bind%%=*}" "${bind#*=}" 2>/dev/null ||
    mount --bind "$(readlink "/proc/self/fd/${bind%%=*}")" "${bind#*=}"
done
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# D-Bus wants a named user.
cp /etc/passwd /run/passwd
echo "tester:x:$uid:$uid::/run/home:/bin/bash" >>/run/passwd
mount --bind /run/passwd /etc/passwd
cp /etc/group /run/group
echo "tester:x:$uid:" >>/run/group
mount --bind /run/group /etc/group
mkdir /sys/fs/cgroup/user
chown -R $uid:$uid /run/user/$uid /run/home /sys/fs/cgroup/user
chmod 700 /run/user/$uid
echo $$ >/sys/fs/cgroup/user/cgroup.procs
ip link set lo up
exec setpriv --reuid $uid --regid $uid --clear-groups \
  env -i HOME=/run/home USER=tester XDG_RUNTIME_DIR=/run/user/$uid LANG=C.UTF-8 PATH="$PATH" bash -c '
    cd "$HOME"
    mkdir -p .config/systemd/user
    /lib/systemd/systemd --user >manager.log 2>&1 &
    manager=$!
    up=
    for _ in $(seq 600); do
      case $(systemctl --user is-system-running 2>/dev/null) in running|degraded) up=1; break ;; esac
      sleep 0.05
    done
    [ -n "$up" ] || { cat manager.log >&2; echo "systemd --user does not come up" >&2; exit 4; }
    rc=0
    "$@" || rc=$?
    [ $rc = 0 ] || { echo "--- systemd"; tail -n 60 manager.log; } >&2
    kill $manager
    wait $manager || true
    exit $rc' user-systemd "$@"
