/*
 * Row "start": the start of a program by `userdma run` with an existing daemon, compared with the start of Node.js
 * alone.
 */
import { spawnSync } from 'node:child_process'
import { type Bench, median, type Row, Unavailable } from './harness.ts'
import { cli, startDaemon } from './processes.ts'

/** Starts per measurement. */
const STARTS = 7

/** Milliseconds of a Node.js process from start to end. */
const lasts = (...args: readonly string[]) => {
  const times = Array.from({ length: STARTS }, () => {
    const start = performance.now()
    const { status } = spawnSync(process.execPath, args, { stdio: 'ignore' })
    if (status !== 0) throw new Unavailable(`node ${args.join(' ')} ended with status ${status}`)
    return performance.now() - start
  })
  return median(times)
}

const prepare = async (): Promise<Bench> => {
  const { socket, stop } = await startDaemon()
  return {
    ours: () => lasts(cli, 'run', '--socket', socket, '--', 'true'),
    reference: () => lasts('-e', '0'),
    note: `${STARTS} starts a round`,
    close: stop,
  }
}

export const startRows: readonly Row[] = [
  {
    name: 'start',
    quantity: '`userdma run -- true`, joined to a daemon',
    unit: 'ms',
    better: 'lower',
    cores: 1,
    reference: '`node -e 0`',
    floor: 1.7,
    aim: 1.3,
    prepare,
  },
]
