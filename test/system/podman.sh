#!/bin/sh
# Runs podman in a private mount namespace: podman.sh STORAGE [CDI] -- ARGS…. STORAGE: a folder for images and containers.
# CDI: a folder that is /etc/cdi. Where Debian 12 has a mixed cgroup hierarchy, its podman 4.3 works without the second one.
set -eu
if [ "${IN_NAMESPACE:-}" = "" ]; then exec env IN_NAMESPACE=1 unshare --mount sh "$0" "$@"; fi
storage=$1
shift
! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified
if [ "$1" != -- ]; then
  mkdir -p /etc/cdi
  mount --bind "$1" /etc/cdi
  shift
fi
shift
exec podman --storage-driver vfs --root "$storage/root" --runroot "$storage/run" "$@"
