#!/bin/sh
# Starts PostgreSQL as uid 999. If there is no database yet, creates one first.
#
# A new database needs POSTGRES_PASSWORD. Optional are POSTGRES_USER (default: postgres), POSTGRES_DB (default: the user)
# and POSTGRES_INITDB_ARGS (words for initdb). Instead of NAME, NAME_FILE may name a file with the value. root reads it.
set -eu

# A new database is made in .making, renamed to .made when it is complete, and moved into place with PG_VERSION last. So
# after any interruption, the next start finds no database and starts again, or finds a complete one and continues.
making=$PGDATA/.making
made=$PGDATA/.made

fail() {
    echo "docker-entrypoint.sh: $1" >&2
    exit 1
}

# from_file NAME: sets NAME from the file that NAME_FILE names, if it names one.
from_file() {
    eval "file=\${$1_FILE:-} value=\${$1:-}"
    [ -n "$file" ] || return 0
    [ -z "$value" ] || fail "both $1 and $1_FILE are set: keep one"
    value=$(cat -- "$file") || fail "$1_FILE names a file that can't be read"
    eval "$1=\$value"
    export "${1?}"
    unset "$1_FILE"
}

prepare_as_root() {
    mkdir -p "$PGDATA" /var/run/postgresql
    chmod 700 "$PGDATA"
    find "$PGDATA" /var/run/postgresql ! -user postgres -exec chown -h postgres:postgres {} +
}

make_database() {
    [ -n "${POSTGRES_PASSWORD:-}" ] || fail "there is no database yet: set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE"
    rm -rf "$making"
    [ -z "$(ls -A "$PGDATA")" ] || fail "$PGDATA holds files but no database: empty it, or mount the right directory"

    # Unquoted on purpose: POSTGRES_INITDB_ARGS is a list of words.
    # shellcheck disable=SC2086
    printf '%s\n' "$POSTGRES_PASSWORD" | initdb --pgdata="$making" --username="$POSTGRES_USER" --pwfile=/dev/stdin \
        --set=listen_addresses='*' ${POSTGRES_INITDB_ARGS:-}
    # initdb has made pg_hba.conf trust the socket and the loopback, as in the official image.
    printf '\nhost all all all scram-sha-256\n' >> "$making/pg_hba.conf"

    set_up "$@"
    sync
    mv "$making" "$made"
}

# set_up COMMAND…: creates POSTGRES_DB and runs the scripts, in a server that listens only on its socket.
set_up() {
    "$@" -D "$making" -c listen_addresses='' &
    server=$!
    until pg_isready --quiet --username="$POSTGRES_USER" --dbname=postgres; do
        kill -0 "$server" 2> /dev/null || fail "PostgreSQL ended while its database was being made: see above"
        sleep 0.1
    done

    if [ "$POSTGRES_DB" != postgres ]; then
        echo 'CREATE DATABASE :"db";' | run_sql --dbname=postgres --set=db="$POSTGRES_DB"
    fi
    for script in /docker-entrypoint-initdb.d/*; do
        case $script in
            *.sql) run_sql --dbname="$POSTGRES_DB" --file="$script" ;;
            *.sh) PGDATA=$making sh "$script" ;;
        esac
    done

    kill -INT "$server"
    wait "$server"
}

run_sql() {
    PGPASSWORD=$POSTGRES_PASSWORD psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" "$@"
}

put_in_place() {
    find "$made" -mindepth 1 -maxdepth 1 ! -name PG_VERSION -exec mv -t "$PGDATA" {} +
    sync
    [ ! -e "$made/PG_VERSION" ] || mv "$made/PG_VERSION" "$PGDATA"
    rmdir "$made"
}

case $1 in
    -*) set -- postgres "$@" ;;
esac

if [ "$1" = postgres ]; then
    for name in POSTGRES_PASSWORD POSTGRES_USER POSTGRES_DB POSTGRES_INITDB_ARGS; do
        from_file "$name"
    done
    if [ "$(id -u)" = 0 ]; then
        prepare_as_root
        export HOME=/var/lib/postgresql
        exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
    fi
    export POSTGRES_USER="${POSTGRES_USER:-postgres}"
    export POSTGRES_DB="${POSTGRES_DB:-$POSTGRES_USER}"

    if [ ! -s "$PGDATA/PG_VERSION" ] && [ ! -d "$made" ]; then
        make_database "$@"
    fi
    if [ -d "$made" ]; then
        put_in_place
    fi
    unset POSTGRES_PASSWORD # the server does not need the password, and a program in the server could read it
fi

exec "$@"
