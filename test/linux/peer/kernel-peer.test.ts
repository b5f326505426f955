/*
 * Some tests with Linux 6.1 as the peer. The long tests have the full matrix.
 */
import { lacking, ownProgram } from '../../system/programs.ts'
import { fewCases, fewConnectionCases } from './cases.ts'
import { whyNoGuest } from './guest.ts'
import { peerSuite } from './suite.ts'

peerSuite(
  {
    kernel: 'Linux 6.1',
    cases: { 4: fewCases },
    connections: { 4: fewConnectionCases, 6: fewConnectionCases },
    mlx5: [],
    lossyConnections: [],
    lateAnswers: [],
    soaks: [{ version: 6, bytes: 500_000, percent: 2 }],
    outcomes: [],
    multicast: [],
    persistence: [],
    paging: [],
    congestion: [],
  },
  lacking('ibv_rc_pingpong', 'ib_write_bw', 'rping', ownProgram('soak')) || whyNoGuest(),
)
