/*
 * The MAD layer between two hosts (R40).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { MadAddress } from '../../../src/core/driver-contract.ts'
import { closeContext, invokeNow, openContext } from '../../../src/core/index.ts'
import type { Account, Caller, Device } from '../../../src/core/model.ts'
import { findDescriptor } from '../../../src/core/objects/descriptors.ts'
import { addMemory, releaseMemory } from '../../../src/core/objects/limits.ts'
import type { MadAgent, MadLayer } from '../../../src/services/mad-client/layer.ts'
import { MadAgentClass } from '../../../src/spec/classes/mad/mad_agent.ts'
import { MAD_TAG_BYTES, MadChannel } from '../../../src/spec/classes/mad/mad_channel.ts'
import { QpAddress } from '../../../src/spec/classes/qp/qp.ts'
import { CallError, Errno } from '../../../src/spec/errno.ts'
import { type In, zeroRecord } from '../../../src/spec/schema/schema.ts'
import { DEFAULT_PKEY } from '../../../src/spec/wire/headers.ts'
import { GSI_QPN, MAD_BYTES } from '../../../src/spec/wire/mad.ts'
import { MAD_STATUS_UNSUPPORTED, MadClass, MadMethod } from '../../../src/spec/wire/management.ts'
import { addTap } from '../../../src/transport/phy/tap.ts'
import { addressText } from '../../../src/transport/wire/address.ts'
import { madFields, respond } from '../../../src/transport/wire/mad/management.ts'
import { ownAccount } from '../../core/accounts.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import { longMessage, plainMad, SA_HEADERS } from '../mad-engine/pair.ts'
import { twoHosts } from '../rdma-cm/hosts.ts'

const { GET, SET, SEND, RESPONSE } = MadMethod
const { PERFORMANCE, SUBNET_ADMINISTRATION, COMMUNICATION } = MadClass

/** Offsets of fields of the MAD header. */
const [BASE_VERSION_AT, CLASS_VERSION_AT, STATUS_AT] = [0, 2, 4]

interface Listening {
  readonly agent: MadAgent<undefined>
  readonly received: Uint8Array[]
}

/** Creates an agent for requests of `methods`; without `mgmtClass` it gets only responses. */
const listen = (mads: MadLayer, device: Device, mgmtClass?: number, methods: readonly number[] = []): Listening => {
  const received: Uint8Array[] = []
  const claim = mgmtClass === undefined ? undefined : { mgmtClass, classVersion: 1, oui: 0, methods }
  const agent = mads.createAgent<undefined>(
    device,
    { claim, engineDoesRmpp: false },
    { receive: message => void received.push(message), ended: () => {} },
  )
  return { agent, received }
}

const pathTo = (from: number, to: number): MadAddress => ({
  localGid: ipv4(10, 0, 0, from),
  remoteGid: ipv4(10, 0, 0, to),
  qpn: GSI_QPN,
  pkey: DEFAULT_PKEY,
  flowLabel: 0,
  trafficClass: 0,
  hopLimit: 64,
})

const setUp = () => {
  const { network, a, b } = twoHosts()
  const [deviceA, deviceB] = [a.devices.get('rxe1')!.device, b.devices.get('rxe2')!.device]
  const send = ({ agent }: Listening, mad: Uint8Array): void => {
    agent.send(mad.slice(), pathTo(1, 2), { timeout: 1_000_000, retries: 0, tag: undefined })
    network.settle()
  }
  return { network, a, b, deviceA, deviceB, send }
}

const assertRefused = (errno: number, body: () => unknown): void => {
  assert.throws(body, (error: unknown) => error instanceof CallError && error.errno === errno)
}

