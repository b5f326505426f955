/*
 * The end of programs and devices with very many objects, and a chain that creates very many.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { closeContext, openContext } from '../../src/core/devices/registry.ts'
import { systemDevice } from '../../src/core/devices/system.ts'
import { callerWithoutMemory } from '../../src/core/dispatch/caller.ts'
import { invoke } from '../../src/core/dispatch/invoke.ts'
import type { Core, Device } from '../../src/core/model.ts'
import { startDaemon } from '../../src/daemon/daemon.ts'
import type { RoceSite } from '../../src/drivers/roce-site.ts'
import { rxeDriver } from '../../src/drivers/rxe/device.ts'
import { nextTurn } from '../../src/host/event-loop/next-turn.ts'
import { Interface } from '../../src/spec/classes/device/interface.ts'
import { Pd } from '../../src/spec/classes/pd.ts'
import { CmPortSpace } from '../../src/spec/enums.ts'
import { Errno } from '../../src/spec/errno.ts'
import { NlmsgFlags } from '../../src/spec/linux/nldev.ts'
import { CM_NODE } from '../../src/spec/session.ts'
import type { FaultPort } from '../../src/transport/phy/faults/layer.ts'
import { encodeChain } from '../../src/uapi/object/chain.ts'
import { takeDescriptors } from '../soft-limits.ts'
import { scratchFolder } from '../tools.ts'
import { type Client, Command, CommandBytes, dial } from './client.ts'
import { openTestSocket } from './netlink/test-socket.ts'
import { CM_HEADER_BYTES, writeCommand } from './ucma.ts'

const folder = scratchFolder()
const MANY = 500
/** Maximum number of destroyed objects per turn: STEPS_PER_TURN (core/devices/registry.ts), with a margin. */
const MAX_IN_TURN = 64

let daemons = 0
const setUp = async (t: TestContext) => {
  let core: Core | undefined
  /** In the order of the devices. */
  const ports: FaultPort[] = []
  const polls = { count: 0 }
  const daemon = await startDaemon({
    socket: join(folder, `sock${daemons++}`),
    config: {
      devices: [0, 1].map(i => ({ name: `rxe${i}`, address: `127.0.0.${i + 1}` })),
      fault: '',
      link: 'memory',
    },
    endWithLastClient: false,
    drivers: [
      {
        ...rxeDriver,
        createDevice(daemonCore, name, { network, ...site }: RoceSite) {
          core = daemonCore
          const attach = () => {
            const port = network.attach()
            ports.push(port as FaultPort)
            return port
          }
          const rxe = rxeDriver.createDevice(daemonCore, name, { ...site, network: { ...network, attach } })
          const { poll } = rxe
          return Object.assign(rxe, {
            poll(...args: Parameters<typeof poll>) {
              polls.count++
              return poll.apply(rxe, args)
            },
          })
        },
      },
    ],
  })
  t.after(() => daemon.close())
  assert.ok(core)
  return { daemon, core, ports, polls }
}

const connect = async (t: TestContext, daemon: { readonly socket: string }): Promise<Client> => {
  const client = dial(t, daemon)
  await client.hello()
  return client
}

/** Creates MANY PDs in a new context; returns the context's number. */
const createPds = async (client: Client, node: number): Promise<number> => {
  const context = await client.context(node)
  for (let i = 0; i < MANY; i++)
    assert.equal((await client.command(context, Command.ALLOC_PD, [], 1)).ret, CommandBytes.ALLOC_PD)
  return context
}

/** The largest decrease of `count` in one turn, until `count` is 0. */
const maxInTurn = async (count: () => number): Promise<number> => {
  let max = 0
  for (let before = count(); before > 0; ) {
    await nextTurn()
    max = Math.max(max, before - count())
    before = count()
  }
  return max
}

const deviceOf = (core: Core, name: string): Device => {
  const device = core.devices.get(name)
  assert.ok(device)
  return device
}

test('each turn destroys only a few objects of a program that has exited', async t => {
  const { daemon, core } = await setUp(t)
  const device = deviceOf(core, 'rxe0')
  const client = await connect(t, daemon)
  await createPds(client, 0)
  client.close()
  const max = await maxInTurn(() => device.counts.pd)
  assert.ok(max <= MAX_IN_TURN, `${max} in one turn`)
})

/** Starts a chain that creates `count` PDs, which is too long for one turn. */
const startLongChain = (device: Device, count: number) => {
  const call = { class: Pd, methodName: 'create', method: Pd.methods.create, object: 0, args: {} }
  const args = { entries: encodeChain(Array.from({ length: count }, () => ({ call }))), onError: 0 }
  const context = openContext(device, { isOpened: true })
  const result = invoke(context, Interface, 'chain', 0, args, callerWithoutMemory('the test'))
  assert.ok(result instanceof Promise)
  return { context, result }
}

test('a long chain creates only a few objects in each turn after its first', async t => {
  const { core } = await setUp(t)
  const device = deviceOf(core, 'rxe0')
  const count = 30_000
  const { context, result } = startLongChain(device, count)
  const max = await maxInTurn(() => count - device.counts.pd)
  assert.ok(max <= MAX_IN_TURN, `${max} in one turn`)
  assert.equal((await result).out.done, count)
  closeContext(context)
})

test('a device is added in the middle of a long chain of another device', async t => {
  const { daemon, core } = await setUp(t)
  const device = deviceOf(core, 'rxe0')
  const client = await connect(t, daemon)
  const count = 30_000
  const { context, result } = startLongChain(device, count)
  await client.tool({ kind: 'device', add: { name: 'rxe2', address: '127.0.0.3' } })
  assert.ok(device.counts.pd < count, 'the chain was finished before the device was added')
  assert.equal((await result).out.done, count)
  closeContext(context)
})

