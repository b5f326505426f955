#!/bin/sh
# Downloads Debian's kernel for arm64, once, and prints the path of its package: guest-kernel.sh SUITE. The sources are
# those of this machine, with its release replaced. The kernel is kept in ~/.cache/userdma-roots.
set -eu
suite=$1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/userdma-roots/kernel-$suite
if ! ls "$cache"/linux-image-*.deb >/dev/null 2>&1; then
  rm -rf "$cache"
  mkdir -p "$cache/lists/partial" "$cache/sources"
  release=$(. /etc/os-release && echo "$VERSION_CODENAME")
  sed "s/\b$release\b/$suite/g" /etc/apt/sources.list.d/debian.sources >"$cache/sources/debian.sources"
  set -- -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root \
    -o Dir::State::status=/dev/null -o "Dir::State::lists=$cache/lists" -o Dir::Etc::sourcelist=/dev/null \
    -o "Dir::Etc::sourceparts=$cache/sources" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
  apt-get "$@" update
  package=$(apt-cache "$@" depends linux-image-arm64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p')
  (cd "$cache" && apt-get "$@" download "$package")
fi
echo "$cache"/linux-image-*.deb
