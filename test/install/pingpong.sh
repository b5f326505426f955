#!/bin/sh
# Two programs exchange data: pingpong.sh USERDMA…, the words of the command userdma. Exits with 0 when both have ended
# with 0. The client is started again until the server listens.
set -eu
exec "$@" run --private -- sh -c '
  ibv_rc_pingpong -g 1 & server=$!
  until ibv_rc_pingpong -g 1 localhost; do kill -0 $server; done
  wait $server'
