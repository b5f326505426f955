/*
 * Unmodified programs of librdmacm: over memory, over UDP and between namespaces.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { casesOf } from '../../long-run.ts'
import { loopbackText } from '../../loopback.ts'
import { canMakeNamespaces, interfaceIndex, ip, twoNamespaces } from '../namespaces.ts'
import {
  freePort,
  isEmpty,
  lacking,
  ownProgram,
  run,
  start,
  startDaemon,
  suiteScope,
  type TestDaemon,
} from '../programs.ts'
import { assertGoodRdmacm, type RdmacmCase, rdmacmCases, rpingCases, runRdmacm } from './rdmacm.ts'

const closedChannel = ownProgram('closed_channel')

const programOf = ({ client }: RdmacmCase) => client.split(' ')[0]
/** `npm test` has the first case of each program. */
const isFirstOf = (table: readonly RdmacmCase[]) => (one: RdmacmCase) =>
  table.find(other => programOf(other) === programOf(one)) === one

describe('programs of rdma_cm', { skip: lacking('rping', 'ib_send_bw') }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite)
  })

  for (const one of casesOf(rdmacmCases, isFirstOf(rdmacmCases)))
    it(one.client, async t => {
      assertGoodRdmacm(one, await runRdmacm(t, daemon, one))
    })

  it('leave nothing behind', async () => {
    await daemon.settled(isEmpty)
  })
})

describe('programs of rdma_cm between two daemons over UDP', { skip: lacking('rping') }, () => {
  const suite = suiteScope()
  let server: TestDaemon
  let client: TestDaemon
  before(async () => {
    server = await startDaemon(suite, { link: 'udp', devices: [`rxe0@${loopbackText(71)}`] })
    client = await startDaemon(suite, { link: 'udp', devices: [`rxe0@${loopbackText(72)}`] })
  })

  const others = rdmacmCases.filter(one => /^(udaddy|ucmatose|rstream|rdma_client)/.test(one.client))
  const all = [...rpingCases, ...others]
  for (const one of casesOf(all, isFirstOf(all)))
    it(one.client, async t => {
      assertGoodRdmacm(
        one,
        await runRdmacm(t, server, one, { clientDaemon: client, values: { SERVER: loopbackText(71) } }),
      )
    })

  it('are notified when their peer is killed', async t => {
    const { listeners } = (await server.stat()).connections
    const killed = start(t, 'rping', ['-s', '-a', loopbackText(71), '-p', '19999', '-v'], { env: server.env })
    await server.settled(({ connections }) => connections.listeners > listeners)
    const peer = start(t, 'rping', ['-c', '-a', loopbackText(71), '-p', '19999', '-v'], { env: client.env })
    await peer.printed(/ping data/)
    killed.child.kill('SIGKILL')
    await peer.printed(/DISCONNECT EVENT/)
    await peer.ended
  })

  it('leave nothing behind', async () => {
    await server.settled(isEmpty)
    await client.settled(isEmpty)
  })
})

describe('programs of rdma_cm in two namespaces', { skip: lacking('rping') }, () => {
  it('reach a link-local address through the interface that its scope names', async t => {
    if (!canMakeNamespaces(t)) return
    const namespaces = twoNamespaces(t, 1500)
    for (const [i, name] of namespaces.entries())
      ip('-n', name, 'address', 'add', `fe80::${i + 1}/64`, 'dev', 'v0', 'nodad')
    const [server, client] = [
      await startDaemon(t, { link: 'udp', devices: ['rxe0@10.99.0.1'], netns: namespaces[0] }),
      await startDaemon(t, { link: 'udp', devices: ['rxe0@10.99.0.2'], netns: namespaces[1] }),
    ]
    const index = interfaceIndex(namespaces[1], 'v0')
    const rping: RdmacmCase = {
      server: 'rping -s -a :: -p PORT -C 3',
      client: `rping -c -a fe80::1%${index} -p PORT -C 3 -v`,
    }
    assertGoodRdmacm(rping, await runRdmacm(t, server, rping, { clientDaemon: client }))
    const wrongScope = start(t, 'rping', ['-c', '-a', `fe80::1%${index + 1}`, '-C', '1'], { env: client.env })
    assert.match((await wrongScope.ended).stderr, /RDMA_CM_EVENT_ADDR_ERROR, error -19/) // ENODEV
  })
})

describe('a neighbour that gets another MAC', { skip: lacking('rping') }, () => {
  const families = [
    ['IPv4', '10.99.0.1'],
    ['IPv6', 'fd99::1'],
  ] as const
  // A minute of traffic for each; which one does not matter to what is sent.
  for (const [family, address] of casesOf(families, ([family]) => family === 'IPv6'))
    it(`raises UNREACHABLE on connections to it, as on Linux: ${family}`, async t => {
      if (!canMakeNamespaces(t)) return
      const namespaces = twoNamespaces(t, 1500)
      const [server, client] = [
        await startDaemon(t, { link: 'udp', devices: ['rxe0@10.99.0.1'], netns: namespaces[0] }),
        await startDaemon(t, { link: 'udp', devices: ['rxe0@10.99.0.2'], netns: namespaces[1] }),
      ]
      const port = await freePort()
      const options = ['-a', address, '-p', String(port), '-C', '100000000']
      const serverProgram = start(t, 'rping', ['-s', ...options], { env: server.env })
      await Promise.race([server.settled(({ connections }) => connections.listeners === 1), serverProgram.ended])
      const clientProgram = start(t, 'rping', ['-c', ...options], { env: client.env })
      await Promise.race([client.settled(({ devices }) => devices[0]!.port.sentPackets > 1000), clientProgram.ended])
      ip(
        '-n',
        namespaces[1],
        'neigh',
        'replace',
        address,
        'lladdr',
        '02:00:00:00:00:99',
        'dev',
        'v0',
        'nud',
        'permanent',
      )
      assert.match((await clientProgram.ended).stderr, /RDMA_CM_EVENT_UNREACHABLE, error -110/) // ETIMEDOUT
      serverProgram.child.kill()
    })
})

describe('a channel that is closed while a thread waits on it', { skip: lacking(closedChannel) }, () => {
  it('does not wake the thread, as on Linux', async t => {
    const daemon = await startDaemon(t)
    const { status, stdout, stderr } = await run(t, closedChannel, [], { env: daemon.env })
    if (stderr.startsWith('cannot:')) return t.skip(stderr)
    assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: 'right\n', stderr: '' })
    await daemon.settled(isEmpty)
  })
})
