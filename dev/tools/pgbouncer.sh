#!/bin/sh
# Prints the path of a PgBouncer with auth_dbname (1.19 or newer): the machine's own, else that of Debian 13 with its libraries,
# which runs on any glibc. It is fetched once per machine, by apt into a directory of its own outside the checkout; nothing is
# installed. Progress goes to stderr.
set -eu
. "$(dirname "$0")/once.sh"

suite=trixie

own=$(command -v pgbouncer || [ ! -x /usr/sbin/pgbouncer ] || echo /usr/sbin/pgbouncer)
if [ -n "$own" ]; then
    release=$("$own" --version | sed -n 's/^PgBouncer //p')
    if [ "$(printf '%s\n' 1.19 "$release" | sort -V | head -n 1)" = 1.19 ]; then
        echo "$own"
        exit
    fi
fi

once PgBouncer "pgbouncer-$(sha256sum <"$0" | cut -c 1-24)" pgbouncer
# Where this machine has its own packages from.
archive=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep '/debian/$' | head -n 1 || true)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
if [ -z "$archive" ] || [ ! -f "$keyring" ]; then
    echo "PgBouncer is missing or too old, and this is not Debian: install PgBouncer 1.19 or newer" >&2
    exit 1
fi
echo "  fetching PgBouncer from Debian $suite: half a minute, once per machine …" >&2
apt=$cache/apt root=$cache/root
rm -rf "$apt" "$root"
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$root"
# As on a machine without any package, so that every library is fetched.
: >"$apt/status"
cat >"$apt/debian.sources" <<EOF
Types: deb
URIs: $archive
Suites: $suite
Components: main
Signed-By: $keyring
EOF
# Each without an effect on the machine's own apt.
get() {
    apt-get -qq -o "Dir::State=$apt" -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status" \
        -o "Dir::Cache=$apt/cache" -o "Dir::Etc::sourcelist=$apt/debian.sources" -o Dir::Etc::sourceparts=- \
        -o Acquire::Languages=none -o APT::Sandbox::User= -o Debug::NoLocking=1 "$@"
}
fetch() {
    get update && get --no-install-recommends --download-only --yes install pgbouncer
}
logged fetch
for package in "$apt"/cache/archives/lib*.deb "$apt"/cache/archives/pgbouncer_*.deb; do
    dpkg-deb --extract "$package" "$root"
done
rm -rf "$apt"
# Debian's directory of libraries has a name of its own for each architecture.
loader=$(find "$root" -name 'ld-linux-*.so.*' -path '*/lib/*-linux-gnu*/*' | head -n 1)
cat >"$new/pgbouncer" <<EOF
#!/bin/sh
exec '$loader' --library-path '$(dirname "$loader")' '$root/usr/sbin/pgbouncer' "\$@"
EOF
chmod +x "$new/pgbouncer"
"$new/pgbouncer" --version >&2
finish "$new/pgbouncer"
