#!/usr/bin/env bash
# What compiling (build) and the adapters' tests (test) need of Debian's packages: installs them when root, else says which.
# The bed installs its own.
set -euo pipefail
declare -A of=(
    # libgit2 and OpenSSL are built from source.
    [build]="gcc libc6-dev make perl pkg-config cmake git"
    # PostgreSQL, ssh, git: adapters are tested against the real thing.
    [test]="openssh-server openssh-client postgresql openssl"
)
# Elsewhere than on Debian everybody sees to that themselves.
command -v dpkg-query >/dev/null || exit 0
missing=()
for kind in "$@"; do
    for package in ${of[$kind]}; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "Debian packages are missing; as root: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi
echo "installing Debian packages (usually 30 s, once): ${missing[*]}"
apt-get update -q >/dev/null
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
