#!/usr/bin/env bash
# Runs a program in the root of the bed's image of a PostgreSQL major version: cargo's runner of tests for engines that the
# machine itself does not have. The root is unpacked once for each image; mounts end with the program.
#   HOLDFAST_ENGINE_IMAGE=FOLDER tests/engine.sh 17 PROGRAM [ARGUMENT…]
# FOLDER is what `bed images --postgres 17` prints last.
set -euo pipefail
major=$1 program=$2
shift 2
image=${HOLDFAST_ENGINE_IMAGE:?"is not set: the folder that bed images --postgres $major prints last"}
[ -d "$image/blobs/sha256" ] || { echo "$image is no image: bed images --postgres $major" >&2; exit 1; }
roots=$(dirname "$(dirname "$image")")/engine-$major
# The layer is by far the largest blob, and a blob's name is its digest.
digest=$(find "$image/blobs/sha256" -type f -printf '%s %f\n' | sort -n | tail -n 1 | cut -d' ' -f2)
root=$roots-$digest

# One at a time here. Who runs in a root has it locked, so that nobody who comes with another image removes it.
exec 9>"$roots.lock"
flock 9
if [ ! -d "$root" ]; then
    for old in "$roots"-*; do
        if [ -d "$old" ]; then flock -n "$old" rm -rf --one-file-system "$old" || echo "$old is in use, and stays" >&2; fi
    done
    mkdir "$root.new"
    tar -xf "$image/blobs/sha256/$digest" -C "$root.new"
    mkdir -p "$root.new/tests"
    mv "$root.new" "$root"
fi
exec 8<"$root"
flock -s 8
exec 9>&-

here=$(dirname "$program") name=$(basename "$program")
# Tests know the programs beside them by their path outside.
built=$(dirname "$(realpath "$here")")
export root here name major built
exec unshare --mount --propagation private bash -euc '
    mount --bind "$here" "$root/tests"
    mount --bind /tmp "$root/tmp"
    mkdir -p "$root$built"
    mount --bind "$built" "$root$built"
    mount --rbind /dev "$root/dev"
    mount --rbind /proc "$root/proc"
    exec chroot "$root" /usr/bin/env -i PATH=/usr/lib/postgresql/$major/bin:/usr/bin:/bin TMPDIR=/tmp \
        ${RUST_LOG:+RUST_LOG="$RUST_LOG"} "/tests/$name" "$@"
' engine "$@"
