#!/bin/sh
# The tarball, which brings its own Node.js: tarball.sh PACKAGES [MISTAKEN [TESTS]]; see common.sh.
. "$(dirname "$0")/common.sh"

userdma=userdma/bin/userdma
share=userdma/share/userdma

install() {
  debian_packages ibv_rc_pingpong ibverbs-utils ibverbs-providers xz-utils
  mkdir userdma && tar -xJf "$packages"/userdma-[0-9]*-linux-$arch.tar.xz -C userdma --strip-components=1
  has_files $share userdma/include
}

remove() {
  rm -r userdma
}

from_nothing
