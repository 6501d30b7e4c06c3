#!/bin/sh
# Starts PostgreSQL as uid 999, and makes its database first when there is none.
#
# POSTGRES_PASSWORD is needed for that; POSTGRES_USER (postgres), POSTGRES_DB (as the user), POSTGRES_INITDB_ARGS (words
# for initdb) may be given. For each of them NAME_FILE may name a file that holds the value; root reads it.
set -eu

# A new database is made in $PGDATA/.making, renamed to .made when complete, and moved into place with PG_VERSION last.
# So whatever interrupts this, the next start finds either no database and begins anew, or a complete one.
making=$PGDATA/.making
made=$PGDATA/.made

fail() {
    echo "docker-entrypoint.sh: $1" >&2
    exit 1
}

# from_file NAME: sets NAME from the file that NAME_FILE names.
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
    printf '%s\n' "$POSTGRES_PASSWORD" | PGDATA=$making initdb --username="$POSTGRES_USER" --pwfile=/dev/stdin \
        --set=listen_addresses='*' ${POSTGRES_INITDB_ARGS:-}
    # initdb trusts the socket and loopback, as the official image does.
    printf '\nhost all all all scram-sha-256\n' >> "$making/pg_hba.conf"

    (PGDATA=$making set_up "$@")
    sync
    mv "$making" "$made"
}

# set_up COMMAND…: creates POSTGRES_DB and runs the scripts, against a server that can't be reached over the network.
set_up() {
    export PGDATA PGPASSWORD="$POSTGRES_PASSWORD" PGUSER="$POSTGRES_USER"
    "$@" -c listen_addresses='' &
    server=$!
    until pg_isready --quiet --dbname=postgres; do
        kill -0 "$server" 2> /dev/null || fail "PostgreSQL ended while its database was being made: see above"
        sleep 0.1
    done

    if [ "$POSTGRES_DB" != postgres ]; then
        echo 'CREATE DATABASE :"db";' | run_sql --dbname=postgres --set=db="$POSTGRES_DB"
    fi
    for script in /docker-entrypoint-initdb.d/*; do
        case $script in
            *.sql) run_sql --dbname="$POSTGRES_DB" < "$script" ;;
            *.sh) sh "$script" ;;
        esac
    done

    kill -INT "$server"
    wait "$server"
}

run_sql() {
    psql --no-psqlrc --no-password --quiet --set=ON_ERROR_STOP=1 "$@"
}

put_in_place() {
    for entry in "$made"/* "$made"/.[!.]*; do
        [ "$entry" = "$made/PG_VERSION" ] || [ ! -e "$entry" ] || mv "$entry" "$PGDATA"
    done
    sync
    mv "$made/PG_VERSION" "$PGDATA"
    rmdir "$made"
}

if [ "${1#-}" != "$1" ]; then
    set -- postgres "$@"
fi

if [ "$1" = postgres ]; then
    for name in POSTGRES_PASSWORD POSTGRES_USER POSTGRES_DB POSTGRES_INITDB_ARGS; do
        from_file "$name"
    done
    if [ "$(id -u)" = 0 ]; then
        prepare_as_root
        export HOME=/var/lib/postgresql
        exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
    fi
    POSTGRES_USER=${POSTGRES_USER:-postgres}
    POSTGRES_DB=${POSTGRES_DB:-$POSTGRES_USER}

    [ -s "$PGDATA/PG_VERSION" ] || [ -d "$made" ] || make_database "$@"
    [ ! -e "$made/PG_VERSION" ] || put_in_place
    unset POSTGRES_PASSWORD # the server doesn't need it, and whoever may run programs in it could read it
fi

exec "$@"
