/*
 * The cases between userdma and Linux's own soft device: Debian's programs, each with Linux once as the server and once
 * as the client. Both ends have the same options, as the programs require.
 *
 * A guest's CPU is emulated and both ends of a latency test poll: such tests have few rounds.
 */
import { bothSides, type RdmacmCase, udaddy } from '../system/rdmacm/rdmacm.ts'

export interface PeerCase {
  readonly program: string
  readonly args: readonly string[]
}

export const peerCase = (program: string, ...args: string[]): PeerCase => ({ program, args })

/** perftest with a long local ACK timeout, 1 s: its default of 67 ms expires while an emulated CPU is preempted. */
const perftest = (program: string, ...args: string[]): PeerCase => peerCase(program, '-u', '18', ...args)

/**
 * The pingpongs' timeout is fixed at 67 ms, so the guest occasionally retransmits. Their messages are one packet long:
 * rxe of Linux 6.1 stalls if an ACK overtakes its retransmission of a longer one.
 */
const rc: readonly PeerCase[] = [
  peerCase('ibv_rc_pingpong', '-n', '100', '-c', '-s', '1000'),
  peerCase('ibv_rc_pingpong', '-n', '100', '-c', '-e', '-s', '1', '-m', '256'),
  peerCase('ibv_rc_pingpong', '-n', '50', '-c', '-s', '512', '-m', '512', '-r', '20', '-l', '1'),
  perftest('ib_write_bw', '-s', '65536', '-n', '50'),
  perftest('ib_write_bw', '-s', '1000', '-n', '100', '-q', '4', '-b'),
  perftest('ib_read_bw', '-s', '65536', '-n', '50'),
  perftest('ib_read_bw', '-s', '300000', '-n', '10', '-b'),
  perftest('ib_send_bw', '-s', '65536', '-n', '50'),
  perftest('ib_send_bw', '-s', '3000', '-n', '100', '-e'),
  perftest('ib_atomic_bw', '-n', '100', '-A', 'FETCH_AND_ADD'),
  perftest('ib_atomic_bw', '-n', '100', '-A', 'CMP_AND_SWAP'),
  perftest('ib_write_lat', '-s', '64', '-n', '30'),
  // Not with -e: perftest 4.5 takes the events of both queues from one channel and waits forever if Linux's answer
  // arrives before its ACK (fixed in perftest by 2209cf8, 2023).
  perftest('ib_send_lat', '-s', '2000', '-n', '30'),
  perftest('ib_read_lat', '-s', '2000', '-n', '30'),
  perftest('ib_atomic_lat', '-n', '30'),
]

/** Losses are not retransmitted, and a pingpong waits for them forever: little is in flight at a time. */
const uc: readonly PeerCase[] = [
  peerCase('ibv_uc_pingpong', '-n', '100', '-c', '-s', '1000'),
  peerCase('ibv_uc_pingpong', '-n', '50', '-c', '-e', '-s', '8000', '-m', '512'),
  peerCase('ib_send_bw', '-c', 'UC', '-s', '8192', '-n', '50'),
  peerCase('ib_write_bw', '-c', 'UC', '-s', '8192', '-n', '50'),
  peerCase('ib_write_lat', '-c', 'UC', '-s', '64', '-n', '30'),
  peerCase('ib_send_lat', '-c', 'UC', '-s', '2000', '-n', '30'),
]

const ud: readonly PeerCase[] = [
  peerCase('ibv_ud_pingpong', '-n', '100', '-c', '-s', '1000'),
  peerCase('ibv_ud_pingpong', '-n', '100', '-c', '-s', '1', '-e'),
  peerCase('ib_send_bw', '-c', 'UD', '-s', '1000', '-n', '50'),
  peerCase('ib_send_bw', '-c', 'UD', '-s', '500', '-n', '50', '-b', '-e'),
  peerCase('ib_send_lat', '-c', 'UD', '-s', '64', '-n', '30'),
]

const srq: readonly PeerCase[] = [
  peerCase('ibv_srq_pingpong', '-n', '200', '-c', '-s', '1000', '-q', '4'),
  peerCase('ibv_srq_pingpong', '-n', '200', '-c', '-s', '1000', '-q', '8', '-e', '-r', '20'),
  perftest('ib_send_bw', '--use-srq', '-s', '8192', '-n', '50', '-q', '2'),
]

/** All cases. */
export const allCases: readonly PeerCase[] = [...rc, ...uc, ...ud, ...srq]

/** Groups: their IP addresses, and perftest's notation. */
const groups = {
  4: ['239.1.2.3', '0:0:0:0:0:0:0:0:0:0:255:255:239:1:2:3'],
  6: ['ff0e::7', '255:14:0:0:0:0:0:0:0:0:0:0:0:0:0:7'],
} as const
export const groupAddress = (version: 4 | 6): string => groups[version][0]
/**
 * Not the latency test: it is a member of the group that it sends to, receives its own datagrams, and needs no peer.
 */
export const groupCase = (version: 4 | 6): PeerCase =>
  peerCase('ib_send_bw', '-c', 'UD', '-s', '1000', '-n', '30', '-g', '-M', groups[version][1])

/** One of each kind, for every test run. */
export const fewCases: readonly PeerCase[] = [rc[0], rc[4], rc[5], rc[9], uc[1], ud[0], srq[0]]

const rping = (options: string): RdmacmCase => ({
  server: `rping -s -a SERVER -p PORT ${options}`,
  client: `rping -c -a SERVER -p PORT ${options}`,
})

export interface ConnectionCase extends RdmacmCase {
  /** The host's programs are those of the guest's Debian release, in a separate userland. */
  readonly usesGuestRelease?: true
}

const cmtime: ConnectionCase = {
  server: 'cmtime -b SERVER -p PORT -c 10',
  client: 'cmtime -s SERVER -p PORT -c 10',
  isServerEndless: true,
}

/**
 * RC messages are one packet long, as above. `isSameRelease`: both ends have programs of one release. cmtime of
 * rdma-core 56 works only with its own version, and without IPv6.
 */
export const connectionCases = (isSameRelease: boolean, version: 4 | 6): readonly ConnectionCase[] => [
  rping('-C 5 -v'),
  rping('-C 3 -S 1000 -V -q'),
  bothSides('ucmatose', '-c 4 -C 5 -S 900'),
  udaddy(''),
  udaddy('-c 3 -C 5 -S 900'),
  { server: 'rdma_server -s SERVER -p PORT', client: 'rdma_client -s SERVER -p PORT' },
  ...(isSameRelease ? [cmtime] : version === 4 ? [{ ...cmtime, usesGuestRelease: true } as const] : []),
  bothSides('rstream', '-S 512 -C 20'),
]

export const fewConnectionCases: readonly RdmacmCase[] = [rping('-C 5 -v'), udaddy('')]

/** None with datagrams: the programs wait forever for lost ones. */
export const lossyConnectionCases: readonly RdmacmCase[] = [
  rping('-C 5 -v'),
  bothSides('ucmatose', '-c 10 -C 2 -S 100'),
]
