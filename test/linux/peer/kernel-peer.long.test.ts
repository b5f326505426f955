/*
 * Linux 6.1, 6.12 and the newest as the peer: all cases, over IPv4 and IPv6.
 */
import { EVERY_CALL, onLinux, onNewestLinux } from '../../every-call.ts'
import { lacking, ownProgram } from '../../system/programs.ts'
import { allCases, connectionCases } from './cases.ts'
import { whyNoGuest } from './guest.ts'
import { peerSuite } from './suite.ts'

const own = ['soak', 'outcomes', 'persist', ...EVERY_CALL].map(ownProgram)
const skip = lacking('ibv_rc_pingpong', 'ib_write_bw', 'rping', ...own) || whyNoGuest()

for (const kernel of ['Linux 6.1', 'Linux 6.12', 'newest Linux'] as const) {
  // The guest with Linux 6.1 has the host's Debian release.
  const isSameRelease = kernel === 'Linux 6.1'
  peerSuite(
    {
      kernel,
      cases: { 4: allCases, 6: allCases },
      connections: { 4: connectionCases(isSameRelease, 4), 6: connectionCases(isSameRelease, 6) },
      mlx5: kernel === 'Linux 6.1' ? [4, 6] : [],
      lossyConnections: [
        { version: 4, percent: 2 },
        { version: 6, percent: 2 },
      ],
      lateAnswers: [4],
      outcomes: [4, 6],
      multicast: [4, 6],
      persistence: isSameRelease ? [] : [4, 6],
      paging: kernel === 'newest Linux' ? [4, 6] : [],
      congestion: [4, 6],
      calls: { 'Linux 6.1': undefined, 'Linux 6.12': onLinux, 'newest Linux': onNewestLinux }[kernel],
      soaks: [
        { version: 4, bytes: 25_000_000, percent: 2 },
        { version: 6, bytes: 3_000_000, percent: 2 },
      ],
    },
    skip,
  )
}
