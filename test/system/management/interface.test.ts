/*
 * A device's interface changes while programs use it: addresses, which are GIDs, link state and MTU. Programs get
 * events.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { hasNative } from '../../../src/host/native.ts'
import { type Completion, type CompletionQueue, type Device, MULTICAST_QPN, open } from '../../../src/library/index.ts'
import { DEFAULT_QKEY } from '../../../src/library/verbs/qp/queue-pair.ts'
import { canMakeNamespaces, connectNamespaces, ip, twoNamespaces } from '../namespaces.ts'
import { assertGoodPair, runPair, startPair } from '../pairs/pingpong.ts'
import { lacking, run, type Scope, start, startDaemon, type TestDaemon } from '../programs.ts'

/** Of ibv_rc_pingpong. */
const pingpongArgs = (gidIndex: number): string[] => ['-g', String(gidIndex), '-n', '20', '-c']

const noKoffi = !hasNative() && 'koffi is missing'

/** The GIDs that ibv_devinfo shows, by index. */
const gidsOf = async (t: Scope, daemon: TestDaemon): Promise<Readonly<Record<number, string>>> => {
  const { stdout } = await run(t, 'ibv_devinfo', ['-v'], { env: daemon.env })
  return Object.fromEntries([...stdout.matchAll(/GID\[ *(\d+)\]:\s+(\S+?),/g)].map(([, i, gid]) => [i, gid]))
}

const pingpong = async (t: Scope, [a, b]: readonly TestDaemon[]): Promise<void> =>
  assertGoodPair(await runPair(t, a, pingpongArgs(1), { clientDaemon: b }))

/** Starts ibv_asyncwatch; the returned function waits for the next event of a kind. */
const startWatching = async (t: Scope, daemon: TestDaemon): Promise<(event: string) => Promise<void>> => {
  const watching = start(t, 'stdbuf', ['-oL', 'ibv_asyncwatch'], { env: daemon.env })
  await watching.printed(/async event FD/)
  const awaited: Record<string, number> = {}
  return async event => {
    awaited[event] = (awaited[event] ?? 0) + 1
    await watching.printed(new RegExp(`(IBV_EVENT_${event} [^]*?port 1\\n[^]*?){${awaited[event]}}`))
  }
}

const nextCompletion = async (cq: CompletionQueue): Promise<Completion> => {
  for await (const wc of cq) return wc
  throw new Error('the completion queue was closed')
}

