#!/bin/sh
# Runs a command that may execute programs of arm64: emulate-arm64.sh COMMAND…. Where they do not run, root registers
# Debian's qemu-user-static with the kernel (binfmt_misc) until the command ends; the mount is private.
set -eu
if arch-test arm64 >/dev/null 2>&1; then exec "$@"; fi
exec unshare --mount sh -eu -c '
  folder=/proc/sys/fs/binfmt_misc
  [ -e $folder/register ] || mount -t binfmt_misc binfmt_misc $folder
  name=userdma-$$
  trap "echo -1 >$folder/$name" EXIT
  trap "exit 143" HUP INT TERM
  # F: the emulator is opened now, so that it also works after chroot.
  sed "s/^:[^:]*:/:$name:/; s,:[^:]*:[A-Z]*\$,:/usr/bin/qemu-aarch64-static:F," /usr/lib/binfmt.d/qemu-aarch64.conf >$folder/register
  "$@"' emulate-arm64 "$@"
