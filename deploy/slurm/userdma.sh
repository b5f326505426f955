#!/bin/sh
# Prolog, Epilog and TaskProlog of Slurm: a job that asks for the GRES rdma has devices on each of its nodes, from its
# start to its end (docs/how-to/slurm.md). SLURM_SCRIPT_CONTEXT tells which of the three this is.
#
#   prolog      as root: starts a daemon of the job's user, with a device on the node's address, linked by UDP
#   task prolog as the user: prints the variables by which the job's programs find the devices
#   epilog      as root: ends the daemon, and removes its folder
#
# --gres=rdma:mlx5 chooses a driver, if gres.conf has this type; the default is rxe. --comment='userdma: --check' gives the
# daemon options: it is the user's own. A node has the GRES once, because one daemon has the address, so the prolog can end
# what is left of other jobs, whose node died.
set -u
umask 022
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# The address of the devices; empty: the node's, as the system resolves its name.
ADDRESS=
# Options of the daemons, such as `--fault drop=0.1%`.
OPTIONS=

userdma=$(dirname "$(readlink -f "$0")")/../../bin/userdma
[ -x "$userdma" ] || userdma=userdma
folders=/run/userdma/slurm
folder=$folders/$SLURM_JOB_ID

fail() {
  echo "userdma: $*" >&2
  exit 1
}

as_user() {
  setpriv --reuid="$SLURM_JOB_UID" --regid="$SLURM_JOB_GID" --clear-groups -- "$@"
}

# The processes of a job's folder: those of its owner that name its socket.
processes_of() {
  owner=$(stat -c %u "$1")
  for file in $(grep -lzxF -- "$1/sock" /proc/[0-9]*/cmdline 2>/dev/null); do
    process=${file%/cmdline}
    if [ "$(stat -c %u "$process" 2>/dev/null)" = "$owner" ]; then echo "${process#/proc/}"; fi
  done
}

# Ends the daemon of a folder and removes it.
end_devices() {
  for signal in TERM KILL; do
    tries=0
    while processes=$(processes_of "$1") && [ -n "$processes" ] && [ $tries -lt 50 ]; do
      [ $tries -gt 0 ] || kill -s $signal $processes 2>/dev/null
      tries=$((tries + 1))
      sleep 0.1
    done
  done
  rm -rf "$1"
}

# A field of the job. The format has only one: users choose the text of some. For an array squeue prints all its jobs.
field() {
  text=$(squeue --noheader --jobs="$SLURM_JOB_ID" --states=all --format="%A $1") || fail "squeue has failed"
  echo "$text" | sed -n "s/^$SLURM_JOB_ID //p" | head -n 1
}

start_devices() {
  gres=$(field %b) || exit 1
  wanted=$(echo "$gres" | tr , '\n' | sed 's/^gres[:/]//' | grep '^rdma\(:\|$\)') || exit 0
  for old in "$folders"/*; do
    [ ! -d "$old" ] || end_devices "$old"
  done
  driver=$(echo "$wanted" | sed -n 's/^rdma:\([a-z][a-z0-9]*\).*/\1/p')
  driver=${driver:-rxe}
  case $driver in
    mlx5) device=mlx5_0 ;;
    *) device=${driver}0 ;;
  esac
  address=${ADDRESS:-$(getent ahosts "$SLURMD_NODENAME" | awk '$1 !~ /^(127\.|::1$|fe80:)/ { print $1; exit }')}
  [ -n "$address" ] || fail "$SLURMD_NODENAME has no address that other nodes reach; set ADDRESS in $0"
  comment=$(field %k) || exit 1
  chosen=$(echo "$comment" | sed -n 's/^userdma: *//p')
  mkdir -p -m 755 "$folders"
  install -d -m 700 -o "$SLURM_JOB_UID" -g "$SLURM_JOB_GID" "$folder"
  set -f # words, without patterns
  as_user "$userdma" daemon --detach --link udp --device "$device@$address,driver=$driver" --socket "$folder/sock" \
    $OPTIONS $chosen 2>&1 | as_user tee "$folder/started" >&2
  as_user "$userdma" env --shell github --socket "$folder/sock" 2>&1 | as_user tee "$folder/variables" >/dev/null
  if as_user grep -q '^USERDMA_SOCKET=' "$folder/variables"; then return; fi
  # A prolog that fails drains the node, which no option of a user may.
  if [ -n "$chosen" ]; then return; fi
  reason=$(as_user cat "$folder/started")
  end_devices "$folder"
  fail "job $SLURM_JOB_ID has no devices: $reason"
}

print_variables() {
  if ! grep -q '^USERDMA_SOCKET=' "$folder/variables"; then
    sed 's/^/print /' "$folder/started"
    return
  fi
  while IFS== read -r name value; do
    if [ "$name" = LD_PRELOAD ]; then
      case ":${LD_PRELOAD-}:" in
        *":$value:"*) continue ;;
        *) value=$value${LD_PRELOAD:+:$LD_PRELOAD} ;;
      esac
    fi
    echo "export $name=$value"
  done <"$folder/variables"
}

case $SLURM_SCRIPT_CONTEXT in
  prolog_slurmd) start_devices ;;
  prolog_task) [ ! -e "$folder/variables" ] || print_variables ;;
  epilog_slurmd) [ ! -d "$folder" ] || end_devices "$folder" ;;
  *) fail "SLURM_SCRIPT_CONTEXT is \"$SLURM_SCRIPT_CONTEXT\"; $0 is for Prolog, Epilog and TaskProlog" ;;
esac