describe('the MAD layer', () => {
  it('delivers requests to the agent of their class, version and method, responses to the requester', () => {
    const { a, b, deviceA, deviceB, send } = setUp()
    const client = listen(a.mads, deviceA)
    const gets = listen(b.mads, deviceB, SUBNET_ADMINISTRATION, [GET])
    const sets = listen(b.mads, deviceB, SUBNET_ADMINISTRATION, [SET])
    const other = listen(a.mads, deviceA, SUBNET_ADMINISTRATION, [GET])
    send(client, plainMad(SUBNET_ADMINISTRATION, GET, 1))
    send(client, plainMad(SUBNET_ADMINISTRATION, SET, 2))
    assert.deepEqual(
      [gets.received.length, sets.received.length, client.received.length, other.received.length],
      [1, 1, 0, 0],
    )
    gets.agent.send(respond(gets.received[0]!, 0), pathTo(2, 1), { timeout: 0, retries: 0, tag: undefined })
    const version2 = plainMad(SUBNET_ADMINISTRATION, GET, 3)
    version2[CLASS_VERSION_AT] = 2
    send(client, version2)
    assert.deepEqual([gets.received.length, client.received.length, other.received.length], [1, 2, 0])
    const { buffer, byteOffset } = client.received[1]!
    assert.equal(new DataView(buffer, byteOffset).getUint16(STATUS_AT), MAD_STATUS_UNSUPPORTED)
  })

  it('drops datagrams of another partition, and counts them', () => {
    const { network, a, b, deviceA, deviceB } = setUp()
    const gets = listen(b.mads, deviceB, SUBNET_ADMINISTRATION, [GET])
    // two of another partition, two of the default partition: a full and a limited member of each
    for (const pkey of [0x9234, 0x1234, DEFAULT_PKEY, DEFAULT_PKEY & 0x7fff])
      a.mads.send(deviceA, plainMad(SUBNET_ADMINISTRATION, GET, 1), { ...pathTo(1, 2), pkey })
    network.settle()
    assert.equal(gets.received.length, 2)
    assert.equal(deviceB.ports[0]!.attributes.badPkeyCntr, 2)
  })

  it('answers unclaimed Get and Set of general services only', () => {
    const { a, deviceA, send } = setUp()
    const client = listen(a.mads, deviceA)
    send(client, plainMad(PERFORMANCE, SET, 1))
    send(client, plainMad(PERFORMANCE, MadMethod.TRAP, 2))
    send(client, plainMad(COMMUNICATION, GET, 3)) // The layer accepts only Send and ClassPortInfo of this class.
    send(client, plainMad(MadClass.SUBNET_LID_ROUTED, GET, 4))
    const wrongVersion = plainMad(PERFORMANCE, GET, 5)
    wrongVersion[BASE_VERSION_AT] = 2
    send(client, wrongVersion)
    assert.deepEqual(
      client.received.map(mad => [madFields(mad).method, madFields(mad).tid & 0xffffn]),
      [[GET | RESPONSE, 1n]],
    )
  })

  it('has one agent per method of a class and port; closing the agent frees the method', () => {
    const { a, b, deviceA, deviceB, send } = setUp()
    const client = listen(a.mads, deviceA)
    const taken = listen(b.mads, deviceB, PERFORMANCE, [GET])
    assertRefused(Errno.EINVAL, () => listen(b.mads, deviceB, PERFORMANCE, [SET, GET]))
    // The refused agent has not kept its first method.
    const sets = listen(b.mads, deviceB, PERFORMANCE, [SET])
    taken.agent.close()
    const again = listen(b.mads, deviceB, PERFORMANCE, [GET])
    send(client, plainMad(PERFORMANCE, GET, 1))
    assert.deepEqual([taken.received.length, again.received.length, sets.received.length], [0, 1, 0])
    assertRefused(Errno.EBUSY, () =>
      b.mads.register({ mgmtClass: PERFORMANCE, classVersion: 1, oui: 0, methods: [GET], receive: () => {} }),
    )
  })

  it('keeps no claim of a service that one device refuses', () => {
    const { a, deviceA } = setUp()
    const service = { mgmtClass: PERFORMANCE, classVersion: 1, oui: 0, methods: [GET], receive: () => {} }
    const added = a.plug(9)
    listen(a.mads, added, PERFORMANCE, [GET])
    assertRefused(Errno.EBUSY, () => a.mads.register(service))
    listen(a.mads, deviceA, PERFORMANCE, [GET])
  })

  it('does bounded work in each `onTimeout`, and serves agents round robin', () => {
    const { a, deviceA, network } = setUp()
    const ended: string[] = []
    const agentOf = (name: string) =>
      a.mads.createAgent<string>(
        deviceA,
        { claim: undefined, engineDoesRmpp: false },
        { receive: () => {}, ended: () => void ended.push(name) },
      )
    const [busy, other] = [agentOf('busy'), agentOf('other')]
    const send = (agent: MadAgent<string>, tid: number) =>
      agent.send(plainMad(PERFORMANCE, SEND, tid), pathTo(1, 2), { timeout: 1, retries: 0, tag: '' })
    for (let tid = 0; tid < 1000; tid++) send(busy, tid)
    send(other, 1)
    network.now += 2 // All sends have timed out.
    a.mads.onTimeout(network.now)
    assert.ok(ended.length > 0 && ended.length < 200, `${ended.length} sends ended in one call`)
    assert.ok(a.mads.nextTimeout() <= network.now)
    a.mads.onTimeout(network.now)
    assert.ok(ended.includes('other'))
    while (a.mads.nextTimeout() <= network.now) a.mads.onTimeout(network.now)
    assert.equal(ended.length, 1000 + 1)
  })

  it('ends with its device, and starts on a device that is added later', () => {
    const { network, a, deviceA } = setUp()
    const { agent } = listen(a.mads, deviceA)
    a.unplug(1)
    assertRefused(Errno.EIO, () =>
      agent.send(plainMad(PERFORMANCE, GET, 1), pathTo(1, 2), { timeout: 0, retries: 0, tag: undefined }),
    )
    agent.close()
    const again = listen(a.mads, a.plug(1))
    again.agent.send(plainMad(PERFORMANCE, GET, 1), pathTo(1, 2), { timeout: 1_000_000, retries: 0, tag: undefined })
    network.settle()
    assert.equal(again.received.length, 1, 'host b answers that it has no such service')
    network.runTimers()
    assert.equal(a.mads.nextTimeout(), Number.POSITIVE_INFINITY)
  })
})

