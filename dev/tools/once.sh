# Sourced by the scripts here: what they share in building or fetching a tool once per machine, outside the checkout.
# Progress goes to stderr; the only output is the path of the tool.

# once NAME KEY FILE: prints the path of FILE in the cache's directory KEY, and exits, if it is there. Otherwise the caller
# makes it: it has the lock, the directory in $cache, and an empty directory in $new that is removed at the end.
once() {
    name=$1
    cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME: $name is cached there}/.cache}/tenantry/tools/$2
    file=$cache/$3
    if [ ! -e "$file" ]; then
        mkdir -p "$cache"
        exec 9>"$cache/lock"
        if ! flock --nonblock 9; then
            echo "  waiting: another process makes $name" >&2
            flock 9
        fi
    fi
    if [ -e "$file" ]; then
        echo "$file"
        exit
    fi
    new=$(mktemp -d "$cache/new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
}

# logged COMMAND…: runs it without input. Its output goes to a log, whose end is shown when it fails.
logged() {
    if ! ("$@") >"$cache/log" 2>&1 </dev/null 9>&-; then
        tail -n 15 "$cache/log" >&2
        echo "making $name failed; the whole log: $cache/log" >&2
        exit 1
    fi
}

# finish MADE: puts it in its place, complete or not at all, and prints the path.
finish() {
    mkdir -p "$(dirname "$file")"
    mv "$1" "$file"
    echo "$file"
}

# needs_go: fails with what to do if there is no Go.
needs_go() {
    if ! command -v go >/dev/null; then
        echo "Go is missing: install Go 1.26 or newer to make $name" >&2
        exit 1
    fi
}
