#!/bin/sh
# Runs a command of a shell as the image's user in a guest with Debian's kernel for arm64, which QEMU emulates:
# in-guest.sh ROOT KERNEL COMMAND. ROOT: an archive with the image's files. KERNEL: Debian's package of the kernel. The
# files are the guest's initial file system, so the guest needs no driver.
set -eu
here=$(realpath "$(dirname "$0")")
root=$(realpath "$1") kernel=$(realpath "$2") command=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root"
tar -xf "$root" -C "$work/root"
cp "$here/guest-init.sh" "$work/root/init"
cp "$here/pingpong.sh" "$work/root/"
echo "$command" >"$work/root/command"
(cd "$work/root" && find . | cpio --quiet -o -H newc) >"$work/initramfs"
rm -r "$work/root"
dpkg-deb --fsys-tarfile "$kernel" | tar -xO --wildcards './boot/vmlinuz-*' >"$work/vmlinuz"
qemu-system-aarch64 -M virt -cpu cortex-a72 -smp 2 -m 2048 -nographic -no-reboot -nic none \
  -kernel "$work/vmlinuz" -initrd "$work/initramfs" -append 'console=ttyAMA0 quiet rdinit=/init' </dev/null |
  tee "$work/output"
grep -q '^guest: status 0' "$work/output"
