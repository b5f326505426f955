#!/bin/sh
# Two programs exchange data: pingpong.sh USERDMA…, the words of the command userdma. Exits with 0 when both have ended
# with 0. The client is started again until the server listens, at most 100 times. The port is one of our own, because
# other programs of the machine may use the default one.
set -eu
exec "$@" run --private -- sh -c '
  port=$((20000 + $$ % 10000))
  ibv_rc_pingpong -g 1 -p $port & server=$!
  tries=0
  until ibv_rc_pingpong -g 1 -p $port localhost; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { kill $server; exit 1; }
    sleep 0.1
  done
  wait $server'
