# Sourced by the scripts beside it: where servers are kept, how they get there, who runs them.
#
# In: Debian packages from the machine's own mirror. Out: unpacked trees in the cache, never in the system.
# Promise: nothing is installed, nothing outside the cache and the server's own folder is touched, and what cannot be had
# ends the script with a sentence on stderr. Not here: how one server is set up (the script of its name).
#
# GARAM_TESTBED   the cache; default ~/.cache/garam-testbed, as root /var/cache/garam-testbed (servers drop their rights,
#                 and nobody else may look into root's home)

set -euo pipefail

if [ "$(id -u)" -eq 0 ]; then
    CACHE=${GARAM_TESTBED:-/var/cache/garam-testbed}
    SERVER_USER=nobody
else
    CACHE=${GARAM_TESTBED:-${XDG_CACHE_HOME:-$HOME/.cache}/garam-testbed}
    SERVER_USER=$(id -un)
fi
LIBRARIES=usr/lib/$(uname -m)-linux-gnu

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# The folder of an unpacked server.
tree() {
    echo "$CACHE/$1"
}

# unpack NAME SUITE STATUS PACKAGE…: PACKAGEs of a Debian suite with all they need that STATUS (a dpkg status file; /dev/null:
# nothing is there) does not list, unpacked into the tree NAME. One at a time per machine; done before: at once.
unpack() {
    local name=$1 suite=$2 status=$3
    shift 3
    mkdir -p "$CACHE" || fail "cannot create $CACHE: set GARAM_TESTBED to a folder that can be written"
    exec 9>"$CACHE/$name.lock"
    flock 9
    if [ ! -e "$CACHE/$name/complete" ]; then
        local work
        work=$(mktemp -d "$CACHE/$name.XXXXXX")
        private_apt "$work" "$suite" "$status"
        download "$work" "$@"
        local deb
        for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/tree"; done
        # dpkg leaves the folders as the packages have them, mktemp closes its own to everybody else.
        chmod 755 "$work/tree"
        touch "$work/tree/complete"
        rm -rf "${CACHE:?}/$name"
        mv "$work/tree" "$CACHE/$name"
        rm -rf "$work"
    fi
    exec 9>&-
}

# An apt of its own below $1: the machine's mirror, private lists, no locks, no rights.
private_apt() {
    local work=$1 suite=$2 status=$3 mirror keys=/usr/share/keyrings/debian-archive-keyring.gpg
    command -v apt-get >/dev/null || fail "needs apt-get: this testbed runs on Debian"
    [ -r "$keys" ] || fail "needs $keys (Debian: apt-get install debian-archive-keyring)"
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
        grep -oE 'https?://[^ ]*/debian/?( |$)' | head -n 1 | tr -d ' ') || true
    mirror=${mirror:-http://deb.debian.org/debian}
    mkdir -p "$work"/{apt/parts,state/lists/partial,cache/archives/partial,debs,tree}
    if [ "$status" = /dev/null ]; then
        touch "$work/status"
        status=$work/status
    fi
    {
        echo "deb [signed-by=$keys] $mirror $suite main"
        [ "$suite" = sid ] || echo "deb [signed-by=$keys] ${mirror%/}-security $suite-security main"
    } >"$work/apt/sources.list"
    cat >"$work/apt/apt.conf" <<CONF
Dir::Etc::sourcelist "$work/apt/sources.list";
Dir::Etc::sourceparts "$work/apt/parts";
Dir::Etc::preferencesparts "$work/apt/parts";
Dir::State "$work/state";
Dir::State::lists "$work/state/lists";
Dir::State::status "$status";
Dir::Cache "$work/cache";
Debug::NoLocking "1";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::Retries "3";
CONF
    APT_CONFIG=$work/apt/apt.conf apt-get update -qq >"$work/update.log" 2>&1 ||
        fail "cannot read the package lists of $mirror: $(tail -n 1 "$work/update.log")"
}

# download WORK PACKAGE…: into WORK/debs.
download() {
    local work=$1 names
    shift
    names=$(APT_CONFIG=$work/apt/apt.conf apt-get -s install --reinstall --no-install-recommends "$@" 2>"$work/plan.log" |
        awk '/^Inst/ { print $2 }') || fail "no mirror has $*: $(tail -n 1 "$work/plan.log")"
    [ -n "$names" ] || fail "apt found nothing to download for $*"
    # shellcheck disable=SC2086 # one word per package
    (cd "$work/debs" && APT_CONFIG=$work/apt/apt.conf apt-get download -qq $names >"$work/download.log" 2>&1) ||
        fail "cannot download $*: $(tail -n 1 "$work/download.log")"
}

# own DIR: the server's user may write there and can reach it.
own() {
    mkdir -p "$1"
    if [ "$SERVER_USER" != "$(id -un)" ]; then
        chown "$SERVER_USER" "$1"
        as_server test -w "$1" || fail "user $SERVER_USER cannot reach $1: its parent folders must be searchable"
    fi
}

