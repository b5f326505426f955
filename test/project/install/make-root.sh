#!/bin/sh
# Makes a fresh Debian root, once, and prints the path of its archive: make-root.sh SUITE ARCH [PACKAGE…], with Debian's
# name of the architecture. Needs root and mmdebstrap. The archives are kept in ~/.cache/userdma-roots.
set -eu
here=$(realpath "$(dirname "$0")")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/userdma-roots
suite=$1 arch=$2
shift 2
path=$cache/$(echo "$suite" "$arch" "$@" | tr ' ' -).tar
if [ ! -e "$path" ]; then
  mkdir -p "$cache"
  emulate=
  [ "$arch" != arm64 ] || emulate=$here/../../../scripts/package/emulate-arm64.sh
  # mmdebstrap would mount below its folder for the whole machine.
  $emulate unshare --mount mmdebstrap --quiet --format=tar --variant=minbase --architectures="$arch" \
    --include="$(echo sudo ca-certificates "$@" | tr ' ' ,)" \
    --customize-hook='chroot "$1" useradd --uid 1000 --create-home user' \
    --customize-hook='echo "user ALL=(ALL) NOPASSWD: ALL" >"$1"/etc/sudoers.d/user' \
    "$suite" "$path.new" >&2
  mv "$path.new" "$path"
fi
echo "$path"
