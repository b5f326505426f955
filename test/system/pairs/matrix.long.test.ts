/*
 * The cases of matrix.ts on loopback, on loopback with losses, and between network namespaces.
 */
import { before, describe, it } from 'node:test'
import { loopbackText } from '../../loopback.ts'
import { canMakeNamespaces, twoNamespaces } from '../namespaces.ts'
import { isEmpty, lacking, type Scope, suiteScope } from '../programs.ts'
import {
  caseTitle,
  type MatrixCase,
  matrixPrograms,
  type Network,
  reliableCases,
  runMatrixCase,
  startTwoDaemons,
  type TwoDaemons,
  unreliableCases,
} from './matrix.ts'

interface Plan {
  readonly name: string
  readonly network: (scope: Scope) => Network
  readonly cases: readonly MatrixCase[]
  readonly needsNamespaces: boolean
}

const allCases = [...reliableCases, ...unreliableCases]
const links = ['udp', 'udp-plain'] as const

const onLoopback: readonly Plan[] = links.map((link, i) => ({
  name: `loopback, --link ${link}`,
  network: () => ({ addresses: [loopbackText(10 * i + 1), loopbackText(10 * i + 2)], link }),
  cases: allCases,
  needsNamespaces: false,
}))

/**
 * ACKs are lost only in cases whose ends wait for each other before they exit: a pingpong destroys its queue pairs when
 * it has received everything, and if its last ACK is lost, the other end fails with RETRY_EXC. Cases with -e are left
 * out too: ib_send_lat gets the events of its send CQ and its receive CQ from one channel, and fails if a lost ACK
 * changes their order.
 */
const losses = [
  {
    name: 'SENDs, WRITEs and READs',
    fault: 'opcode=*SEND*+*WRITE*+*READ*,drop=0.01,reorder=0.01,seed=3',
    cases: reliableCases,
  },
  {
    name: 'packets of every kind',
    fault: 'drop=0.01,reorder=0.01,seed=3',
    cases: reliableCases.filter(({ program, args }) => /_(bw|lat)$/.test(program) && !args.includes('-e')),
  },
] as const

const withLosses: readonly Plan[] = links.flatMap((link, i) =>
  losses.map(({ name, fault, cases }, j) => ({
    name: `loopback with losses of ${name}, --link ${link}`,
    network: () => ({ addresses: [loopbackText(20 + 10 * i + 2 * j), loopbackText(21 + 10 * i + 2 * j)], link, fault }),
    cases,
    needsNamespaces: false,
  })),
)

const onVeth: readonly Plan[] = [1500, 9000].flatMap(mtu =>
  ([4, 6] as const).flatMap(version =>
    links.map(
      (link): Plan => ({
        name: `veth, MTU ${mtu}, IPv${version}, --link ${link}`,
        network: scope => ({
          addresses: version === 4 ? ['10.99.0.1', '10.99.0.2'] : ['fd99::1', 'fd99::2'],
          link,
          netns: twoNamespaces(scope, mtu),
        }),
        cases: allCases,
        needsNamespaces: true,
      }),
    ),
  ),
)

describe('two daemons, the whole matrix', { skip: lacking(...matrixPrograms) }, () => {
  for (const { name, network, cases, needsNamespaces } of [...onLoopback, ...withLosses, ...onVeth])
    describe(name, () => {
      const scope = suiteScope()
      let daemons: TwoDaemons | undefined
      before(async () => {
        if (!needsNamespaces) daemons = await startTwoDaemons(scope, network(scope))
      })

      // A test can be skipped; `before` cannot.
      if (needsNamespaces)
        it('two daemons in namespaces start', async t => {
          if (canMakeNamespaces(t)) daemons = await startTwoDaemons(scope, network(scope))
        })

      for (const one of cases)
        it(caseTitle(one), t =>
          daemons ? runMatrixCase(t, daemons, one) : t.skip('network namespaces need root and iproute2'),
        )

      it('leaves nothing behind', async () => {
        for (const daemon of daemons ?? []) await daemon.settled(isEmpty)
      })
    })
})
