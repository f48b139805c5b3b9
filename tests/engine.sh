#!/usr/bin/env bash
# Runs a program in the root of the bed's image of a PostgreSQL major version: cargo's runner of tests for engines that the
# machine itself does not have. The root is unpacked once; mounts end with the program.
#   tests/engine.sh 17 PROGRAM [ARGUMENT…]
set -euo pipefail
major=$1 program=$2
shift 2
cache=$HOME/.cache/holdfast
image=$cache/bed/images/postgres-$major-1
root=$cache/engine-$major
[ -d "$image" ] || { echo "no image of PostgreSQL $major: bed images --postgres $major" >&2; exit 1; }
if [ ! -d "$root" ]; then
    # The layer is by far the largest blob.
    layer=$(find "$image/blobs/sha256" -type f -printf '%s %p\n' | sort -n | tail -1 | cut -d' ' -f2)
    rm -rf "$root.new"
    mkdir -p "$root.new"
    tar -xf "$layer" -C "$root.new"
    mkdir -p "$root.new/tests"
    mv "$root.new" "$root"
fi
here=$(dirname "$program") name=$(basename "$program")
export root here name major
exec unshare --mount --propagation private bash -euc '
    mount --bind "$here" "$root/tests"
    mount --bind /tmp "$root/tmp"
    mount --rbind /dev "$root/dev"
    mount --rbind /proc "$root/proc"
    exec chroot "$root" /usr/bin/env -i PATH=/usr/lib/postgresql/$major/bin:/usr/bin:/bin TMPDIR=/tmp \
        ${RUST_LOG:+RUST_LOG="$RUST_LOG"} "/tests/$name" "$@"
' engine "$@"
