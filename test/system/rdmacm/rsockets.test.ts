/*
 * rsockets, librdmacm's sockets over RC queue pairs, between two daemons over UDP, without and with losses. The
 * programs compare the received data.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { casesOf } from '../../long-run.ts'
import { loopbackText } from '../../loopback.ts'
import { rsocketsLibrary } from '../../project/catalogue/userland.ts'
import { isEmpty, lacking, ownProgram, type Scope, startDaemon, suiteScope, type TestDaemon } from '../programs.ts'
import { assertGoodRdmacm, bothSides, type RdmacmCase, startRdmacm } from './rdmacm.ts'

const echo = ownProgram('echo')
const library = rsocketsLibrary('/')
const skip =
  lacking('rstream', 'riostream', echo) || (library === undefined && 'missing: librspreload.so (package librdmacm1)')

const echoCase = (bytes: number): RdmacmCase => ({
  server: `LD_PRELOAD=RSOCKETS ${echo} server SERVER PORT`,
  client: `LD_PRELOAD=RSOCKETS ${echo} client SERVER PORT ${bytes}`,
})

/** rstream and riostream compare the data with -T v. */
const verifying: readonly RdmacmCase[] = [
  bothSides('rstream', '-T v -S 16384 -C 50'),
  bothSides('rstream', '-T v -T b -S 100000 -C 10 -I 2'),
  bothSides('rstream', '-T v -T n -S 1000 -C 100 -B 4096'),
  bothSides('riostream', '-T v -S 16384 -C 20 -I 4'),
  bothSides('riostream', '-T v -T n -S 4096 -C 100'),
  echoCase(1_000_000),
]

const networks = [
  { name: 'without losses', hosts: [75, 76], fault: undefined },
  { name: 'with 2 % of all packets lost on each side', hosts: [77, 78], fault: 'drop=0.02,seed=5' },
] as const

// Without losses there is less to do wrong.
for (const { name, hosts, fault } of casesOf(networks, one => one.fault !== undefined))
  describe(`rsockets between two daemons ${name}`, { skip }, () => {
    const suite = suiteScope()
    const [server, client] = hosts.map(loopbackText) as [string, string]
    let daemons: readonly [TestDaemon, TestDaemon]
    before(async () => {
      const daemonAt = (address: string): Promise<TestDaemon> =>
        startDaemon(suite, { link: 'udp', devices: [`rxe0@${address}`], ...(fault !== undefined && { fault }) })
      daemons = [await daemonAt(server), await daemonAt(client)]
    })

    /** The returned function runs the client. */
    const startServer = (scope: Scope, one: RdmacmCase) =>
      startRdmacm(scope, daemons[0], one, { clientDaemon: daemons[1], values: { SERVER: server, RSOCKETS: library! } })

    // below, all run at the same time
    for (const one of casesOf(verifying, () => false))
      it(one.client.replace(echo, 'echo'), async t => {
        const finish = await startServer(t, one)
        assertGoodRdmacm(one, await finish())
      })

    it('all cases concurrently', async t => {
      const started: (() => Promise<void>)[] = []
      for (const one of verifying) {
        const finish = await startServer(t, one)
        started.push(async () => assertGoodRdmacm(one, await finish()))
      }
      await Promise.all(started.map(finish => finish()))
    })

    it('leave nothing behind', async () => {
      for (const daemon of daemons) await daemon.settled(isEmpty)
    })

    if (fault !== undefined)
      it('retransmit lost packets', async () => {
        for (const daemon of daemons) {
          const { transport } = (await daemon.stat()).devices[0]!
          assert.ok(transport.retransmissions! > 0, 'packets were lost')
        }
      })
  })
