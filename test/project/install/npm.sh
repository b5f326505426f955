#!/bin/sh
# The npm packages, with Node.js 20.19 or newer: npm.sh PACKAGES [MISTAKEN [TESTS]]; see common.sh.
. "$(dirname "$0")/common.sh"

userdma='npx userdma'
share=node_modules/userdma/shim/languages

install() {
  debian_packages ibv_rc_pingpong ibverbs-utils ibverbs-providers
  version=$(basename "$packages"/userdma-[0-9]*.tgz | sed 's/userdma-\(.*\)\.tgz/\1/')
  npm init -y >/dev/null
  npm install -D "$packages/userdma-$version.tgz" "$packages/userdma-linux-$arch-$version.tgz"
  has_files $share node_modules/userdma/shim/include
}

remove() {
  npm uninstall -D userdma "userdma-linux-$arch"
}

from_nothing
