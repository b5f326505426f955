/*
 * Rows "host": nanoseconds of a post and of a poll under `--host`, compared with the same program without it. The
 * devices of "the machine" are ours: the command runs under `userdma run`.
 */
import type { Bench, Row } from './harness/harness.ts'
import { cli, type Daemon, ownProgram, startDaemon } from './harness/processes.ts'

/** Posts and polls of a measurement, in thousands. */
const ROUNDS = 30

/** `number`: index of the program's result. */
const compare = async (command: 'run' | 'check', number: 0 | 1, ...options: readonly string[]): Promise<Bench> => {
  const program = ownProgram('wrapped')
  const daemon: Daemon = await startDaemon()
  const measure = async (...words: readonly string[]): Promise<number> => {
    const [first = program, ...rest] = [...words, program, String(ROUNDS)]
    const output = await daemon.run(first, ...rest).finished()
    return Number(/^([\d.]+) ([\d.]+)$/m.exec(output)?.[number + 1])
  }
  const output = command === 'check' ? ['-o', '/dev/null'] : []
  return {
    ours: () => measure(cli, command, '--host', ...options, ...output, '--'),
    reference: () => measure(),
    close: () => daemon.stop(),
  }
}

const row = (name: string, quantity: string, floor: number, aim: number, prepare: () => Promise<Bench>): Row => ({
  name,
  quantity,
  unit: 'ns',
  better: 'lower',
  cores: 2,
  reference: 'the same program without --host',
  floor,
  aim,
  isJudgedByValue: true,
  prepare,
})

export const hostRows: readonly Row[] = [
  row('host post', 'ibv_post_recv under userdma run --host', 200, 100, () => compare('run', 0)),
  row('host poll', 'ibv_poll_cq with a completion under userdma run --host', 200, 100, () => compare('run', 1)),
  row('host flight post', 'ibv_post_recv under userdma run --host --flight-recorder', 200, 100, () =>
    compare('run', 0, '--flight-recorder'),
  ),
  row('host flight poll', 'ibv_poll_cq with a completion under userdma run --host --flight-recorder', 200, 100, () =>
    compare('run', 1, '--flight-recorder'),
  ),
  row('host check post', 'ibv_post_recv under userdma check --host', 400, 200, () => compare('check', 0)),
]
