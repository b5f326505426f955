/*
 * Debian's RDMA programs of every transport service between two daemons; server and client have the same options.
 *
 * Programs wait forever for packets of unreliable services that overflow the receiver's socket buffer: the cases of
 * these services send less than a buffer holds. ib_write_lat polls memory without calling the device: a round trip
 * takes as long as the scheduler decides, so its cases have few round trips.
 */
import { type Scope, startDaemon, type TestDaemon } from '../programs.ts'
import { assertGoodPair, runPair, runPerftest } from './pingpong.ts'

export interface MatrixCase {
  readonly program: string
  readonly args: readonly string[]
}

export const caseOf = (line: string): MatrixCase => {
  const [program, ...args] = line.split(' ')
  return { program, args }
}

export const caseTitle = ({ program, args }: MatrixCase): string => `${program} ${args.join(' ')}`

/** RC and XRC: lost packets are retransmitted. */
export const reliableCases: readonly MatrixCase[] = [
  'ibv_rc_pingpong -s 65536 -n 100 -c',
  'ibv_rc_pingpong -s 4096 -m 256 -r 5 -n 200 -l 1 -e -c',
  'ibv_rc_pingpong -s 5000 -n 200 -N -c',
  'ibv_srq_pingpong -n 200 -c',
  'ibv_srq_pingpong -n 200 -q 3 -r 50 -e -c -s 10000',
  'ibv_xsrq_pingpong -m 1024 -n 200',
  'ibv_xsrq_pingpong -m 512 -n 200 -e -s 10000',
  'ib_write_bw -s 65536 -n 200',
  'ib_write_bw -s 4096 -n 200 -q 4 -b',
  'ib_write_bw -s 65536 -n 200 -l 8',
  'ib_write_bw -s 64 -n 200 -I 64 -Q 10',
  'ib_write_bw -s 4096 -D 1',
  'ib_write_bw -c XRC -s 65536 -n 200',
  'ib_write_lat -s 64 -n 20',
  'ib_write_lat -c XRC -s 64 -n 20',
  'ib_send_bw -s 65536 -n 200',
  'ib_send_bw -s 3000 -n 200 -b -e',
  'ib_send_bw -s 65536 -n 200 --use-srq -q 4',
  'ib_send_bw -s 4096 -n 200 -r 16 -l 4',
  'ib_send_bw -c XRC -s 65536 -n 200',
  'ib_send_lat -s 64 -n 100 -e',
  'ib_send_lat -s 64 -n 100 --use-srq',
  'ib_send_lat -c XRC -s 2000 -n 100',
  'ib_read_bw -s 65536 -n 200',
  'ib_read_bw -s 300000 -n 30 -o 1 -b',
  'ib_read_bw -c XRC -s 65536 -n 100 -e',
  'ib_read_lat -s 4096 -n 100 -e',
  'ib_read_lat -c XRC -s 4096 -n 100',
  'ib_atomic_bw -n 200 -A FETCH_AND_ADD',
  'ib_atomic_bw -c XRC -n 200 -A CMP_AND_SWAP -o 1',
  'ib_atomic_lat -n 100 -A CMP_AND_SWAP -e',
  'ib_atomic_lat -c XRC -n 100',
].map(caseOf)

/** UC and UD: lost packets stay lost. */
export const unreliableCases: readonly MatrixCase[] = [
  'ibv_uc_pingpong -s 4096 -n 200 -c',
  'ibv_uc_pingpong -s 100000 -m 512 -n 20 -e -c',
  'ibv_ud_pingpong -s 1000 -n 200 -c',
  'ibv_ud_pingpong -s 1000 -n 200 -e -c',
  'ib_write_bw -c UC -s 8192 -n 50',
  'ib_write_lat -c UC -s 64 -n 20',
  'ib_send_bw -c UC -s 8192 -n 50',
  'ib_send_bw -c UC -s 3000 -n 50 -b -e',
  'ib_send_lat -c UC -s 2000 -n 100',
  'ib_send_bw -c UD -s 1000 -n 200',
  'ib_send_bw -c UD -s 1000 -n 200 -b -e',
  'ib_send_lat -c UD -s 64 -n 100 -e',
].map(caseOf)

/** For every test run: each service, and each kind of operation. */
export const fewCases: readonly MatrixCase[] = [
  'ibv_srq_pingpong -n 200 -q 3 -r 50 -e -c -s 10000',
  'ibv_xsrq_pingpong -m 512 -n 200 -e -s 10000',
  'ibv_uc_pingpong -s 100000 -m 512 -n 20 -e -c',
  'ibv_ud_pingpong -s 1000 -n 200 -e -c',
  'ib_write_bw -c XRC -s 65536 -n 200',
  'ib_read_bw -c XRC -s 65536 -n 100 -e',
  'ib_atomic_lat -c XRC -n 100',
  'ib_write_bw -c UC -s 8192 -n 50',
  'ib_send_bw -c UC -s 3000 -n 50 -b -e',
  'ib_send_bw -c UD -s 1000 -n 200 -b -e',
  'ib_send_lat -c UD -s 64 -n 100 -e',
  'ib_send_bw -s 65536 -n 200 --use-srq -q 4',
].map(caseOf)

export const matrixPrograms: readonly string[] = [
  ...new Set([...reliableCases, ...unreliableCases].map(({ program }) => program)),
]

export interface Network {
  /** Of the device of each daemon. */
  readonly addresses: readonly [string, string]
  /** Default: udp. */
  readonly link?: string
  readonly fault?: string
  /** Of each daemon. */
  readonly netns?: readonly [string, string]
  /** The --torment seed of each daemon; undefined: none. */
  readonly torment?: readonly [number | undefined, number | undefined]
}

export type TwoDaemons = readonly [TestDaemon, TestDaemon]

export const startTwoDaemons = async (
  scope: Scope,
  { addresses, link = 'udp', fault, netns, torment }: Network,
): Promise<TwoDaemons> => {
  const startEnd = (i: 0 | 1): Promise<TestDaemon> => {
    const seed = torment?.[i]
    return startDaemon(scope, {
      devices: [`rxe0@${addresses[i]}`],
      link,
      ...(fault !== undefined && { fault }),
      ...(netns && { netns: netns[i] }),
      ...(seed !== undefined && { options: ['--torment', String(seed)] }),
    })
  }
  return [await startEnd(0), await startEnd(1)]
}

/** Runs the server on the first daemon and the client on the second, and asserts that both succeed. */
export const runMatrixCase = async (t: Scope, [a, b]: TwoDaemons, { program, args }: MatrixCase): Promise<void> => {
  const options = { program, clientDaemon: b }
  if (program.startsWith('ib_')) await runPerftest(t, a, args, options)
  else assertGoodPair(await runPair(t, a, ['-g', '1', ...args], options))
}
