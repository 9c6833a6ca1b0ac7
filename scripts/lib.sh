# Shared by the set-up scripts: how a step ends when something is missing.

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# require_space FOLDER MEGABYTES WHAT
require_space() {
    free=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$2" ] || fail "$3 need $2 MB of disk space, but only $free MB are free in $1:" \
        "free some space and run make setup again"
}
