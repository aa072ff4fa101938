#!/bin/sh
# Run the original Python server (swerex-remote of the pip package swe-rex) on a free loopback
# port, print "PORT" (the number) on one line once it answers, and stay in the foreground.
# Usage: python_server.sh [TOKEN [LOGFILE]]      TOKEN defaults to "token"
set -eu
token=${1:-token}
log=${2:-/dev/null}

# A quiet home and a dumb terminal: the server's sessions read ~/.bashrc and use readline.
home=$(mktemp -d)
pid=
finish() {
    trap - EXIT HUP INT TERM
    [ -z "$pid" ] || { kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; } || :
    rm -rf "$home"
}
trap finish EXIT
trap 'exit 143' HUP INT TERM

port=$(python3 -c 'import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
HOME=$home TERM=dumb swerex-remote --host 127.0.0.1 --port "$port" --auth-token "$token" \
    </dev/null >"$log" 2>&1 &
pid=$!

tries=0
until curl -sf -m 1 -H "X-API-Key: $token" "http://127.0.0.1:$port/is_alive" >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ $tries -gt 300 ] || ! kill -0 "$pid" 2>/dev/null; then
        echo "python_server.sh: the server did not start, see $log" >&2
        exit 1
    fi
    sleep 0.1
done
echo "$port"
wait "$pid"
