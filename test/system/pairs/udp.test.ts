/*
 * Programs of two daemons over UDP, on loopback and between network namespaces.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { readCapture } from '../../captures.ts'
import { becomes } from '../../limits.ts'
import { casesOf, inLongRun } from '../../long-run.ts'
import { loopbackText } from '../../loopback.ts'
import { fixture } from '../../paths.ts'
import { findTool, skipTest } from '../../tools.ts'
import { canMakeNamespaces, twoNamespaces } from '../namespaces.ts'
import {
  assertFaultsInjected,
  isEmpty,
  lacking,
  ownProgram,
  run,
  runUserdma,
  type Scope,
  start,
  startDaemon,
  suiteScope,
  type TestDaemon,
  temporaryFolder,
} from '../programs.ts'
import { caseOf, runMatrixCase, startTwoDaemons, type TwoDaemons } from './matrix.ts'
import { assertGoodPair, caseName, type PingpongCase, runCase, runPair, startPair } from './pingpong.ts'

const pingpong = (size: number, mtu: number, waitsForEvents = false): PingpongCase => ({
  waitsForEvents,
  checksData: true,
  size,
  mtu,
  usesTwoDevices: false,
})

/** Counters of the port of the daemon's first device. */
const portCountersOf = async (daemon: TestDaemon): Promise<Readonly<Record<string, number>>> =>
  (await daemon.stat()).devices[0].port

const assertNothingLost = async (daemons: TwoDaemons): Promise<void> => {
  for (const daemon of daemons) {
    const { devices } = await daemon.settled(isEmpty)
    const { icrcErrors, dropped } = devices[0].port
    assert.deepEqual({ icrcErrors, dropped }, { icrcErrors: 0, dropped: 0 })
  }
}

const verbsCheck = ownProgram('verbs_check')
/** At least 200 operations of up to 20,000 bytes, from seed 6. */
const CHECK_ARGS = ['-g', '1', '-s', '20000', '-n', '200', '-S', '6', '-m', '1024']

/** Runs verbs_check with the server on the first daemon, and asserts that both ends succeed. */
const runVerbsCheck = async (t: Scope, [a, b]: TwoDaemons): Promise<void> => {
  const { server, client } = await runPair(t, a, CHECK_ARGS, { program: verbsCheck, clientDaemon: b })
  for (const { status, stdout, stderr } of [server, client]) assert.equal(status, 0, stdout + stderr)
}

const skip = lacking('ibv_rc_pingpong', 'ib_write_bw', 'ib_atomic_bw', verbsCheck)