# as_server COMMAND…: with the rights of the server's user and nothing inherited but standard streams.
as_server() {
    if [ "$SERVER_USER" = "$(id -un)" ]; then
        "$@"
    else
        setpriv --reuid="$SERVER_USER" --regid="$(id -g "$SERVER_USER")" --clear-groups "$@"
    fi
}

# launch DIR COMMAND…: in the background, in DIR, with the rights of the server's user; DIR/pid is the server's own id, so that
# signals reach it and not a shell around it.
launch() {
    local dir=$1
    shift
    (
        cd "$dir"
        [ "$SERVER_USER" = "$(id -un)" ] || set -- setpriv --reuid="$SERVER_USER" --regid="$(id -g "$SERVER_USER")" --clear-groups "$@"
        exec "$@" 9>&- </dev/null >"$dir/log" 2>&1
    ) &
    echo $! >"$dir/pid"
}

# server_of DIR: the id of the server that runs in DIR; fails when none does. A number alone proves nothing: it may be another
# process's by now, so its command line must name the folder.
server_of() {
    local pid
    pid=$(cat "$1/pid" 2>/dev/null) && [ -r "/proc/$pid/cmdline" ] || return 1
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$(cd "$1" && pwd)/data" || return 1
    echo "$pid"
}

# A port that nobody listens on, below the range from which the kernel takes outgoing ones.
free_port() {
    local port
    for _ in $(seq 50); do
        port=$((20000 + RANDOM % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
    fail "no free port between 20000 and 32000"
}

# start_on_a_free_port DIR: keeps the port of an earlier start (a bounce), else tries until one is free for `serve DIR PORT`,
# which is the script's own: it starts the server in the background, leaves its id in DIR/pid and waits for an answer.
start_on_a_free_port() {
    local dir=$1
    if server_of "$dir" >/dev/null; then
        fail "a server runs in $dir already"
    fi
    if [ -e "$dir/port" ]; then
        serve "$dir" "$(cat "$dir/port")" || fail "did not start: $(tail -n 5 "$dir/log")"
        return
    fi
    local port
    for _ in 1 2 3 4 5; do
        port=$(free_port)
        if serve "$dir" "$port"; then
            echo "$port" >"$dir/port"
            return
        fi
        grep -qi 'in use' "$dir/log" || break
    done
    fail "did not start: $(tail -n 5 "$dir/log")"
}

# answers PID PROBE…: waits until the probe succeeds; fails when the process is gone or after two minutes.
answers() {
    local pid=$1
    shift
    for _ in $(seq 1200); do
        "$@" >/dev/null 2>&1 && return 0
        lives "$pid" || return 1
        sleep 0.1
    done
    return 1
}

# stop_with SIGNAL DIR: by id; the hard way after 30 seconds.
stop_with() {
    local signal=$1 dir=$2 pid
    if pid=$(server_of "$dir"); then
        kill "-$signal" "$pid" 2>/dev/null || true
        gone "$pid" || kill_hard "$pid"
    fi
    rm -f "$dir/pid"
}

# kill_hard PID: the process and its children at the same moment, as a power cut would; returns when it is gone.
kill_hard() {
    local pid=$1 children
    children=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null) || true
    # shellcheck disable=SC2086 # one word per process
    kill -KILL "$pid" $children 2>/dev/null || true
    gone "$pid" || fail "process $pid does not die"
}

# gone PID: waits up to 30 seconds.
gone() {
    for _ in $(seq 300); do
        lives "$1" || return 0
        sleep 0.1
    done
    return 1
}

# stop_after DIR OWNER: stops the server of DIR when the process OWNER is gone, however it ended; a file DIR/throwaway says that
# nobody needs the folder then.
stop_after() {
    local dir=$1 owner=$2
    (
        while lives "$owner"; do sleep 1; done
        "$0" stop "$dir"
        [ ! -e "$dir/throwaway" ] || rm -rf "$dir"
    ) </dev/null >/dev/null 2>&1 &
}

# A process that has ended but was not waited for does not live.
lives() {
    kill -0 "$1" 2>/dev/null && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

# run VERB DIR [OWNER]: what every script understands. `install`, `serve` and `describe` are the script's own, as is `halt`.
run() {
    local verb=${1:-} dir=${2:-}
    case $verb in
        install) install ;;
        start)
            [ -n "$dir" ] || fail "usage: $0 start DIR [OWNER]"
            install
            own "$dir"
            dir=$(cd "$dir" && pwd)
            start_on_a_free_port "$dir"
            [ -z "${3:-}" ] || stop_after "$dir" "$3"
            describe "$dir" "$(cat "$dir/port")" "$(cat "$dir/pid")"
            ;;
        stop)
            [ -n "$dir" ] || fail "usage: $0 stop DIR"
            [ ! -d "$dir" ] || halt "$dir"
            ;;
        kill)
            [ -n "$dir" ] || fail "usage: $0 kill DIR"
            kill_hard "$(server_of "$dir" || fail "no server runs in $dir")"
            rm -f "$dir/pid"
            ;;
        restart)
            [ -n "$dir" ] || fail "usage: $0 restart DIR [OWNER]"
            halt "$dir"
            "$0" start "$dir" ${3:+"$3"}
            ;;
        *)
            sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2
            exit 2
            ;;
    esac
}
