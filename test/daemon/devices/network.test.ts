/*
 * Captures of a daemon's network, and fault rules of renamed devices.
 */
import assert from 'node:assert/strict'
import { closeSync, fstatSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { identityOf } from '../../../src/assembly/host-identity.ts'
import { createLink } from '../../../src/assembly/link.ts'
import { createNetwork } from '../../../src/daemon/devices/network.ts'
import { emptyTappedRun, type TappedRun } from '../../../src/transport/phy/port.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import { parseFrame } from '../../../src/transport/wire/frame.ts'
import { readCapture } from '../../captures.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import { withMaxFileSize } from '../../soft-limits.ts'
import { scratchFolder } from '../../tools.ts'
import { flowBetween, sendRun } from '../../transport/phy/helpers.ts'
import { daemonOf } from '../client.ts'

const folder = scratchFolder()
/** Two addresses of devices of the daemon, and an address of another machine. */
const [OWN, SECOND, FOREIGN] = [ipv4(127, 0, 0, 1), ipv4(127, 0, 0, 2), ipv4(10, 0, 0, 1)]

test('a capture has the packets that devices send, and the packets of other machines', () => {
  const devices = [{ name: 'rxe0', address: '127.0.0.1' }]
  const network = createNetwork({ devices, fault: '' }, createLink('memory', 'direct', true))
  const port = network.attach(devices[0]!, identityOf(devices[0]!))
  const path = join(folder, 'out.pcapng')
  const fd = openSync(path, 'w')
  const isOwn = (address: Uint8Array) => [OWN, SECOND].some(own => String(own) === String(address))
  const stop = network.capture(fd, isOwn, () => assert.fail())
  const arena = plainArena(64)
  const tap = (direction: TappedRun['direction'], source: Uint8Array, destination: Uint8Array): void => {
    const run = emptyTappedRun(arena, direction)
    port.tap?.({ ...run, count: 1, packetBytes: 16, lastBytes: 16, flow: { ...run.flow, source, destination } })
  }
  tap('sent', OWN, SECOND)
  tap('received', SECOND, OWN)
  tap('received', FOREIGN, OWN)
  stop()
  tap('sent', OWN, FOREIGN)
  closeSync(fd)
  const sources = readCapture(readFileSync(path)).map(({ bytes }) => {
    const frame = parseFrame(bytes)
    return frame.kind === 'opaque' ? frame.reason : frame.source.join('.')
  })
  assert.deepEqual(sources, ['127.0.0.1', '10.0.0.1'])
})

test('a renamed device keeps its fault rules with their counts', () => {
  const devices = [{ name: 'rxe0', address: '127.0.0.1' }]
  const network = createNetwork({ devices, fault: 'device=rxe0,dir=sent,drop=1' }, createLink('memory', 'direct', true))
  const port = network.attach(devices[0]!, identityOf(devices[0]!))
  port.addAddress(OWN)
  const flow = port.openFlow(flowBetween(OWN, SECOND))
  const send = () => {
    sendRun(port, flow, 0, 1)
    return network.faultCounts().map(({ rule, dropped }) => [rule, dropped])
  }
  assert.deepEqual(send(), [['device=rxe0,dir=sent,drop=1', 1]])
  network.rename('rxe0', 'mlx5_0')
  assert.deepEqual(send(), [['device=mlx5_0,dir=sent,drop=1', 2]])
  // New rules name the device by its new name.
  network.setFaults('device=mlx5_0,dir=sent,drop=1')
  assert.deepEqual(send(), [['device=mlx5_0,dir=sent,drop=1', 1]])
})

test('a device that gets the name of a removed one gets the rules for that name', () => {
  const devices = [
    { name: 'rxe0', address: '127.0.0.1' },
    { name: 'rxe1', address: '127.0.0.2' },
  ]
  const network = createNetwork({ devices, fault: 'device=rxe1,dir=sent,drop=1' }, createLink('memory', 'direct', true))
  const port = network.attach(devices[0]!, identityOf(devices[0]!))
  network.attach(devices[1]!, identityOf(devices[1]!))
  port.addAddress(OWN)
  const flow = port.openFlow(flowBetween(OWN, SECOND))
  network.detach('rxe1')
  network.rename('rxe0', 'rxe1')
  sendRun(port, flow, 0, 1)
  assert.deepEqual(
    network.faultCounts().map(({ dropped }) => dropped),
    [1],
  )
})

test('a fault rule for a device without a port is refused', () => {
  const devices = [
    { name: 'rxe0', address: '127.0.0.1' },
    { name: 'ctx0', address: '' },
  ]
  const start = (fault: string) => createNetwork({ devices, fault }, createLink('memory', 'direct', true))
  assert.throws(() => start('device=ctx0,drop=1'), /there is no soft device "ctx0"; there are rxe0$/)
  // No device is attached yet.
  assert.throws(() => start('').setFaults('device=rxe0,drop=1'), /there is no soft device "rxe0"; there are none$/)
})

/** Milliseconds between two writes of packets that wait. */
const FLUSH = 50

test('a capture ends at a write that fails', t => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const devices = [{ name: 'rxe0', address: '127.0.0.1' }]
  const network = createNetwork({ devices, fault: '' }, createLink('memory', 'direct', true))
  const port = network.attach(devices[0]!, identityOf(devices[0]!))
  const fd = openSync(join(folder, 'closed.pcapng'), 'w')
  const errors: unknown[] = []
  network.capture(
    fd,
    () => true,
    error => errors.push(error),
  )
  closeSync(fd)
  assert.ok(port.tap)
  port.tap({ ...emptyTappedRun(plainArena(64), 'sent'), count: 1, packetBytes: 16, lastBytes: 16 })
  t.mock.timers.tick(FLUSH)
  assert.deepEqual(
    errors.map(error => (error as NodeJS.ErrnoException).code),
    ['EBADF'],
  )
  assert.equal(port.tap, null)
})

test('a capture on a full disk ends with its last whole packet', t => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const devices = [{ name: 'rxe0', address: '127.0.0.1' }]
  const network = createNetwork({ devices, fault: '' }, createLink('memory', 'direct', true))
  const port = network.attach(devices[0]!, identityOf(devices[0]!))
  const path = join(folder, 'full.pcapng')
  const fd = openSync(path, 'w')
  const errors: unknown[] = []
  network.capture(
    fd,
    () => true,
    error => errors.push(error),
  )
  const run = { ...emptyTappedRun(plainArena(64), 'sent'), count: 1, packetBytes: 16, lastBytes: 16 }
  const write = (): void => {
    port.tap?.(run)
    t.mock.timers.tick(FLUSH)
  }
  write()
  const { size } = fstatSync(fd)
  withMaxFileSize(size + 10, write)
  assert.deepEqual(
    errors.map(error => (error as NodeJS.ErrnoException).code),
    ['EFBIG'],
  )
  assert.equal(fstatSync(fd).size, size)
  closeSync(fd)
  assert.equal(readCapture(readFileSync(path)).length, 1)
})

test('a daemon that does not start, for a fault rule with an unknown device, leaves no descriptor open', async t => {
  const descriptors = () => readdirSync('/proc/self/fd').length
  // The first netlink socket of a process may load libraries.
  await daemonOf(t, folder, ['127.0.0.1'], { link: 'udp' })
  const before = descriptors()
  const starting = daemonOf(t, folder, ['127.0.0.2'], { link: 'udp', fault: 'device=rxe7,drop=1%' })
  await assert.rejects(starting, /there is no soft device "rxe7"/)
  assert.equal(descriptors(), before)
})