describe('two daemons on loopback', { skip }, () => {
  const links = ['udp', 'udp-plain']
  links.forEach((link, number) => {
    describe(`--link ${link}`, () => {
      const suite = suiteScope()
      let daemons: TwoDaemons
      before(async () => {
        daemons = await startTwoDaemons(suite, {
          addresses: [loopbackText(10 * number + 1), loopbackText(10 * number + 2)],
          link,
        })
      })

      // Without segments of the kernel the programs do the same: the long run has all.
      const isWhole = inLongRun(true, link === 'udp')
      const pingpongs = [
        pingpong(1048576, 4096, true),
        pingpong(1, 1024),
        pingpong(4096, 256, true),
        pingpong(65536, 1024),
        pingpong(65536, 2048),
      ]
      for (const pingpongCase of isWhole ? pingpongs : pingpongs.slice(0, 2))
        it(`ibv_rc_pingpong: ${caseName(pingpongCase)}`, t =>
          runCase(t, daemons[0], pingpongCase, undefined, daemons[1]))

      const perftests = [
        'ib_write_bw -s 4096 -n 500 -q 4 -b',
        'ib_write_bw -s 65536 -n 500',
        'ib_send_bw -s 65536 -n 300 -m 1024',
        'ib_read_bw -s 65536 -n 300',
        'ib_atomic_bw -n 300 -A FETCH_AND_ADD',
        'ib_send_lat -s 64 -n 300 -e',
      ]
      for (const line of isWhole ? perftests : perftests.slice(0, 1))
        it(line, t => runMatrixCase(t, daemons, caseOf(line)))

      it('every byte of every operation arrives, both ways', async t => {
        await runVerbsCheck(t, daemons)
        await runVerbsCheck(t, [daemons[1], daemons[0]])
      })

      it('nothing was lost, and the kernel segmented messages only with --link udp', async () => {
        await assertNothingLost(daemons)
        const { segmentedMessages, sentPackets } = await portCountersOf(daemons[0])
        assert.ok(sentPackets > 1000)
        if (link === 'udp') assert.ok(segmentedMessages > 100)
        else assert.equal(segmentedMessages, 0)
      })
    })
  })

  it('every byte arrives with faults', async t => {
    const fault = 'drop=0.01,dup=0.02,reorder=0.02,corrupt=0.01,seed=5'
    const daemons = await startTwoDaemons(t, { addresses: [loopbackText(31), loopbackText(32)], fault })
    await runVerbsCheck(t, daemons)
    await runVerbsCheck(t, [daemons[1], daemons[0]])
    await assertFaultsInjected(...daemons)
    for (const daemon of daemons) await daemon.settled(isEmpty)
  })

  // Torment at both ends is also between namespaces, below.
  const torments: readonly (readonly [number | undefined, number | undefined])[] = [
    [5, undefined],
    [undefined, 2],
    [3, 4],
  ]
  for (const [number, torment] of casesOf(torments, one => one.includes(undefined)).entries())
    it(`every byte arrives with torment ${torment.map(seed => seed ?? 'off').join(' and ')}`, async t => {
      const daemons = await startTwoDaemons(t, {
        addresses: [loopbackText(33 + 2 * number), loopbackText(34 + 2 * number)],
        torment,
      })
      await runVerbsCheck(t, daemons)
      await runCase(t, daemons[0], pingpong(65536, 1024, true), 20, daemons[1])
      for (const daemon of daemons) await daemon.settled(isEmpty)
    })

  it('devices of one daemon send to each other and to themselves', async t => {
    const devices = [`rxe0@${loopbackText(41)}`, `rxe1@${loopbackText(42)}`]
    const daemon = await startDaemon(t, { devices, link: 'udp' })
    await runCase(t, daemon, { ...pingpong(65536, 4096), usesTwoDevices: true })
    await runCase(t, daemon, pingpong(5000, 1024, true))
    const { devices: found } = await daemon.settled(isEmpty)
    assert.deepEqual(
      found.map(({ port }) => port.sendCalls > 0),
      [true, true],
    )
  })
})

describe('a daemon with --link udp', { skip: lacking('ibv_devinfo') }, () => {
  it('shows a path MTU that fits the interface', async t => {
    const daemon = await startDaemon(t, { devices: [`rxe0@${loopbackText(51)}`], link: 'udp' })
    const { stdout } = await run(t, 'ibv_devinfo', [], { env: daemon.env })
    assert.match(stdout, /active_mtu:\s+4096/)
  })

  it('lists the available addresses if the address of a device is missing', async t => {
    const { status, stderr, stdout } = await runUserdma(t, [
      ...['daemon', '--link', 'udp', '--device', 'rxe0@203.0.113.9', '--socket', join(temporaryFolder(t), 's')],
    ])
    assert.match(stderr, /device rxe0@203\.0\.113\.9: this machine does not have the address .*127\.0\.0\.1 \(lo\)/)
    assert.deepEqual([status, stdout], [1, ''])
  })

  it('reports that the port is in use', async t => {
    const device = `rxe0@${loopbackText(52)}`
    await startDaemon(t, { devices: [device], link: 'udp' })
    const { status, stderr } = await runUserdma(t, [
      ...['daemon', '--link', 'udp', '--device', device, '--socket', join(temporaryFolder(t), 's')],
    ])
    assert.match(stderr, /UDP port 4791 of 127\..* is in use by another program .*, or by Linux.s module rdma_rxe/)
    assert.equal(status, 1)
  })

  it('is not joined by a program that requests another link', async t => {
    const daemon = await startDaemon(t, { devices: [`rxe0@${loopbackText(53)}`], link: 'udp' })
    const refused = await runUserdma(t, ['run', '--socket', daemon.socket, '--link', 'memory', '--', 'true'])
    assert.match(refused.stderr, /has link udp, not memory; use --private/)
    assert.equal(refused.status, 1)
    const joined = await runUserdma(t, ['run', '--socket', daemon.socket, '--link', 'udp', '--', 'true'])
    assert.deepEqual([joined.status, joined.stderr], [0, ''])
  })

  it('refuses a path from an address that the machine does not have', async t => {
    const daemon = await startDaemon(t, { devices: [`rxe0@${loopbackText(54)}`], link: 'udp' })
    // GID 0 is a link-local address, which loopback lacks.
    const pair = await startPair(t, daemon, ['-g', '0', '-n', '4'])
    const [client, server] = [await pair.client.ended, await pair.server.ended]
    assert.deepEqual([client.status, server.status], [1, 1])
    assert.match(client.stderr + server.stderr, /Failed to modify QP to RTR/)
  })
})

