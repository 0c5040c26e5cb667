#!/usr/bin/env bash
# The main job, from nothing: a C++ service is replaced while it runs, checked,
# and rolled back. Every answer is compared with what is said here; the first
# one that differs ends the demo with status 1.
#
# $MOULT is the program, by default the one that `make` leaves in the root.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
moult=${MOULT:-$here/../../moult}
work=$(mktemp -d "${TMPDIR:-/tmp}/moult-demo-XXXXXX")
target=$work/app
export MOULT_STATE_DIR=$work/state # not the host's list of targets
service= asker=

finish() {
    status=$?
    trap - EXIT INT TERM
    # The asker ends when its file goes. It is not killed: a mv of it would live
    # on, and make a file in what is being removed.
    rm -f "$work/asking"
    if [ -n "$service" ]; then
        kill "$service" 2>/dev/null || true
        wait "$service" 2>/dev/null || true
    fi
    [ -z "$asker" ] || wait "$asker" 2>/dev/null || true
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
say() { printf '  %s\n' "$*"; }
fail() { printf '\ndemo: %s\n' "$*" >&2; exit 1; }

# run shows a moult command and its output, and ends the demo if it fails.
run() {
    printf '  %s$ moult %s%s\n' "$dim" "${*//$work\//}" "$plain"
    local status=0
    "$moult" "$@" >"$work/out" 2>&1 || status=$?
    if [ $status -ne 0 ]; then
        cat "$work/out" >&2
        fail "moult $1 ended with status $status"
    fi
    sed "s|$work/||g; s|^|    |" "$work/out"
}

# expect WHAT GOT WANT
expect() {
    [ "$2" = "$3" ] || fail "$1: got \"$2\", want \"$3\""
    printf '  %-34s %s\n' "$1" "$2"
}

# get PORT PATH prints the body of the answer; it fails if there is none.
get() {
    local line body=
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&3
    IFS= read -r -t 60 line <&3 && [[ $line == "HTTP/1.1 200 "* ]] || { exec 3>&-; return 1; }
    while IFS= read -r -t 60 line <&3 && [ "$line" != $'\r' ]; do :; done
    IFS= read -r -t 60 body <&3 || true
    exec 3>&-
    [ -n "$body" ] && printf '%s\n' "$body"
}

# start runs the service from the target and sets $service and $port.
start() {
    : >"$work/log"
    "$target/bin/ledger" 0 >"$work/log" &
    service=$!
    for _ in {1..6000}; do
        port=$(sed -n 's/.*127\.0\.0\.1://p' "$work/log")
        [ -z "$port" ] || return 0
        kill -0 "$service" 2>/dev/null || break
        sleep 0.05
    done
    fail "the service does not start"
}

stop() {
    kill "$1"
    wait "$1" || fail "the service ended with status $?"
}

# ask requests /version and /balance without a pause, as long as the file
# "asking" is there, and counts in "asked".
ask() {
    local n=0 failed=0
    while [ -e "$work/asking" ]; do
        for path in /version /balance; do
            get "$1" "$path" >/dev/null 2>&1 || failed=$((failed + 1))
            n=$((n + 1))
        done
        printf '%d %d\n' "$n" "$failed" >"$work/asked.new"
        mv "$work/asked.new" "$work/asked"
    done
}

[ -x "$moult" ] || fail "there is no $moult; make builds it"

step "Two versions of a service: a program, two libraries, a plugin loaded late"
for v in 1 2; do
    make -s -C "$here" OUT="$work/v$v" VERSION=$v || fail "version $v does not build"
    say "v$v: $(cd "$work/v$v" && find bin lib ! -type d | sort | tr '\n' ' ')"
done

step "Version 1, from nothing"
run apply "$work/v1" "$target"
start
expect "/version" "$(get "$port" /version)" "exe=1 core=1 fmt=1 rate=-"
expect "/balance, with a bug" "$(get "$port" /balance)" "0.-5 EUR"
say "It has not loaded its plugin yet: rate=-. Requests now come without a pause."
touch "$work/asking"
ask "$port" 2>/dev/null &
asker=$!
first=$service first_port=$port

step "Version 2, while version 1 runs"
run apply "$work/v2" "$target"
expect "the old process, /version" "$(get "$port" /version)" "exe=1 core=1 fmt=1 rate=-"
say "Only now it loads its plugin, and gets the one of its own release:"
expect "the old process, /dollars" "$(get "$port" /dollars)" "0.-5 USD at 1.08"
expect "the old process, /version" "$(get "$port" /version)" "exe=1 core=1 fmt=1 rate=1"

step "A process started now is version 2, whole"
start
expect "the new process, /version" "$(get "$port" /version)" "exe=2 core=2 fmt=2 rate=-"
expect "the new process, /balance" "$(get "$port" /balance)" "-0.05 EUR"
expect "the new process, /dollars" "$(get "$port" /dollars)" "-0.05 USD at 1.09"
expect "the new process, /version" "$(get "$port" /version)" "exe=2 core=2 fmt=2 rate=2"
expect "the old process, still" "$(get "$first_port" /version)" "exe=1 core=1 fmt=1 rate=1"
rm "$work/asking"
wait "$asker" || fail "the asker ended with status $?"
asker=
read -r asked failed <"$work/asked"
expect "requests meanwhile that failed" "$failed of $asked" "0 of $asked"
stop "$first"

step "What is there"
run status "$target"
run verify "$target"

step "Back to version 1"
run rollback "$target"
expect "the running process, /version" "$(get "$port" /version)" "exe=2 core=2 fmt=2 rate=2"
stop "$service"
start
expect "restarted, /version" "$(get "$port" /version)" "exe=1 core=1 fmt=1 rate=-"
expect "restarted, /dollars" "$(get "$port" /dollars)" "0.-5 USD at 1.08"
run verify "$target"
run history "$target"

step "Cleaning up"
run gc "$target"
stop "$service"
service=
[ -e "$target/.moult/generations/1" ] || fail "gc has removed the live generation"

step "That was it"
say "A running service was replaced and rolled back. No request failed, no process"
say "had files of two releases, and what moult reported done is on the disk."
say "What cp, mv, install and rsync do in its place: moult lab"
