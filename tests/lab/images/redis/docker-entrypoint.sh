#!/bin/sh
# Starts Redis as uid 999. Standard input stays open, because `redis-server -` reads its configuration there.
set -eu

case $1 in
    -* | *.conf) set -- redis-server "$@" ;;
esac

if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
    find . ! -user redis -exec chown -h redis:redis {} +
    # The official image of Redis 8 empties the bounding set too, which needs CAP_SETPCAP. A container without
    # CAP_SETPCAP must fail here as with the official image.
    exec setpriv --reuid=redis --regid=redis --clear-groups --no-new-privs \
        --inh-caps=-all --ambient-caps=-all --bounding-set=-all "$0" "$@"
fi

if [ "$1" = redis-server ]; then
    umask 0077 # snapshots hold sessions
    # The official image appends --loadmodule options. This option stands in for them, because redis-server reads `-`
    # as standard input only if `-` is the first or the last argument.
    set -- "$@" --daemonize no
fi

exec "$@"
