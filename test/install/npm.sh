#!/bin/sh
# From nothing to the first ibv_rc_pingpong with the npm packages, on Debian with Node.js: npm.sh PACKAGES, the folder
# of the packages. Root also gets the programs and the provider of libibverbs; another user must have them.
set -eu
packages=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
if [ "$(id -u)" = 0 ] && ! command -v ibv_rc_pingpong >/dev/null; then
  apt-get -q update
  apt-get -q install -y --no-install-recommends ibverbs-utils ibverbs-providers
fi
case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; esac
version=$(basename "$packages"/userdma-[0-9]*.tgz | sed 's/userdma-\(.*\)\.tgz/\1/')
project=$(mktemp -d)
trap 'rm -rf "$project"' EXIT
cd "$project"
npm init -y >/dev/null
npm install -D "$packages/userdma-$version.tgz" "$packages/userdma-linux-$arch-$version.tgz"
"$here/pingpong.sh" npx userdma
