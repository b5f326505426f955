/*
 * Rows "start": the time of a command of `userdma` with a running daemon, compared with a Node.js process that does
 * nothing.
 */
import { spawnSync } from 'node:child_process'
import { median, type Row, Unavailable } from './harness/harness.ts'
import { cli, startDaemon } from './harness/processes.ts'

/** Starts per measurement. */
const STARTS = 7

/** Milliseconds from start to end of a process, the median of STARTS. */
const startMs = (program: string, ...args: readonly string[]) => {
  const times = Array.from({ length: STARTS }, () => {
    const start = performance.now()
    const { status } = spawnSync(program, args, { stdio: 'ignore' })
    if (status !== 0) throw new Unavailable(`${program} ${args.join(' ')} ended with status ${status}`)
    return performance.now() - start
  })
  return median(times)
}

const start = (name: string, words: string, floor: number, aim: number, prepare: Row['prepare']): Row => ({
  name: `start ${name}`,
  quantity: words,
  unit: 'ms',
  better: 'lower',
  cores: 1,
  reference: '`node -e 0`',
  floor,
  aim,
  prepare,
})

/** What a row measures. */
const compare = (...words: readonly string[]) => ({
  ours: () => startMs(cli, ...words),
  reference: () => startMs(process.execPath, '-e', '0'),
  note: `${STARTS} starts a round`,
})

/** `program`: what `userdma run` runs. */
const underDaemon = (command: string, floor: number, aim: number, program: readonly string[] = []): Row => {
  const words = `\`${['userdma', command, ...program].join(' ')}\` with a running daemon`
  return start(command, words, floor, aim, async () => {
    const { socket, stop } = await startDaemon()
    return { ...compare(command, '--socket', socket, ...program), close: stop }
  })
}

/** A command that starts its daemon. */
const alone = (name: string, floor: number, aim: number, ...words: readonly string[]): Row =>
  start(name, `\`userdma ${words.join(' ')}\``, floor, aim, async () => compare(...words))

export const startRows: readonly Row[] = [
  underDaemon('run', 0.5, 0.2, ['--', 'true']),
  underDaemon('devices', 1.7, 1.3),
  alone('private', 6, 4, 'run', '--private', '--', 'true'),
  alone('check', 6, 4, 'check', '--', 'true'),
  alone('trace', 9, 5, 'trace', '--private', '--', 'true'),
]
