# What the scripts of this folder have in common: SCRIPT PACKAGES [MISTAKEN] goes from nothing to the first completed
# ibv_rc_pingpong, says how long that took, uses userdma further, and removes it. PACKAGES: the folder of the packages.
# MISTAKEN: a program with a mistake, which `userdma check` must find. A script defines install and remove, and
# `userdma`, the words of the command.
set -eu
here=$(realpath "$(dirname "$0")")
packages=$(realpath "$1")
mistaken=${2:+$(realpath "$2")}
case $(uname -m) in
x86_64) arch=x64 debian=amd64 ;;
aarch64) arch=arm64 debian=arm64 ;;
esac
export DEBIAN_FRONTEND=noninteractive
[ "$(id -u)" != 0 ] || sudo() { "$@"; }

# Installs Debian packages if a program is missing.
debian_packages() {
  program=$1
  shift
  command -v "$program" >/dev/null && return
  sudo apt-get -q update
  sudo apt-get -q install -y --no-install-recommends "$@"
}

find_mistake() {
  status=0
  $userdma check -- "$mistaken" || status=$?
  [ $status = 65 ]
}

from_nothing() {
  project=$(mktemp -d)
  trap 'rm -rf "$project"' EXIT
  cd "$project"
  start=$(date +%s)
  install
  "$here/pingpong.sh" $userdma
  echo "first ibv_rc_pingpong after $(($(date +%s) - start)) s"
  $userdma --version
  $userdma run -- ibv_devinfo
  [ -z "$mistaken" ] || find_mistake
  remove
}
