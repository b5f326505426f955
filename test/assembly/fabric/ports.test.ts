/*
 * Ports of one process at the switches of another one, both in this process: what passes, and what is no message.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, type TestContext, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import fc from 'fast-check'
import {
  controlMessage,
  FABRIC_VERSION,
  HEADER_BYTES,
  MAX_FABRIC_MESSAGE,
  putHeader,
  readFlow,
  readPortMessage,
  readSizes,
  readSwitchMessage,
} from '../../../src/assembly/fabric/messages.ts'
import { RemoteSubnet } from '../../../src/assembly/fabric/remote-subnet.ts'
import { ServedPorts } from '../../../src/assembly/fabric/served-ports.ts'
import { createLink } from '../../../src/assembly/link.ts'
import { ECONNRESET } from '../../../src/host/errno.ts'
import { nowMicroseconds } from '../../../src/host/event-loop/clock.ts'
import { close, connect, recvBytes, sendBytes } from '../../../src/host/net/sockets.ts'
import { EmbeddedSubnet } from '../../../src/services/subnet-client/embedded-subnet.ts'
import { PortState } from '../../../src/spec/enums.ts'
import { emptyRun, type Port, type PortFabric } from '../../../src/transport/phy/port.ts'
import { lidAddress } from '../../../src/transport/wire/address.ts'
import { TestPort } from '../../services/subnet-client/ports.ts'
import { temporaryFolder } from '../../system/programs.ts'

const { ACTIVE, DOWN, INIT } = PortState.values

/** A port with one of a memory link. */
class HostPort extends TestPort implements PortFabric {
  readonly #link: Port

  constructor(number: number, link: Port) {
    super(number)
    this.#link = link
  }

  get lid(): number {
    return this.settings.state === ACTIVE ? this.settings.lid : 0
  }

  reached(dlid: number): readonly object[] {
    return this.subnet?.reached(dlid) ?? []
  }

  lost(): void {}

  override rerouted(): void {
    this.#link.setFabric?.(this)
  }
}

/** Switches that serve ports, and a subnet of another process's ports, with one port of each memory link. */
const createBoth = (t: TestContext) => {
  const path = join(temporaryFolder(t), 'ports')
  const log: string[] = []
  const subnet = new EmbeddedSubnet({ now: nowMicroseconds, random: () => 7, fabric: 'ring,switches=3' })
  const parts = (link = createLink('memory', 'packets', true)) => ({
    link,
    ...{ attach: () => link.attachTrunk(), kick() {}, guard: (_name: string, body: () => void) => body },
    log: (line: string) => void log.push(line),
  })
  const served = new ServedPorts(path, { ...parts(), cable: port => subnet.attach(port), manager: 'embedded' })
  let isClosed = false
  const hosts: { remote: RemoteSubnet; port: HostPort; link: Port }[] = []
  const addHost = () => {
    const own = parts()
    const remote = new RemoteSubnet(path, own)
    const link = own.link.attachTrunk()
    const port = new HostPort(hosts.length + 1, link)
    hosts.push({ remote, port, link })
    remote.attach(port)
    port.rerouted()
    return hosts.at(-1)!
  }
  t.after(() => {
    for (const { remote } of hosts) remote.close()
    if (!isClosed) served.close()
    subnet.close()
  })
  const turn = async (): Promise<void> => {
    const now = nowMicroseconds()
    subnet.onTimeout(now)
    served.poll(now)
    for (const { remote } of hosts) remote.onTimeout(now)
    await setImmediate()
  }
  const until = async (isDone: () => boolean): Promise<void> => {
    while (!isDone()) await turn()
  }
  const end = (): void => {
    isClosed = true
    served.close()
  }
  return { path, log, end, addHost, until }
}
const isActive = ({ port }: { port: TestPort }): boolean => port.settings.state === ACTIVE

