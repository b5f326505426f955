/*
 * `userdma top` beside programs that exchange data.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Rates } from '../../src/cli/top/rates.ts'
import { lacking, run, runUserdma, start, startDaemon, userdma } from './programs.ts'

const pair =
  'ibv_rc_pingpong -g 1 -n 1000000000 & while ! ibv_rc_pingpong -g 1 -n 1000000000 localhost; do :; done; wait'

test('top shows the rates of processes and their queue pairs', { skip: lacking('ibv_rc_pingpong') }, async t => {
  const { socket } = await startDaemon(t)
  start(t, userdma, ['run', '--socket', socket, '--', 'sh', '-c', pair], { detached: true })
  const looks = start(t, userdma, ['top', '--socket', socket, '--json', '-d', '0.1'])
  // Two queue pairs that send and receive.
  const busy = /^.*"queuePairs":\[(?:\{[^}]*"sent":\d*[1-9][\d.]*,"received":\d*[1-9][^}]*\},?){2}\]\}$/m
  const [line] = await looks.printed(busy)
  const { processes, queuePairs } = JSON.parse(line) as Rates
  assert.deepEqual(
    processes.map(({ command }) => command),
    ['ibv_rc_pingpong', 'ibv_rc_pingpong'],
  )
  assert.deepEqual(
    queuePairs.map(({ type, state }) => `${type} ${state}`),
    ['RC RTS', 'RC RTS'],
  )
  const batch = await runUserdma(t, ['top', '--socket', socket, '--batch', '-n', '1', '-d', '0.1'])
  assert.equal(batch.status, 0)
  assert.match(batch.stdout, /^ *\d+ {2}ibv_rc_pingpong {2}rxe0 .* RC +RTS /m)
})

test('top without a terminal, and wrong numbers, are refused', async t => {
  for (const [args, message] of [
    [[], /needs a terminal: use --batch or --json/],
    [['--batch', '-d', 'soon'], /--delay "soon": give a number of seconds from 0\.1 to 3600/],
    [['--batch', '-n', '0'], /--count "0": give an integer from 1 to 999999999/],
  ] as const) {
    const { status, stderr } = await runUserdma(t, ['top', ...args])
    assert.equal(status, 2)
    assert.match(stderr, message)
  }
})

const terminal = `
import fcntl, os, pty, select, struct, sys, termios
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 12, 60, 0, 0))
out = b''
quit = False
while True:
    try:
        out += os.read(fd, 65536)
    except OSError:
        break
    if b'no queue pairs' in out and not quit:
        os.write(fd, b'q')
        quit = True
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), repr(out))
`

test('top draws on the terminal, and leaves it as it was', { skip: lacking('python3') }, async t => {
  const { socket } = await startDaemon(t)
  const { stdout } = await run(t, 'python3', ['-c', terminal, userdma, 'top', '--socket', socket])
  assert.match(stdout, /^0 /)
  assert.match(stdout, /x1b\[\?1049h.*DEVICE +ADDRESS.*x1b\[\?1049l'$/m)
})
