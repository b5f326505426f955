#!/bin/sh
# From nothing to the first ibv_rc_pingpong with the tarball, without Node.js, on Debian: tarball.sh PACKAGES, the folder
# of the packages. Root also gets the programs and the provider of libibverbs; another user must have them.
set -eu
packages=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
if [ "$(id -u)" = 0 ] && ! command -v ibv_rc_pingpong >/dev/null; then
  apt-get -q update
  apt-get -q install -y --no-install-recommends ibverbs-utils ibverbs-providers xz-utils
fi
case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tar -xJf "$packages"/userdma-*-linux-$arch.tar.xz -C "$folder" --strip-components=1
"$here/pingpong.sh" "$folder/bin/userdma"
