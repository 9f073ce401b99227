#!/bin/sh
# Runs a program where a Secret is mounted as in a container: its files are in /bindings/NAME, and HOSTS is /etc/hosts.
#
#   as-mounted.sh ROOT SECRET NAME HOSTS PROGRAM [ARGUMENT...]
#
# ROOT is an empty directory. Everything is in a mount namespace, with which it ends: the machine's own root stays as it is.
set -eu

if [ -z "${AS_MOUNTED:-}" ]; then
    export AS_MOUNTED=1
    [ "$(id -u)" = 0 ] || exec unshare --user --map-root-user --mount "$0" "$@"
    exec unshare --mount "$0" "$@"
fi
unset AS_MOUNTED
root=$1 secret=$2 name=$3 hosts=$4
shift 4

mount -t tmpfs tmpfs "$root"
for entry in /*; do
    if [ -L "$entry" ]; then
        cp -P "$entry" "$root$entry"
    elif [ -d "$entry" ]; then
        mkdir "$root$entry"
        mount --rbind "$entry" "$root$entry"
    fi
done
mkdir -p "$root/bindings/$name"
mount --bind "$secret" "$root/bindings/$name"
mount --bind "$hosts" "$root/etc/hosts"
directory=$(pwd)
exec chroot "$root" sh -c 'cd "$0" && exec "$@"' "$directory" "$@"