describe('a device follows its interface', {
  skip: lacking('ibv_asyncwatch', 'ibv_rc_pingpong', 'ibv_devinfo'),
}, () => {
  it('when addresses, MTU and link change', async t => {
    if (!canMakeNamespaces(t)) return
    const [netns, peerNetns] = twoNamespaces(t, 1500)
    const daemons = await Promise.all(
      [netns, peerNetns].map((netns, i) => startDaemon(t, { devices: [`rxe0@10.99.0.${i + 1}`], link: 'udp', netns })),
    )
    const [daemon, peerDaemon] = daemons
    const port = join(`${daemon.socket}.tree`, 'sys/class/infiniband/rxe0/ports/1')
    const assertLink = (state: string, phys: string): void =>
      assert.deepEqual(
        ['state', 'phys_state'].map(file => readFileSync(join(port, file), 'latin1')),
        [`${state}\n`, `${phys}\n`],
      )
    const next = await startWatching(t, daemon)
    const before = await gidsOf(t, daemon)
    assert.deepEqual([before[1], before[2]], ['::ffff:10.99.0.1', 'fd99::1'], 'all addresses of the interface')

    ip('-n', netns, 'address', 'add', '10.99.0.7/24', 'dev', 'v0')
    await next('GID_CHANGE')
    ip('-n', netns, 'address', 'add', 'fd99::7/64', 'dev', 'v0', 'nodad')
    await next('GID_CHANGE')
    assert.deepEqual(await gidsOf(t, daemon), { ...before, 3: '::ffff:10.99.0.7', 4: 'fd99::7' })
    const { client, server } = await runPair(t, daemon, pingpongArgs(4), {
      clientDaemon: peerDaemon,
      clientArgs: pingpongArgs(2),
    })
    assert.deepEqual([client.status, server.status], [0, 0], client.stderr + server.stderr)

    ip('-n', netns, 'link', 'set', 'v0', 'mtu', '9000')
    await next('PORT_ACTIVE')
    assert.match((await run(t, 'ibv_devinfo', [], { env: daemon.env })).stdout, /active_mtu:\s+4096 /)

    const tooLong = await runPair(t, daemon, [...pingpongArgs(1), '-m', '4096'], { clientDaemon: peerDaemon })
    assert.equal(tooLong.client.status, 1)
    assert.match(tooLong.client.stderr, /Failed to modify QP to RTR/, 'the interface of the client has the old MTU')
    const interrupted = await startPair(t, daemon, ['-g', '1', '-n', '100000000'], { clientDaemon: peerDaemon })
    await daemon.settled(({ devices }) => devices[0].port.sentPackets > 1000)
    // Linux removes 10.99.0.7, the secondary address of that network, with 10.99.0.1.
    ip('-n', netns, 'address', 'delete', '10.99.0.1/24', 'dev', 'v0')
    await next('GID_CHANGE')
    await next('GID_CHANGE')
    const { 1: _own, ...rest } = before
    assert.deepEqual(await gidsOf(t, daemon), { ...rest, 4: 'fd99::7' }, 'the other GIDs keep their index')
    assert.deepEqual(readdirSync(join(port, 'gids')).sort(), ['0', '2', '4'])
    const failed = await Promise.race([interrupted.client.ended, interrupted.server.ended])
    assert.match(failed.stderr, /transport retry counter exceeded/)
    for (const { child } of [interrupted.client, interrupted.server]) child.kill()
    // A queue pair keeps the index of its GID from other addresses.
    await daemon.settled(({ devices }) => !devices[0].objects.qp)
    ip('-n', netns, 'address', 'add', '10.99.0.1/24', 'dev', 'v0')
    await next('GID_CHANGE')
    assert.equal((await gidsOf(t, daemon))[1], '::ffff:10.99.0.1')
    await pingpong(t, daemons)

    assertLink('4: ACTIVE', '5: LinkUp')
    assert.equal(readFileSync(join(port, 'rate'), 'latin1'), '10 Gb/sec (1X FDR10)\n', 'that of the interface')
    ip('-n', peerNetns, 'link', 'set', 'v0', 'down')
    await next('PORT_ERR')
    assertLink('1: DOWN', '2: Polling')
    ip('-n', peerNetns, 'link', 'set', 'v0', 'up')
    await next('PORT_ACTIVE')
    ip('-n', netns, 'link', 'set', 'v0', 'down')
    await next('PORT_ERR')
    assertLink('1: DOWN', '3: Disabled')
    ip('-n', netns, 'link', 'set', 'v0', 'up')
    await next('PORT_ACTIVE')
    assertLink('4: ACTIVE', '5: LinkUp')
    await pingpong(t, daemons)

    ip('-n', netns, 'link', 'delete', 'v0')
    await next('PORT_ERR')
    assertLink('1: DOWN', '3: Disabled')
    assert.equal((await daemon.stat()).devices.length, 1, 'the daemon still runs')
  })

  it('when the interface is deleted and created again, also with another name', {
    skip: noKoffi,
  }, async t => {
    if (!canMakeNamespaces(t)) return
    const namespaces = twoNamespaces(t, 1500)
    const daemons = await Promise.all(
      namespaces.map((netns, i) => startDaemon(t, { devices: [`rxe0@10.99.0.${i + 1}`], link: 'udp', netns })),
    )
    const [daemon] = daemons
    const next = await startWatching(t, daemon)
    const before = await gidsOf(t, daemon)
    const devices: Device[] = []
    t.after(() => Promise.all(devices.map(device => device.close())))
    for (const { socket } of daemons) devices.push(await open({ socket }))
    const [listener, speaker] = devices.map(device => {
      const pd = device.pd()
      const cq = device.cq()
      const qp = pd.udQp({ sendCq: cq })
      qp.activate()
      return { pd, cq, qp, mr: pd.register(new Uint8Array(64)) }
    })
    const groups = ['239.91.0.7', 'ff02::77']
    for (const group of groups) listener.qp.attach(group)

    let current = 'v0'
    for (const [dev, mtu] of [
      ['v0', 9000],
      ['other', 1500],
    ] as const) {
      ip('-n', namespaces[0], 'link', 'delete', current)
      await next('PORT_ERR')
      assert.deepEqual(await gidsOf(t, daemon), { 0: before[0] }, 'no address, no GID')
      connectNamespaces(namespaces, dev, mtu)
      current = dev
      await next('PORT_ACTIVE')
      // A daemon adds the GIDs of both addresses soon after its link is up.
      for (const one of daemons) {
        let gids: Readonly<Record<number, string>>
        do gids = await gidsOf(t, one)
        while (gids[1] === undefined || gids[2] === undefined)
      }
      await pingpong(t, daemons)
      const shown = readFileSync(
        join(`${daemon.socket}.tree`, 'sys/class/infiniband/rxe0/ports/1/gid_attrs/ndevs/1'),
        'latin1',
      )
      assert.equal(shown, `${dev}\n`)
      const { stdout } = await run(t, 'ip', ['-n', namespaces[0], 'maddress', 'show', 'dev', dev])
      for (const group of groups) assert.ok(stdout.includes(group), `${group} is not in:\n${stdout}`)
      using ah = speaker.pd.addressHandle({ gid: groups[0] })
      listener.qp.receive(listener.mr.slice())
      speaker.qp.send(Uint8Array.of(1, 2, 3), { ah, qpn: MULTICAST_QPN, qkey: DEFAULT_QKEY })
      const [sent, received] = [await nextCompletion(speaker.cq), await nextCompletion(listener.cq)]
      // 3 bytes of payload after 40 bytes for the network header.
      assert.deepEqual([sent.status, received.status, received.bytes], [0, 0, 43])
    }
  })

  it('when the new interface allows no IPv6: the device joins its IPv4 groups', {
    skip: noKoffi,
  }, async t => {
    if (!canMakeNamespaces(t)) return
    const [netns] = twoNamespaces(t, 1500)
    const daemon = await startDaemon(t, { devices: ['rxe0@10.99.0.1'], link: 'udp', netns })
    const next = await startWatching(t, daemon)
    const device = await open({ socket: daemon.socket })
    t.after(() => device.close())
    const cq = device.cq()
    const qp = device.pd().udQp({ sendCq: cq })
    for (const group of ['ff02::77', '239.91.0.7']) qp.attach(group)
    ip('-n', netns, 'link', 'delete', 'v0')
    await next('PORT_ERR')
    // IPv6 needs an MTU of 1280.
    ip('-n', netns, 'link', 'add', 'v0', 'mtu', '1000', 'type', 'veth', 'peer', 'name', 'v1')
    for (const name of ['v0', 'v1']) ip('-n', netns, 'link', 'set', name, 'up')
    await next('PORT_ACTIVE')
    await daemon.running.printed(/rxe0 could not join all its multicast groups on v0: /)
    const { stdout } = await run(t, 'ip', ['-n', netns, 'maddress', 'show', 'dev', 'v0'])
    assert.match(stdout, /239\.91\.0\.7/)
  })

  it('except addresses that other devices have', async t => {
    if (!canMakeNamespaces(t)) return
    const [netns] = twoNamespaces(t, 1500)
    ip('-n', netns, 'address', 'add', '10.99.0.8/24', 'dev', 'v0')
    const first = await startDaemon(t, { devices: ['rxe0@10.99.0.1'], link: 'udp', netns })
    /** The GIDs without GID 0, which is link-local. */
    const addressGids = async (daemon: TestDaemon) => Object.values(await gidsOf(t, daemon)).slice(1)
    assert.deepEqual(await addressGids(first), ['::ffff:10.99.0.1', '::ffff:10.99.0.8', 'fd99::1'])
    const second = await startDaemon(t, { devices: ['rxe0@10.99.0.8'], link: 'udp', netns })
    assert.match(second.running.output(), /rxe0 does not use the address 10\.99\.0\.1: its UDP port 4791 is in use/)
    assert.deepEqual(await addressGids(second), ['::ffff:10.99.0.8'])
    await pingpong(t, [first, second])
    const devices = ['rxe0@127.0.0.1', 'rxe1@127.0.0.2']
    const both = await startDaemon(t, { devices, link: 'udp', netns })
    // ibv_devinfo shows both devices; of GIDs with the same index, `gidsOf` returns that of the last device, rxe1.
    assert.deepEqual(await addressGids(both), ['::ffff:127.0.0.2'], 'rxe1 does not have ::1')
  })
})