describe('the classes of management datagrams', () => {
  const toHostB = { ...zeroRecord(QpAddress), dgid: ipv4(10, 0, 0, 2), sgidIndex: 1, isGlobal: 1, port: 1 }

  const programOn = (device: Device, caller?: Partial<Caller>, account?: Account) => {
    const context = openContext(device, { isOpened: true, ...(account && { account }) })
    const callerWithoutMemory = {
      memory: undefined as never,
      copyIn: () => new Uint8Array(0),
      copyOut: () => {},
      descriptor: (number: number) => number,
      ...caller,
    } as Caller
    const createChannel = () =>
      invokeNow(context, MadChannel, 'create', 0, {}, callerWithoutMemory).descriptors![0]!.object
    /** Without `mgmtClass` the agent gets only responses. */
    const createAgent = (channel: number, mgmtClass = 0): number => {
      const args = { channel, mgmtClass, classVersion: mgmtClass === 0 ? 0 : 1, methods: new Uint8Array(16) }
      return invokeNow(context, MadAgentClass, 'create', 0, args, callerWithoutMemory).object!
    }
    /** Sends to queue pair 1 of host b, with a timeout of 1 ms, unless `overrides` say something else. */
    const send = (agent: number, data: Uint8Array, overrides: Partial<In<typeof MadAgentClass.methods.send>> = {}) => {
      const args = { address: toHostB, qpn: GSI_QPN, timeout: 1, data, ...overrides }
      invokeNow(context, MadAgentClass, 'send', agent, args, callerWithoutMemory)
    }
    const receive = (channel: number, bufferBytes: number = MAD_BYTES) =>
      invokeNow(context, MadChannel, 'receive', channel, { bufferBytes }, callerWithoutMemory)
    const unread = (channel: number): number =>
      invokeNow(context, MadChannel, 'query', channel, {}, callerWithoutMemory).out.unread
    return { context, callerWithoutMemory, createChannel, createAgent, send, receive, unread }
  }

  it('require CAP_NET_RAW', () => {
    const { deviceA } = setUp()
    assertRefused(Errno.EPERM, () => programOn(deviceA, { allows: () => false }).createChannel())
  })

  it('carry a request and its response, and signal a channel when a message arrives', () => {
    const { network, deviceA } = setUp()
    const { context, callerWithoutMemory, createChannel, createAgent, send, receive } = programOn(deviceA)
    const channel = createChannel()
    const fd = findDescriptor(deviceA.core, channel)
    const agent = createAgent(channel, PERFORMANCE)
    const request = plainMad(PERFORMANCE, GET, 1)
    assertRefused(Errno.EINVAL, () => send(agent, request, { address: { ...toHostB, isGlobal: 0 } }))
    send(agent, request)
    // The transaction id is in use.
    assertRefused(Errno.EINVAL, () => send(agent, request))
    assert.deepEqual(invokeNow(context, MadAgentClass, 'query', agent, {}, callerWithoutMemory).out, { outstanding: 1 })
    assertRefused(Errno.EAGAIN, () => receive(channel))
    network.settle()
    assert.equal(fd.sink.unread(), 1)
    assertRefused(Errno.EINVAL, () => receive(channel, MAD_BYTES - 1))
    const { out } = receive(channel)
    assert.deepEqual([out.agent, out.status, out.length, fd.sink.unread()], [agent, 0, MAD_BYTES, 0])
    closeContext(context)
    assert.equal(deviceA.counts.mad_agent, 0)
  })

  it('report an unanswered request with its tag, or without one', () => {
    const { network, deviceA } = setUp()
    const { context, createChannel, createAgent, send, receive } = programOn(deviceA)
    const channel = createChannel()
    const agent = createAgent(channel)
    for (const tag of [undefined, new Uint8Array(MAD_TAG_BYTES).fill(7)]) {
      send(agent, plainMad(PERFORMANCE, SEND, 1), tag && { tag })
      network.runTimers()
      const { out } = receive(channel)
      assert.deepEqual([out.status, out.tag], [Errno.ETIMEDOUT, tag])
    }
    closeContext(context)
  })

  it('repeat a request to its address, with its tag, also after the program has changed its arrays', () => {
    const { network, a, deviceA } = setUp()
    const { context, createChannel, createAgent, send, receive } = programOn(deviceA)
    const channel = createChannel()
    const destinations: string[] = []
    addTap(a.devices.get('rxe1')!.device.state.port, ({ direction, flow }) => {
      if (direction === 'sent') destinations.push(addressText(flow.destination))
    })
    const tag = new Uint8Array(MAD_TAG_BYTES).fill(7)
    const dgid = ipv4(10, 0, 0, 2)
    send(createAgent(channel), plainMad(PERFORMANCE, SEND, 1), { address: { ...toHostB, dgid }, retries: 1, tag })
    dgid[15] = 3
    tag.fill(0)
    network.runTimers()
    assert.deepEqual(destinations, ['10.0.0.2', '10.0.0.2'])
    assert.deepEqual(receive(channel).out.tag, new Uint8Array(MAD_TAG_BYTES).fill(7))
    closeContext(context)
  })

  it('send to the lower 24 bits of a queue pair number', () => {
    const { network, a, deviceA } = setUp()
    const { context, createChannel, createAgent, send, unread } = programOn(deviceA)
    const channel = createChannel()
    /** Bytes 4 to 7 of the BTH: FECN, BECN and reserved bits, and the queue pair. */
    const destinations: number[] = []
    addTap(a.devices.get('rxe1')!.device.state.port, ({ direction, arena, offset }) => {
      if (direction === 'sent') destinations.push(arena.view.getUint32(offset + 4))
    })
    send(createAgent(channel), plainMad(PERFORMANCE, GET, 1), { qpn: 0xff00_0001 })
    network.settle()
    assert.deepEqual(destinations, [1])
    assert.equal(unread(channel), 1)
    closeContext(context)
  })

  it('without RMPP, an agent gets each segment of a response, and sends segments with one transaction id', () => {
    const { network, b, deviceA, deviceB } = setUp()
    const gets = listen(b.mads, deviceB, SUBNET_ADMINISTRATION, [GET])
    const { context, createChannel, createAgent, send, unread } = programOn(deviceA)
    const channel = createChannel()
    const agent = createAgent(channel, SUBNET_ADMINISTRATION)
    const segment = longMessage(GET, 1, MAD_BYTES - SA_HEADERS)
    for (let i = 0; i < 2; i++) send(agent, segment)
    network.settle()
    assert.equal(gets.received.length, 2)
    const response = respond(gets.received[0]!, 0)
    const answer = { timeout: 0, retries: 0, tag: undefined }
    for (let i = 0; i < 3; i++) gets.agent.send(response.slice(), pathTo(2, 1), answer)
    network.settle()
    assert.equal(unread(channel), 3)
    closeContext(context)
  })

  it('charge sends and unread messages to the memory quota of the program', () => {
    const { network, a, deviceA } = setUp()
    const limit = 100_000
    const account = ownAccount(limit)
    const { memory } = account
    const { context, createChannel, createAgent, send, receive } = programOn(deviceA, {}, account)
    const channel = createChannel()
    const agent = createAgent(channel)
    const before = memory.used
    let sent = 0
    assertRefused(Errno.ENOMEM, () => {
      for (; sent < 1000; sent++) send(agent, plainMad(PERFORMANCE, SEND, sent))
    })
    assert.equal(memory.used, before + sent * MAD_BYTES)
    network.runTimers()
    // An undelivered message is put back, although other messages have used its part of the quota.
    const { out, putBack } = receive(channel)
    const used = limit - memory.used
    addMemory(account, used)
    putBack!()
    releaseMemory(account, used)
    const again = receive(channel)
    assert.deepEqual(again.out.data, out.data)
    again.putBack!()
    // The quota is full: a header that does not fit is dropped. A header is charged with less than 300 bytes.
    assert.ok(memory.used > limit - 300 && memory.used <= limit, `${memory.used} bytes`)
    while (memory.used > limit / 2) receive(channel)
    // A send that fails is not charged: here the layer has no queue pair 1 any more.
    a.mads.close()
    const beforeFailure = memory.used
    assertRefused(Errno.EIO, () => send(agent, plainMad(PERFORMANCE, SEND, 0)))
    assert.equal(memory.used, beforeFailure)
    closeContext(context)
    assert.equal(memory.used, 0)
  })
})
