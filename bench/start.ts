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

/** `program`: what `userdma run` runs. */
const row = (command: string, floor: number, aim: number, program: readonly string[] = []): Row => ({
  name: `start ${command}`,
  quantity: `\`${['userdma', command, ...program].join(' ')}\` with a running daemon`,
  unit: 'ms',
  better: 'lower',
  cores: 1,
  reference: '`node -e 0`',
  floor,
  aim,
  prepare: async () => {
    const { socket, stop } = await startDaemon()
    return {
      ours: () => startMs(cli, command, '--socket', socket, ...program),
      reference: () => startMs(process.execPath, '-e', '0'),
      note: `${STARTS} starts a round`,
      close: stop,
    }
  },
})

export const startRows: readonly Row[] = [row('run', 0.5, 0.2, ['--', 'true']), row('devices', 1.7, 1.3)]
