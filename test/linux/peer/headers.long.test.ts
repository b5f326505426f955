/*
 * The headers of Linux's rxe and of our device rxe, packet for packet: TTL, TOS, flow label and UDP source port, of
 * connected queue pairs and by address handles, to a neighbour and over a router. And the order of the GID tables.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { addressText, parseAddress } from '../../../src/transport/wire/address.ts'
import { datagramSourcePort, sourcePortOf } from '../../../src/transport/wire/flow.ts'
import { until } from '../../limits.ts'
import {
  lacking,
  ownProgram,
  startDaemon,
  suiteScope,
  type TestDaemon,
  temporaryFolder,
} from '../../system/programs.ts'
import { GUEST, type Guest, HOST, startGuest, whyNoGuest } from './guest.ts'

/** Prints a line for each packet of RoCE v2 that crosses the bridge, also for those of this host. */
const SNIFFER = `import json, socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(('kpeer0', 0))
print('ready', flush=True)
while True:
    f = s.recv(9000)
    kind = struct.unpack('!H', f[12:14])[0]
    if kind == 0x800 and f[23] == 17:
        at, ttl, tos, label, src, dst = 14 + 4 * (f[14] & 15), f[22], f[15], 0, f[26:30], f[30:34]
        src, dst = (socket.inet_ntop(socket.AF_INET, one) for one in (src, dst))
    elif kind == 0x86dd and f[20] == 17:
        word = struct.unpack('!I', f[14:18])[0]
        at, ttl, tos, label = 54, f[21], word >> 20 & 255, word & 0xfffff
        src, dst = (socket.inet_ntop(socket.AF_INET6, one) for one in (f[22:38], f[38:54]))
    else:
        continue
    sport, dport = struct.unpack('!HH', f[at:at + 4])
    if dport == 4791:
        qpn = struct.unpack('!I', f[at + 12:at + 16])[0] & 0xffffff
        print(json.dumps({'src': src, 'dst': dst, 'ttl': ttl, 'tos': tos, 'label': label, 'sport': sport, 'qpn': qpn}), flush=True)
`

interface Seen {
  readonly src: string
  readonly ttl: number
  readonly tos: number
  readonly label: number
  readonly sport: number
  readonly qpn: number
}

/** An address behind a router of each end: that of the other end. */
const ROUTED = { 4: '192.0.2.1', 6: 'fd78::1' } as const

interface Case {
  readonly kind: 'rc' | 'ud'
  readonly version: 4 | 6
  readonly isRouted?: boolean
  readonly hopLimit: number
  readonly trafficClass?: number
  readonly flowLabel?: number
}

const cases: readonly Case[] = [
  ...(['rc', 'ud'] as const).flatMap((kind): Case[] => [
    ...[0, 1, 5].flatMap(hopLimit => [false, true].map((isRouted): Case => ({ kind, version: 4, isRouted, hopLimit }))),
    { kind, version: 4, hopLimit: 255, trafficClass: 106 },
    { kind, version: 4, hopLimit: 64, flowLabel: 0x12345 },
    { kind, version: 6, hopLimit: 1, isRouted: true, trafficClass: 104, flowLabel: 0x12345 },
  ]),
]

describe('headers of Linux and of userdma', {
  skip: lacking('python3', ownProgram('one_send')) || whyNoGuest(),
}, () => {
  const scope = suiteScope()
  let guest: Guest
  let there = ''
  const daemons = new Map<4 | 6, TestDaemon>()
  let log = ''
  before(async () => {
    guest = await startGuest(scope, 'Linux 6.1')
    there = await guest.copy(scope, ownProgram('one_send'))
    for (const version of [4, 6] as const)
      daemons.set(
        version,
        await startDaemon(scope, { devices: [`rxe0@${HOST[version]}`], link: 'udp', netns: guest.netns }),
      )
    for (const version of [4, 6] as const) {
      const network = `${ROUTED[version]}/${version === 4 ? 32 : 128}`
      const words = ['route', 'add', network, 'via']
      const [inGuest, here] = [
        await guest.exec(scope, 'ip', [...words, HOST[version]]),
        await guest.startHere(scope, 'ip', [...words, GUEST[version]], process.env).ended,
      ]
      assert.deepEqual([inGuest.status, here.status], [0, 0], inGuest.stderr + here.stderr)
    }
    const script = join(temporaryFolder(scope), 'sniffer.py')
    log = join(temporaryFolder(scope), 'packets')
    writeFileSync(script, SNIFFER)
    const sniffer = guest.startHere(scope, 'sh', ['-c', `exec python3 ${script} >${log}`], process.env)
    await until(() => existsSync(log) && readFileSync(log, 'utf8').includes('ready'), sniffer.output)
  })

  /** The first packet of an end to the queue pair. */
  const packetOf = async (source: string, qpn: number): Promise<Seen> => {
    const find = (): Seen | undefined =>
      readFileSync(log, 'utf8')
        .split('\n')
        .filter(line => line.endsWith('}'))
        .map(line => JSON.parse(line) as Seen)
        .find(seen => seen.qpn === qpn && addressText(parseAddress(seen.src)!) === addressText(parseAddress(source)!))
    await until(() => find() !== undefined)
    return find()!
  }

  for (const [i, one] of cases.entries()) {
    const { kind, version, isRouted = false, hopLimit, trafficClass = 0, flowLabel = 0 } = one
    it(JSON.stringify(one), async t => {
      const target = 0x4000 + i
      const wordsTo = (address: string, gidIndex: number): string[] => {
        const gid = version === 4 ? `::ffff:${address}` : address
        return [kind, ...[gidIndex, gid, hopLimit, trafficClass, flowLabel, target].map(String)]
      }
      const [inGuest, here] = [
        await guest.exec(t, there, wordsTo(isRouted ? ROUTED[version] : HOST[version], version === 4 ? 1 : 2)),
        await guest.startHere(
          t,
          ownProgram('one_send'),
          wordsTo(isRouted ? ROUTED[version] : GUEST[version], 1),
          daemons.get(version)!.env,
        ).ended,
      ]
      const fieldsOf = async (end: { readonly stdout: string }, source: string) => {
        const own = Number(end.stdout)
        assert.ok(own > 1, end.stdout)
        const { ttl, tos, label, sport } = await packetOf(source, target)
        const port = kind === 'rc' ? sourcePortOf(flowLabel, own, target) : datagramSourcePort(own)
        return { ttl, tos, label, port: sport === port ? 'as computed' : sport }
      }
      const linux = await fieldsOf(inGuest, GUEST[version])
      assert.deepEqual(await fieldsOf(here, HOST[version]), linux)
      t.diagnostic(JSON.stringify(linux))
    })
  }

  it('GID tables have the same order', async t => {
    const list = 'for i in 0 1 2 3; do cat /sys/class/infiniband/rxe0/ports/1/gids/$i 2>/dev/null; done'
    const gidsOf = (text: string): string[] =>
      text
        .split('\n')
        .filter(line => /[1-9a-f]/.test(line))
        .map(line => (line.startsWith('fe80') ? 'link-local' : line.startsWith('0000') ? 'IPv4' : 'IPv6'))
    const inGuest = gidsOf((await guest.exec(t, 'sh', ['-c', list])).stdout)
    assert.deepEqual(inGuest, ['link-local', 'IPv4', 'IPv6'])
    const shown = await guest.startHere(t, 'sh', ['-c', list], daemons.get(4)!.env).ended
    assert.deepEqual(gidsOf(shown.stdout), inGuest)
  })
})