test('the queues of devices are polled in each turn of a long chain, because the chain may have changed them', async t => {
  const { core, polls } = await setUp(t)
  const device = deviceOf(core, 'rxe0')
  const { context, result } = startLongChain(device, 30_000)
  // More turns than the loop needs to park: afterwards it polls only because of the chain.
  for (let i = 0; i < 200; i++) await nextTurn()
  for (let i = 0; i < 20; i++) {
    const { count } = polls
    await nextTurn()
    assert.ok(polls.count > count)
  }
  await result
  closeContext(context)
})

test('during a destruction, other clients are served, and the next open of the user waits', async t => {
  const { daemon, core } = await setUp(t)
  const device = deviceOf(core, 'rxe0')
  const [client, neighbour, opener] = [await connect(t, daemon), await connect(t, daemon), await connect(t, daemon)]
  const neighbourContext = await neighbour.context(1)
  await createPds(client, 0)
  client.close()
  assert.equal((await neighbour.command(neighbourContext, Command.ALLOC_PD, [], 1)).ret, CommandBytes.ALLOC_PD)
  assert.ok(device.counts.pd > 0, 'the call was answered before the objects were destroyed')
  await opener.context(0)
  assert.equal(device.counts.pd, 0)
})

test('each turn destroys only a few objects of a removed device; the name can then be used again', async t => {
  const { daemon, core } = await setUp(t)
  const device = deviceOf(core, 'rxe0')
  const client = await connect(t, daemon)
  const context = await createPds(client, 0)
  const removed = client.tool({ kind: 'device', remove: 'rxe0' })
  const max = await maxInTurn(() => device.counts.pd)
  assert.ok(max <= MAX_IN_TURN, `${max} in one turn`)
  assert.ok('devices' in (await removed))
  assert.equal((await client.command(context, Command.ALLOC_PD, [], 1)).ret, -Errno.EIO)
  await createPds(client, 1)
  await client.tool({ kind: 'device', remove: 'rxe1' })
  const added = await client.tool({ kind: 'device', add: { name: 'rxe1', address: '127.0.0.2' } })
  assert.ok('devices' in added, JSON.stringify(added))
})

test('a device may get the name of a removed device whose objects are being destroyed, and keeps its port', async t => {
  const { daemon, core, ports } = await setUp(t)
  const { counts } = deviceOf(core, 'rxe1')
  const client = await connect(t, daemon)
  const socket = await openTestSocket(client)
  await createPds(client, 1)
  const removed = client.tool({ kind: 'device', remove: 'rxe1' })
  const renamed = await socket.request(
    'SET',
    [
      ['DEV_INDEX', 0],
      ['DEV_NAME', 'rxe1'],
    ],
    NlmsgFlags.ACK,
  )
  assert.equal(renamed.errno, 0)
  await removed
  await maxInTurn(() => counts.pd)
  // The new rule for rxe1 acts on the port of the renamed rxe0.
  await client.tool({ kind: 'fault', set: 'device=rxe1,drop=1' })
  assert.equal(ports[0]!.ruleCounts().length, 1)
})

test('each turn destroys only a few identifiers of a closed rdma_cm channel', async t => {
  const { daemon, core } = await setUp(t)
  const client = await connect(t, daemon)
  const other = await connect(t, daemon)
  const { descriptors } = await client.open(CM_NODE)
  client.keep(descriptors)
  const fd = descriptors[0]!
  // struct rdma_ucm_create_id.
  const [CREATE_ID, BODY_BYTES, RESPONSE_AT, PORT_SPACE_AT] = [0, 24, 8, 16]
  const words: [number, number][] = [[PORT_SPACE_AT, CmPortSpace.values.TCP]]
  for (let i = 0; i < MANY; i++) {
    const { result } = await writeCommand({ client, fd }, CREATE_ID, BODY_BYTES, RESPONSE_AT, words)
    assert.equal(result, CM_HEADER_BYTES + BODY_BYTES)
  }
  const { counts } = systemDevice(core)
  assert.equal(counts.cm_id, MANY)
  client.close()
  const max = await maxInTurn(() => counts.cm_id)
  assert.ok(max <= MAX_IN_TURN, `${max} in one turn`)
  assert.equal((await other.open(CM_NODE)).error, 0)
})

test('a context of rdma_cm channels ends if its first channel gets no descriptor', async t => {
  const { daemon, core } = await setUp(t)
  const client = await connect(t, daemon)
  const { contexts } = systemDevice(core)
  const taken = takeDescriptors()
  try {
    assert.equal((await client.open(CM_NODE)).error, Errno.EMFILE)
  } finally {
    taken.release()
  }
  assert.equal(contexts.size, 0)
  const { error, descriptors } = await client.open(CM_NODE)
  assert.equal(error, 0)
  client.keep(descriptors)
})

test('each turn closes only a few event descriptors of a program that has exited', async t => {
  const { daemon, core } = await setUp(t)
  const client = await connect(t, daemon)
  const context = await client.context(0)
  for (let i = 0; i < MANY; i++) client.keep((await client.command(context, Command.CREATE_COMP_CHANNEL, [], 1)).fds)
  assert.ok(core.descriptors.size >= MANY)
  client.close()
  const max = await maxInTurn(() => core.descriptors.size)
  assert.ok(max <= MAX_IN_TURN, `${max} in one turn`)
})