describe('ports at the switches of another process', () => {
  it('get LIDs, and packets by them; without the other end they are lost', async t => {
    const { addHost, until } = createBoth(t)
    const [a, b] = [addHost(), addHost()]
    await until(() => isActive(a) && isActive(b))
    const grh = { source: new Uint8Array(16).fill(1), destination: new Uint8Array(16).fill(2) }
    const path = { sourcePort: 0, trafficClass: 3, hopLimit: 64, flowLabel: 5, sl: 2, grh }
    const flow = a.link.openFlow({
      ...{ source: lidAddress(a.port.settings.lid), destination: lidAddress(b.port.settings.lid) },
      ...path,
    })
    const send = (): void => {
      const at = a.link.reserve(300)
      for (let i = 0; i < 300; i++) a.link.arena.bytes[at + i] = i
      a.link.commit(at, 120, 3, 60, flow)
      a.link.flush()
    }
    const run = emptyRun()
    await until(() => {
      send()
      return b.link.receive(run)
    })
    const { offset, packetBytes, count, lastBytes, flowAddress } = run
    assert.deepEqual([packetBytes, count, lastBytes], [120, 3, 60])
    assert.deepEqual(
      b.link.arena.bytes.slice(offset, offset + 300),
      Uint8Array.from({ length: 300 }, (_, i) => i),
    )
    assert.deepEqual([flowAddress.sl, flowAddress.grh, flowAddress.flowLabel], [2, grh, 5])
    b.link.release()
    b.remote.close()
    await until(() => {
      send()
      return a.link.counters.dropped > 0
    })
  })

  it('have faults of the switches, until they or their connections end', async t => {
    const { log, addHost, until } = createBoth(t)
    const a = addHost()
    await until(() => isActive(a))
    const { lid } = a.port.settings
    a.port.subnet!.disturb({ kind: 'lid' })
    await until(() => a.port.settings.lid !== lid)
    a.port.subnet!.disturb({ kind: 'cable', between: ['switch1', 'nowhere'] })
    await until(() => log.some(line => /there is no cable switch1:nowhere/.test(line)))
    for (const [host, endsWith] of [
      [addHost(), 'the rule'],
      [addHost(), 'the connection'],
    ] as const) {
      await until(() => isActive(host))
      const end = host.port.subnet!.disturb({ kind: 'manager' })!
      host.port.subnet!.disturb({ kind: 'cable', between: ['nobody', 'nowhere'] })
      const told = log.length
      await until(() => log.length > told)
      const later = addHost()
      await until(() => later.port.settings.state === INIT)
      if (endsWith === 'the rule') end()
      else host.remote.close()
      await until(() => isActive(later))
    }
  })

  it('are told why the switches refuse them', async t => {
    const { path, addHost, until } = createBoth(t)
    const good = addHost()
    await until(() => isActive(good))
    const fd = connect(path)
    t.after(() => close(fd))
    const { identity, settings } = new TestPort(9)
    const hello = { description: 'x', identity, settings, capabilityMask: 0, addresses: [] }
    sendBytes(fd, controlMessage({ kind: 'hello', version: FABRIC_VERSION + 1, ...hello }))
    const answer = new Uint8Array(MAX_FABRIC_MESSAGE)
    let length = 0
    await until(() => {
      length = recvBytes(fd, answer)
      return length > 0
    })
    const message = readSwitchMessage(answer.subarray(0, length))
    assert.match(message?.kind === 'refused' ? message.reason : '', /speaks version 3 .* both need the same version/)
  })

  it('go on while others send what is no message', async t => {
    const { path, addHost, until } = createBoth(t)
    const good = addHost()
    await until(() => isActive(good))
    const { identity, settings } = new TestPort(9)
    const hello = controlMessage({
      ...{ kind: 'hello', version: FABRIC_VERSION, description: 'x', capabilityMask: 0, addresses: [] },
      ...{ identity, settings },
    })
    const garbage = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 2000, size: 'max' }),
      fc.uint8Array({ minLength: 1, maxLength: 200, size: 'max' }).map(bytes => Uint8Array.of(0, ...bytes)),
      fc.json().map(text => Uint8Array.of(1, ...Buffer.from(text))),
      fc.tuple(fc.nat(hello.length - 1), fc.nat(255)).map(([at, byte]) => hello.with(at, byte)),
    )
    for (const messages of fc.sample(fc.tuple(fc.boolean(), fc.array(garbage, { minLength: 1 })), 60)) {
      const [isHello, list] = messages
      const fd = connect(path)
      if (isHello) sendBytes(fd, hello)
      for (const message of list) sendBytes(fd, message)
      sendBytes(fd, Uint8Array.of(9))
      const answer = new Uint8Array(MAX_FABRIC_MESSAGE)
      await until(() => {
        const length = recvBytes(fd, answer)
        return length === 0 || length === -ECONNRESET
      })
      close(fd)
    }
    const other = addHost()
    await until(() => isActive(other))
    assert.ok(isActive(good))
  })

  it('are not cabled to switches of another user', {
    timeout: 60_000,
    skip: process.geteuid?.() !== 0 && 'only root can start programs of another user',
  }, async t => {
    const folder = mkdtempSync('/tmp/userdma-impostor-')
    t.after(() => rmSync(folder, { recursive: true }))
    chmodSync(folder, 0o777)
    const path = join(folder, 'ports')
    const script =
      'import socket,sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind(sys.argv[1]); s.listen(); print("listens", flush=True); s.accept(); s.accept()'
    const impostor = spawn('python3', ['-c', script, path], {
      uid: 65534,
      gid: 65534,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    t.after(() => impostor.kill())
    await once(impostor.stdout, 'data')
    const own = { attach: () => createLink('memory', 'packets', true).attachTrunk(), kick() {}, log() {} }
    const remote = new RemoteSubnet(path, { ...own, guard: (_name, body) => body })
    assert.throws(
      () => remote.attach(new TestPort(1)),
      /mlx5_1: user 65534 serves .*, and switches are of the daemon's own/,
    )
  })

  it('are DOWN when the switches end the connection', async t => {
    const { addHost, until, log } = createBoth(t)
    const { port } = addHost()
    await until(() => port.settings.state === ACTIVE)
    // A datagram has 256 bytes: the switches end the connection.
    port.subnet?.send(new Uint8Array(255), { slid: 1, dlid: 1, sl: 0, sourceQpn: 1, destQpn: 1, qkey: 0, pkey: 0 })
    await until(() => port.settings.state === DOWN)
    assert.match(log.join('\n'), /has no switch any more: it has ended/)
  })
})

test('at the end the socket of ports is removed, unless another process has its path', t => {
  const [first, second] = [createBoth(t), createBoth(t)]
  first.end()
  assert.equal(existsSync(first.path), false)
  rmSync(second.path)
  writeFileSync(second.path, 'another')
  second.end()
  assert.equal(existsSync(second.path), true)
})

describe('messages', () => {
  it('of any bytes are read as a message, or as none', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 300, size: 'max' }), bytes => {
        readPortMessage(bytes)
        readSwitchMessage(bytes)
        const padded = new Uint8Array(Math.max(bytes.length, HEADER_BYTES))
        padded.set(bytes)
        const view = new DataView(padded.buffer)
        const sizes = readSizes(view, bytes.length)
        if (sizes !== undefined) {
          const [packetBytes, count, lastBytes] = sizes
          assert.equal(HEADER_BYTES + (count - 1) * packetBytes + lastBytes, bytes.length)
        }
        const flow = readFlow(padded, view)
        if (flow === undefined) return
        const again = new Uint8Array(HEADER_BYTES)
        assert.ok(putHeader(new DataView(again.buffer), flow, 0, 0, 0))
        assert.deepEqual(readFlow(again, new DataView(again.buffer)), flow)
      }),
    )
  })
})
