#!/bin/sh
# Starts Redis as uid 999. Standard input stays as it was opened: `redis-server -` reads its configuration there.
set -eu

case $1 in
    -* | *.conf) set -- redis-server "$@" ;;
esac

if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
    find . ! -user redis -exec chown -h redis:redis {} +
    # The official image of Redis 8 empties the bounding set as well, which takes CAP_SETPCAP: a container without it
    # must fail here as it would there.
    exec setpriv --reuid=redis --regid=redis --clear-groups --no-new-privs \
        --inh-caps=-all --ambient-caps=-all --bounding-set=-all "$0" "$@"
fi

if [ "$1" = redis-server ]; then
    umask 0077 # snapshots hold sessions
    # The official image appends a --loadmodule for each module it has. This option stands in their place, because it
    # matters that there is one: redis-server takes a `-` for standard input only as its first or its last argument.
    set -- "$@" --daemonize no
fi

exec "$@"
