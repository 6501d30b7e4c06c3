#!/bin/sh
# Starts Redis as uid 999. Standard input is left as it was opened: the configuration may end there (`redis-server -`).
set -eu

if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
    find . ! -user redis -exec chown -h redis:redis {} +
    exec setpriv --reuid=redis --regid=redis --clear-groups "$0" "$@"
fi

if [ "$1" = redis-server ]; then
    umask 0077 # snapshots hold sessions
    # The official image of Redis 8 appends a --loadmodule for each of its modules. Something stands here in their place,
    # so that a command line which works in the lab works there too: redis-server reads standard input only for a `-`
    # that is its first or its last argument.
    set -- "$@" --daemonize no
fi

exec "$@"
