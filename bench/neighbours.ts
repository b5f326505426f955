/*
 * Rows "neighbour …": the median of round trips of a guest of root's daemon while another guest reads 64 KiB without pause, beside
 * the median while two processes compute (docs/decisions/others-wait.md).
 */
import { spawn } from 'node:child_process'
import { type Bench, type Row, Unavailable } from './harness/harness.ts'
import { benchProgram, startDaemon } from './harness/processes.ts'

const ROUND_TRIPS = 2000
/** Users, by number. */
const [NOISY, QUIET] = [65_534, 65_533]
const ENDLESS = 1e9

/** Two processes that compute until `stop`. */
const startComputing = (): { stop(): Promise<void> } => {
  const processes = [1, 2].map(() => spawn('sh', ['-c', 'while :; do :; done'], { stdio: 'ignore' }))
  return {
    async stop() {
      for (const computing of processes) computing.kill('SIGKILL')
    },
  }
}

const compare = async (device: string, gid: number): Promise<Bench> => {
  if (process.geteuid?.() !== 0) throw new Unavailable("only root's daemon has guests")
  const program = benchProgram('verbs_pair')
  const daemon = await startDaemon({ devices: [device], guests: [NOISY, QUIET] })
  const [name = device] = device.split('@')
  const median = async (): Promise<number> => {
    const output = await daemon.runAs(QUIET, program, name, gid, 'send', 64, ROUND_TRIPS).finished()
    return Number(output.split(' ')[1])
  }
  const beside = async (noise: { stop(): Promise<void> }): Promise<number> => {
    try {
      return await median()
    } finally {
      await noise.stop()
    }
  }
  return {
    ours: () => beside(daemon.runAs(NOISY, program, name, gid, 'read', 65_536, ENDLESS)),
    reference: () => beside(startComputing()),
    note: `${ROUND_TRIPS} round trips a round`,
    close: () => daemon.stop(),
  }
}

const row = (driver: string, device: string, gid: number): Row => ({
  name: `neighbour ${driver}`,
  quantity: 'median of a round trip of 64 B while another user reads 64 KiB without pause',
  unit: 'µs',
  better: 'lower',
  cores: 2,
  reference: 'while two processes compute',
  floor: 10,
  aim: 3,
  prepare: () => compare(device, gid),
})

export const neighbourRows: readonly Row[] = [
  row('rxe', 'rxe0@127.0.0.1', 1),
  row('mlx5', 'mlx5_0@127.0.0.2,driver=mlx5', 1),
  row('efa', 'efa0@127.0.0.3,driver=efa', 0),
]