/** Waits until a capture in progress has `count` packets, for a while. The caller compares the numbers. */
const untilCaptured = async (path: string, count: number): Promise<void> => {
  const captured = (): number => {
    try {
      return readCapture(readFileSync(path)).length
    } catch {
      return 0
    }
  }
  await becomes(() => captured() >= count, 10)
}

const NAMESPACE_ADDRESSES = { 4: ['10.99.0.1', '10.99.0.2'], 6: ['fd99::1', 'fd99::2'] } as const

describe('two network namespaces', { skip }, () => {
  /** Each value is in one of the first three. */
  const cases = [
    { mtu: 1500, link: 'udp', hasOffload: false, version: 4 },
    { mtu: 9000, link: 'udp', hasOffload: true, version: 6 },
    { mtu: 1500, link: 'udp-plain', hasOffload: true, version: 6 },
    { mtu: 1500, link: 'udp', hasOffload: true, version: 4 },
    { mtu: 9000, link: 'udp', hasOffload: false, version: 6 },
    { mtu: 9000, link: 'udp-plain', hasOffload: true, version: 4 },
  ] as const
  for (const { mtu, link, hasOffload, version } of casesOf(cases, (_, i) => i < 3))
    it(`MTU ${mtu}, --link ${link}, IPv${version}${hasOffload ? '' : ', segmented by the kernel'}`, async t => {
      if (!canMakeNamespaces(t)) return
      const netns = twoNamespaces(t, mtu, { hasOffload })
      const addresses = NAMESPACE_ADDRESSES[version]
      const daemons = await startTwoDaemons(t, { addresses, link, netns })
      const activeMtu = mtu === 1500 ? 1024 : 4096
      const { stdout } = await run(t, 'ibv_devinfo', [], { env: daemons[0].env })
      assert.match(stdout, new RegExp(`active_mtu:\\s+${activeMtu} `))
      await runCase(t, daemons[0], pingpong(65536, activeMtu, true), 50, daemons[1])
      await runCase(t, daemons[1], pingpong(4096, 256), 50, daemons[0])
      await runVerbsCheck(t, daemons)
      await runMatrixCase(t, daemons, caseOf('ib_write_bw -s 65536 -n 200'))
      await assertNothingLost(daemons)
      const { segmentedMessages, unexpectedIdentifications } = await portCountersOf(daemons[0])
      if (link === 'udp') assert.ok(segmentedMessages > 10, `${segmentedMessages} messages were segmented`)
      // Only IPv4 headers have an identification; the sender's kernel may choose any.
      if (version === 6) assert.equal(unexpectedIdentifications, 0)
    })

  for (const version of casesOf([4, 6] as const, one => one === 6))
    it(`every byte arrives with torment at both ends, IPv${version}`, async t => {
      if (!canMakeNamespaces(t)) return
      const netns = twoNamespaces(t, 1500)
      const addresses = NAMESPACE_ADDRESSES[version]
      const daemons = await startTwoDaemons(t, { addresses, netns, torment: [3, 4] })
      await runVerbsCheck(t, daemons)
      for (const daemon of daemons) await daemon.settled(isEmpty)
    })

  // In perftest's notation: 239.91.0.7, ff02::7 (link scope) and ff0e::7 (global scope).
  for (const [version, group] of [
    [4, '0:0:0:0:0:0:0:0:0:0:255:255:239:91:0:7'],
    [6, '255:2:0:0:0:0:0:0:0:0:0:0:0:0:0:7'],
    [6, '255:14:0:0:0:0:0:0:0:0:0:0:0:0:0:7'],
  ] as const)
    it(`a multicast group over IPv${version}: ${group}`, async t => {
      if (!canMakeNamespaces(t)) return
      const netns = twoNamespaces(t, 1500)
      const addresses = NAMESPACE_ADDRESSES[version]
      const daemons = await startTwoDaemons(t, { addresses, netns })
      for (const program of ['ib_send_bw', 'ib_send_lat'])
        await runMatrixCase(t, daemons, caseOf(`${program} -c UD -n 100 -s 1000 -g -M ${group}`))
      await assertNothingLost(daemons)
      // 100 datagrams, then 100 in each direction. A sender in the group receives its own datagrams.
      const [a, b] = [await portCountersOf(daemons[0]), await portCountersOf(daemons[1])]
      assert.deepEqual([a.sentPackets, b.sentPackets], [100, 200])
      assert.ok(a.receivedPackets > 200 && b.receivedPackets > 100, `${a.receivedPackets} and ${b.receivedPackets}`)
    })

  for (const link of ['udp', 'udp-plain'])
    for (const version of casesOf([4, 6] as const, one => (one === 4) === (link === 'udp')))
      it(`packets on the wire are well-formed, and every ICRC is right (--link ${link}, IPv${version})`, async t => {
        for (const tool of ['tshark', 'dumpcap', 'editcap', 'python3'])
          if (findTool(tool) === undefined) return void skipTest(t, `${tool} is not installed here`)
        if (!canMakeNamespaces(t)) return
        const netns = twoNamespaces(t, 1500, { hasOffload: false })
        const addresses = NAMESPACE_ADDRESSES[version]
        const daemons = await startTwoDaemons(t, { addresses, link, netns })
        const pcap = join(temporaryFolder(t), 'wire.pcap')
        const capture = start(t, 'ip', [
          ...['netns', 'exec', netns[1], 'dumpcap', '-q', '-P', '-i', 'v0', '-f', 'udp port 4791', '-w', pcap],
        ])
        await capture.printed(/^File: /m)
        assertGoodPair(
          await runPair(t, daemons[0], ['-g', '1', '-s', '9000', '-n', '20', '-c'], { clientDaemon: daemons[1] }),
        )
        const { sentPackets, receivedPackets } = await portCountersOf(daemons[1])
        await untilCaptured(pcap, sentPackets + receivedPackets)
        capture.child.kill('SIGINT')
        await capture.ended
        const { stdout, stderr } = await run(t, 'tshark', ['-r', pcap, '-T', 'fields', '-e', 'frame.protocols'])
        const lines = stdout.trimEnd().split('\n')
        for (const line of lines) assert.match(line, /^eth:ethertype:ipv?6?:udp:infiniband/, stderr)
        assert.equal(lines.length, sentPackets + receivedPackets)
        const malformed = await run(t, 'tshark', ['-r', pcap, '-Y', '_ws.malformed'])
        assert.equal(malformed.stdout, '')
        const verified = await run(t, 'python3', [fixture('wire', 'verify.py'), pcap])
        assert.match(verified.stdout, new RegExp(`ICRC right in ${lines.length}\\n`), verified.stderr)
        // A virtual interface leaves UDP checksums to hardware that does not exist: the capture has wrong ones.
        const errors = verified.stdout.split('\n').filter(line => /ERROR/.test(line) && !/UDP checksum$/.test(line))
        assert.deepEqual(errors, [])
        // 20 messages of 9000 bytes in each direction.
        assert.ok(readFileSync(pcap).length > 20 * 2 * 9000)
      })
})
