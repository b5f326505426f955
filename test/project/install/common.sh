# What the scripts of this folder have in common: SCRIPT PACKAGES [MISTAKEN [TESTS]] goes from nothing to the first completed
# ibv_rc_pingpong, says how long that took, uses userdma further, and removes it. PACKAGES: the folder of the packages.
# MISTAKEN: a program with a mistake, which `userdma check` must find; or empty. TESTS: a folder with tests of pytest, which
# must pass. A script defines install and remove, `userdma`, the words of the command, and `share`, the folder of
# userdma.py.
set -eu
here=$(realpath "$(dirname "$0")")
packages=$(realpath "$1")
mistaken=${2:+$(realpath "$2")}
tests=${3:+$(realpath "$3")}
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

# With the command on PATH, wherever the script has installed it.
run_tests() (
  unset PYTHONDONTWRITEBYTECODE
  PYTHONPATH=$(realpath "$share")
  PATH=$project/userdma/bin:$project/node_modules/.bin:$PATH
  export PATH PYTHONPATH
  cd "$tests"
  python3 -m pytest -q -p no:cacheprovider
)

# Fails unless a folder has the files of languages, and another the headers.
has_files() {
  for name in userdma.py pytest_userdma.py userdma.rs userdma.go; do
    [ -f "$1/$name" ] || { echo "$1/$name is missing" >&2; exit 1; }
  done
  for name in userdma.h userdma_check.h userdma_gtest.h; do
    [ -f "$2/$name" ] || { echo "$2/$name is missing" >&2; exit 1; }
  done
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
  [ -z "$tests" ] || run_tests
  remove
}
