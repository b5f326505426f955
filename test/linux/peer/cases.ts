/*
 * Programs that run between userdma and Linux's soft device, with the same options at both ends. Latency tests have few
 * rounds: they poll, and the guest's CPU is emulated.
 */
import { bothSides, type RdmacmCase, udaddy } from '../../system/rdmacm/rdmacm.ts'

export interface PeerCase {
  readonly program: string
  readonly args: readonly string[]
}

const peerCase = (program: string, ...args: string[]): PeerCase => ({ program, args })

/** perftest with a local ACK timeout of 1 s: the default of 67 ms expires while an emulated CPU is preempted. */
const perftest = (program: string, ...args: string[]): PeerCase => peerCase(program, '-u', '18', ...args)

/**
 * Messages of pingpongs have one packet. The pingpongs' timeout of 67 ms makes the guest retransmit, and Linux 6.1's
 * rxe stalls if an ACK overtakes the retransmission of a longer message.
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
  // Without -e: perftest 4.5 waits forever for an event if Linux's answer arrives before Linux's ACK (fixed in
  // perftest's commit 2209cf8).
  perftest('ib_send_lat', '-s', '2000', '-n', '30'),
  perftest('ib_read_lat', '-s', '2000', '-n', '30'),
  perftest('ib_atomic_lat', '-n', '30'),
]

/** Little is in flight: a pingpong waits forever for a lost packet. */
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

export const allCases: readonly PeerCase[] = [...rc, ...uc, ...ud, ...srq]

/** For mlx5, which has 16 outstanding READs: perftest asks for as many as the other end has, 128. */
export const mlx5Cases: readonly PeerCase[] = allCases.map(({ program, args }) =>
  peerCase(program, ...args, ...(/^ib_(read|atomic)/.test(program) ? ['-o', '16'] : [])),
)

/**
 * Both ends have regions with on-demand paging. perftest has no atomics with them. Only data at the beginning of a page
 * are compared, in one packet: others Linux's rxe copies to the wrong place (docs/decisions/departures-from-rxe.md).
 */
export const pagingCases: readonly PeerCase[] = [
  peerCase('ibv_rc_pingpong', '-n', '100', '-c', '-s', '1000', '-o'),
  peerCase('ibv_srq_pingpong', '-n', '200', '-c', '-s', '1000', '-q', '4', '-o'),
  ...['ib_write_bw', 'ib_read_bw', 'ib_send_bw'].map(name => perftest(name, '--odp', '-s', '65536', '-n', '50')),
]

/** Linux's rxe sends with the traffic class of the program: 2 is ECT(0) (RFC 3168). */
export const markedCase: PeerCase = perftest('ib_write_bw', '-s', '65536', '-n', '50', '-b', '--tclass=2')

/** Multicast groups: IP address, perftest's notation. */
const groups = {
  4: ['239.1.2.3', '0:0:0:0:0:0:0:0:0:0:255:255:239:1:2:3'],
  6: ['ff0e::7', '255:14:0:0:0:0:0:0:0:0:0:0:0:0:0:7'],
} as const
export const groupAddress = (version: 4 | 6): string => groups[version][0]
/** Messages of `groupCase`. */
export const GROUP_MESSAGES = 30
/** The bandwidth test: in the latency test a sender is a member of the group, and needs no peer. */
export const groupCase = (version: 4 | 6): PeerCase =>
  peerCase('ib_send_bw', '-c', 'UD', '-s', '1000', '-n', String(GROUP_MESSAGES), '-g', '-M', groups[version][1])

const rping = (options: string): RdmacmCase => ({
  server: `rping -s -a SERVER -p PORT ${options}`,
  client: `rping -c -a SERVER -p PORT ${options}`,
})

export interface ConnectionCase extends RdmacmCase {
  /** The host's program is that of the guest's Debian release. */
  readonly usesGuestRelease?: true
}

const cmtime: ConnectionCase = {
  server: 'cmtime -b SERVER -p PORT -c 10',
  client: 'cmtime -s SERVER -p PORT -c 10',
  isServerEndless: true,
}

/** cmtime of rdma-core 56 works only with its own version, and without IPv6. */
const cmtimeCases = (isSameRelease: boolean, version: 4 | 6): readonly ConnectionCase[] => {
  if (isSameRelease) return [cmtime]
  return version === 4 ? [{ ...cmtime, usesGuestRelease: true }] : []
}

/**
 * RC messages have one packet, as in the pingpongs of `rc`. `isSameRelease`: both ends have programs of one Debian
 * release.
 */
export const connectionCases = (isSameRelease: boolean, version: 4 | 6): readonly ConnectionCase[] => [
  rping('-C 5 -v'),
  rping('-C 3 -S 1000 -V -q'),
  bothSides('ucmatose', '-c 4 -C 5 -S 900'),
  udaddy(''),
  udaddy('-c 3 -C 5 -S 900'),
  { server: 'rdma_server -s SERVER -p PORT', client: 'rdma_client -s SERVER -p PORT' },
  ...cmtimeCases(isSameRelease, version),
  bothSides('rstream', '-S 512 -C 20'),
]

/** Programs without datagrams: the programs with datagrams wait forever for a lost one. */
export const lossyConnectionCases: readonly RdmacmCase[] = [
  rping('-C 5 -v'),
  bothSides('ucmatose', '-c 10 -C 2 -S 100'),
]
