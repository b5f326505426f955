/*
 * Clients start on a device in the order mad, rdma_cm, ipoib, and stop in reverse order (R31, R40).
 */

import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { Core, Device } from '../../src/core/model.ts'
import { clientNames as startedNames } from '../../src/services/clients.ts'
import { errnoOf } from '../core/fixture.ts'
import { ipv4 } from '../drivers/rxe/machine.ts'
import { Stack } from './ip-client/stack.ts'
import { establish, type Host, ip4, twoHosts, VirtualNetwork } from './rdma-cm/hosts.ts'

/**
 * Records the clients' notifications of added and removed devices. `fails` selects notifications of added devices that
 * throw. The returned function returns the log and clears it.
 */
const watchClients = ({ clients }: Core, fails: (client: string, device: Device) => boolean = () => false) => {
  const log: string[] = []
  for (const { client } of clients) {
    const add = client.add.bind(client)
    const remove = client.remove.bind(client)
    Object.assign(client, {
      add(device: Device) {
        log.push(`${client.name}+${device.name}`)
        if (fails(client.name, device)) throw new Error(`${client.name} fails`)
        return add(device)
      },
      remove(device: Device) {
        log.push(`${client.name}-${device.name}`)
        remove(device)
      },
    })
  }
  return () => log.splice(0).join(' ')
}

/** The clients that core notifies; rdma_cm opens the connection manager's devices. */
const clientNames = startedNames.filter(name => name !== 'ib_cm')

/** A host on which all clients have started. */
const startAll = (host: Host): Host => {
  for (const name of startedNames) host.clients.use(name)
  return host
}

const PORT = 7471

it('clients start in the order of the table, in any order of use', () => {
  assert.deepEqual(startedNames, ['mad', 'ib_cm', 'rdma_cm', 'ipoib'])
  const network = new VirtualNetwork()
  const { core, clients } = network.host()
  clients.use('ipoib')
  assert.deepEqual(
    core.clients.map(({ client }) => client.name),
    clientNames,
  )
})

it('clients keep their order for devices that are added and removed under load', () => {
  const { network, a, b } = twoHosts('drop=1%,seed=3')
  const takeLog = watchClients(startAll(a).core)
  startAll(b)
  const stackA = new Stack(a.devices.get('rxe1')!.device, '10.9.0.1')
  const stackB = new Stack(b.devices.get('rxe2')!.device, '10.9.0.2')
  const [udp, sink] = [stackA.udp(), stackB.udp(9)]
  const listener = b.listen(ip4(2, PORT))
  for (let round = 0; round < 50; round++) {
    const added = a.plug(9)
    assert.equal(takeLog(), 'mad+rxe9 rdma_cm+rxe9 ipoib+rxe9')
    const stack = new Stack(added, '10.9.0.9')
    stack.echo().send('10.9.0.2', 1, Uint8Array.of(1))
    a.connect(ip4(2, PORT), 0x100 + round)
    for (let i = 0; i < 8; i++) udp.send('10.9.0.2', 9, new Uint8Array(1000))
    if (round % 2 === 0) network.settle()
    a.unplug(9)
    assert.equal(takeLog(), 'ipoib-rxe9 rdma_cm-rxe9 mad-rxe9')
    network.settle()
    while (sink.receive() !== undefined);
  }
  // Of 400 datagrams and 50 requests about 1 % are lost.
  assert.ok(stackB.query().statistics.delivered > 300n)
  assert.ok(b.requests(listener).length > 40)
  assert.deepEqual([a.core.faults, b.core.faults], [0, 0], 'exceptions')
})

it('a client that fails on a device does not affect independent clients', () => {
  for (const name of clientNames) {
    const network = new VirtualNetwork()
    const host = startAll(network.host())
    const takeLog = watchClients(host.core, (client, device) => client === name && device.name === 'rxe9')
    host.plug(9)
    assert.equal(takeLog(), 'mad+rxe9 rdma_cm+rxe9 ipoib+rxe9')
    assert.equal(host.core.faults, 1)
    const device = host.devices.get('rxe9')!.device
    const open = (): Stack => new Stack(device, '10.9.0.9')
    if (name === 'ipoib') assert.equal(errnoOf(open), 'EOPNOTSUPP')
    else open().close()
    host.unplug(9)
    // rdma_cm ignores a device whose queue pair 1 the MAD layer does not own.
    const withoutDevice: readonly string[] = name === 'mad' ? ['mad', 'rdma_cm'] : [name]
    const notified = clientNames.filter(client => !withoutDevice.includes(client))
    assert.equal(
      takeLog(),
      [...notified]
        .reverse()
        .map(client => `${client}-rxe9`)
        .join(' '),
    )
    host.plug(8)
    assert.ok(host.clients.use('rdma_cm').devices.withAddress(ipv4(10, 0, 0, 8)))
  }
})

it('a client that fails to start does not affect independent clients, and is started again later', () => {
  const network = new VirtualNetwork()
  const host = network.host({}, false)
  const device = host.plug(1)
  const queuePair1 = device.driver.openManagement?.(device, () => {})
  const stack = new Stack(device, '10.9.0.1')
  assert.equal(
    errnoOf(() => host.clients.use('rdma_cm')),
    'EBUSY',
  )
  queuePair1?.close()
  assert.ok(host.clients.use('rdma_cm').devices.withAddress(ipv4(10, 0, 0, 1)))
  stack.close()
})

it('clients stop in reverse order, and are not notified about devices afterwards', () => {
  const { network, a, b } = twoHosts()
  startAll(b)
  const { active } = establish(network, a, b, b.listen(ip4(2, PORT)), [0x11, 0x22])
  assert.equal(active.state, 'CONNECT')
  const stack = new Stack(b.devices.get('rxe2')!.device, '10.9.0.2')
  stack.udp(1)
  const takeLog = watchClients(b.core)
  for (const stop of b.clients.stopSteps) stop()
  assert.equal(takeLog(), 'ipoib-rxe2 rdma_cm-rxe2 mad-rxe2')
  assert.deepEqual(b.core.clients, [])
  stack.close()
  b.unplug(2)
  assert.equal(takeLog(), '')
})
