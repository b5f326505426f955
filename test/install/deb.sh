#!/bin/sh
# From nothing to the first ibv_rc_pingpong with the Debian package, without Node.js, on Debian 12 or 13 as root:
# deb.sh PACKAGES, the folder of the packages. Then removes the package, and fails if a file of it is left.
set -eu
packages=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
package=$(echo "$packages"/userdma_*_"$(dpkg --print-architecture)".deb)
command -v ibv_rc_pingpong >/dev/null || apt-get -q update
apt-get -q install -y --no-install-recommends "$package" ibverbs-utils
"$here/pingpong.sh" userdma
apt-get -q purge -y userdma
left=$(find /usr /etc /var/lib /var/cache -xdev \( -name 'userdma*' -o -name _userdma \) -not -path "$packages/*")
[ -z "$left" ] || { echo "files are left: $left" >&2; exit 1; }
