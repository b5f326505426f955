#!/bin/sh
# Runs a command in a fresh copy of a root, which exists only in memory: in-root.sh ROOT USER PACKAGES COMMAND…. ROOT: an
# archive of make-root.sh. USER: root, or user, who may use sudo. The command finds PACKAGES in /packages, and this folder
# in /install.
set -eu
here=$(realpath "$(dirname "$0")")
root=$(realpath "$1") user=$2 packages=$(realpath "$3")
shift 3
export here root user packages
exec unshare --mount --pid --fork --kill-child sh -eu -c '
  mount -t tmpfs tmpfs /mnt
  tar -xf "$root" -C /mnt
  mkdir /mnt/packages /mnt/install
  mount --bind -o ro "$packages" /mnt/packages
  mount --bind -o ro "$here" /mnt/install
  mount -t proc proc /mnt/proc
  mount -t sysfs -o ro sysfs /mnt/sys
  mount -t devpts -o ptmxmode=666 devpts /mnt/dev/pts
  # The network is that of this machine, whose certificates may include that of a proxy.
  cp /etc/hosts /etc/resolv.conf /mnt/etc/
  [ ! -d /mnt/etc/ssl/certs ] || cp /etc/ssl/certs/ca-certificates.crt /mnt/etc/ssl/certs/
  home=/root
  [ "$user" = root ] || home=/home/$user
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=$home \
    chroot --userspec="$user" /mnt "$@"' in-root "$@"
