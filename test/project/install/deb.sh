#!/bin/sh
# The Debian package, which brings its own Node.js: deb.sh PACKAGES [MISTAKEN [TESTS]]; see common.sh.
. "$(dirname "$0")/common.sh"

userdma=userdma
share=/usr/share/userdma

install() {
  command -v ibv_rc_pingpong >/dev/null || sudo apt-get -q update
  sudo apt-get -q install -y --no-install-recommends "$packages"/userdma_*_"$debian".deb ibverbs-utils
  has_files $share /usr/include
  ls /usr/lib/userdma/dist/check.cache /usr/lib/userdma/dist/daemon.cache
  userdma help how-to/doctor
}

remove() {
  # A daemon that runs is not ended, and named.
  userdma daemon --detach --socket "$project/sock"
  sudo apt-get -q purge -y userdma >purge.log 2>&1 || { cat purge.log >&2; exit 1; }
  daemon=$(sed -n "s/^userdma: process \([0-9]*\) of $(id -un) still runs .*/\1/p" purge.log)
  kill "$daemon"
  left=$(find /usr /etc /var/lib /var/cache -xdev \( -name 'userdma*' -o -name _userdma \) -not -path "$packages/*" \
    2>/dev/null || true)
  [ -z "$left" ] || { echo "files are left: $left" >&2; exit 1; }
}

from_nothing
