#!/bin/sh
# The tarball, which brings its own Node.js: tarball.sh PACKAGES [MISTAKEN]; see common.sh.
. "$(dirname "$0")/common.sh"

userdma=userdma/bin/userdma

install() {
  debian_packages ibv_rc_pingpong ibverbs-utils ibverbs-providers xz-utils
  mkdir userdma && tar -xJf "$packages"/userdma-[0-9]*-linux-$arch.tar.xz -C userdma --strip-components=1
  [ -f userdma/include/userdma_check.h ] && [ -f userdma/include/userdma.h ]
  [ -f userdma/share/userdma/userdma.py ] && [ -f userdma/share/userdma/userdma.rs ] && [ -f userdma/share/userdma/userdma.go ]
}

remove() {
  rm -r userdma
}

from_nothing
