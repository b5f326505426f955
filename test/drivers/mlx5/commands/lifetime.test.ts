/*
 * Queues that firmware commands make, beside their data: states, queries, events, what is refused, and what hostile
 * programs may do.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { raisePort } from '../../../../src/core/events/events.ts'
import { attachSink, closeContext, createEventQueue, type EventQueue, invokeNow } from '../../../../src/core/index.ts'
import { PagesTakenError } from '../../../../src/core/memory/mappable-memory.ts'
import type { FdObject } from '../../../../src/core/model.ts'
import { DeviceEvents, EventRecord, ObjectEvents } from '../../../../src/drivers/mlx5/commands/events/event-types.ts'
import type { SoftState } from '../../../../src/drivers/soft/state.ts'
import { Srq, XrcSrq } from '../../../../src/spec/classes/srq.ts'
import { Xrcd } from '../../../../src/spec/classes/xrcd.ts'
import { Devx, DevxAsyncEventFd } from '../../../../src/spec/drivers/mlx5-devx.ts'
import { Commands } from '../../../../src/spec/drivers/mlx5-firmware/commands.ts'
import { cmdHcaCap } from '../../../../src/spec/drivers/mlx5-firmware/device.ts'
import { AccessFlags, AsyncEventType } from '../../../../src/spec/enums.ts'
import { decodeFields } from '../../../../src/uapi/firmware/fields.ts'
import { completionsOf } from '../../machine.ts'
import { assertErrno, assertRefused, withCommands } from '../firmware.ts'
import { ipv4, type Machine, machine, type Program, program, RDMA_WRITE, SEND } from '../machine.ts'

const two = (options = {}) => {
  const m = machine(2)
  const [a, b] = [program(m, 0, { commands: true, ...options }), program(m, 1, { commands: true })]
  return { m, a, b, fa: a.firmware!, fb: b.firmware! }
}

/** The first fields of a queue pair of `a`, which a test changes. */
const qpFields = (a: Program) => {
  const f = a.firmware!
  const at = a.pages.take(8192)
  const qpc = {
    pd: f.pd,
    uar_page: f.uar,
    log_sq_size: 4,
    log_rq_size: 4,
    log_rq_stride: 0,
    cqn_snd: a.cq.number,
    cqn_rcv: a.cq.number,
    ...a.recordPlace(a.record()),
  }
  return { qpc, fields: { wq_umem_id: f.umem, wq_umem_offset: BigInt(at) } }
}

const createQp = (a: Program, changes: object = {}, fields: object = {}) => {
  const first = qpFields(a)
  return a.firmware!.create('CREATE_QP', { qpc: { ...first.qpc, ...changes }, ...first.fields, ...fields })
}

describe('a queue pair of commands', () => {
  it('moves from state to state as the commands say, and tells what it has', () => {
    const { m, a, b, fa } = two()
    const [x, y] = [a.queuePair('rc'), b.queuePair('rc')]
    const stateOf = () => (fa.query(x.object, 'QUERY_QP', { qpn: x.qpn }).qpc as { state: number }).state
    assert.equal(stateOf(), 0)
    const move = (name: 'INIT2RTR_QP' | 'RTR2RTS_QP' | 'RTS2RTS_QP' | 'SQERR2RTS_QP') => () =>
      fa.modify(x.object, name, { qpn: x.qpn })
    for (const name of ['INIT2RTR_QP', 'RTR2RTS_QP', 'RTS2RTS_QP', 'SQERR2RTS_QP'] as const)
      assertRefused(move(name), 'badState', /RESET/)
    x.connect(y, 1)
    y.connect(x, 0)
    const { qpc } = fa.query(x.object, 'QUERY_QP', { qpn: x.qpn }) as { qpc: Record<string, unknown> }
    const path = qpc.primary_address_path as Record<string, unknown>
    assert.deepEqual(
      [qpc.state, qpc.st, qpc.mtu, qpc.remote_qpn, qpc.log_sq_size, qpc.log_rq_size, qpc.user_index, qpc.pd],
      [3, 0, 3, y.qpn, 6, 6, x.uidx, fa.pd],
    )
    assert.deepEqual(
      [path.src_addr_index, path.rgid_rip, path.ack_timeout, qpc.next_send_psn, qpc.retry_count, qpc.rwe],
      [3, ipv4(2), 14, 7, 7, 1],
    )
    // rights by the mask only
    fa.modify(x.object, 'RTS2RTS_QP', { qpn: x.qpn, opt_param_mask: 1 << 3, qpc: { rre: 0, rwe: 0 } })
    const rights = fa.query(x.object, 'QUERY_QP', { qpn: x.qpn }).qpc as Record<string, number>
    assert.deepEqual([rights.rre, rights.rwe, rights.rae], [1, 0, 1])
    fa.modify(x.object, 'RTS2RTS_QP', {
      qpn: x.qpn,
      opt_param_mask_95_32: 4n,
      qpc: { primary_address_path: { udp_sport: 55_555 } },
    })
    const { address } = (a.device.state as SoftState).queues.find(queue => queue?.qpn === x.qpn)!
    assert.equal(address!.flowLabel, 55_555 & 0x3fff)
    x.fail()
    assert.equal(stateOf(), 6)
    x.reset()
    assert.equal(stateOf(), 0)
    x.connect(y, 1)
    y.reset()
    y.connect(x, 0)
    y.receive(b.element(0, 64))
    x.post({ opcode: SEND, data: [a.element(0, 8)] })
    assert.equal(completionsOf(m, b, 1)[0]!.bytes, 8)
  })

  for (const place of ['a page of its context', 'a page that another context shares'])
    it(`has no requests after 2RST_QP: its doorbell record, in ${place}, is 0`, () => {
      const { a, fa } = two()
      const at = a.pages.take(4096)
      const { adopt } = a.pages.memory
      const own: NonNullable<typeof adopt> = (address, ...rest) => {
        if (address === a.pages.addressOf(at) && place !== 'a page of its context')
          throw new PagesTakenError('EINVAL', 'another context shares the page')
        return adopt!(address, ...rest)
      }
      Object.assign(a.pages.memory, { adopt: own })
      const { object, number } = createQp(a, a.recordPlace(at))
      for (const counter of [5, 0x1_0000, 0xffff_ffff]) {
        a.pages.view.setUint32(at, 7)
        a.pages.view.setUint32(at + 4, counter)
        fa.modify(object, '2RST_QP', { qpn: number })
        assert.deepEqual([a.pages.view.getUint32(at), a.pages.view.getUint32(at + 4)], [7, 0])
      }
    })

  it('has the limits of an adapter', () => {
    const { a, fa } = two()
    for (const [changes, syndrome] of [
      [{ st: 9 }, 'unsupportedFeature'],
      [{ st: 3 }, 'unsupportedFeature'],
      [{ send_dbr_mode: 2 }, 'unsupportedFeature'],
      [{ rq_type: 2 }, 'unsupportedFeature'],
      [{ wq_signature: 1 }, 'unsupportedFeature'],
      [{ ts_format: 2 }, 'unsupportedFeature'],
      [{ log_num_dci_stream_channels: 1 }, 'unsupportedFeature'],
      [{ st: 5, rq_type: 3, log_num_dci_stream_channels: 31 }, 'refused'],
      [{ pd: 0xabcdef }, 'noSuchPd'],
      [{ uar_page: 0xabcdef }, 'noSuchUar'],
      [{ cqn_snd: 0xabcdef }, 'noSuchCq'],
      [{ cqn_rcv: 0xffffff }, 'noSuchCq'],
      [{ rq_type: 1, srqn_rmpn_xrqn: 0x20001 }, 'noSuchReceiveQueue'],
      [{ dbr_umem_id: 77 }, 'noSuchUmem'],
      [{ dbr_addr: (4n << 20n) - 4n }, 'outsideUmem'],
      [{ log_sq_size: 15, log_rq_size: 15, log_rq_stride: 7 }, 'outsideUmem'],
    ] as const)
      assertRefused(
        () => createQp(a, changes, syndrome === 'outsideUmem' ? { wq_umem_offset: 3n << 20n } : {}),
        syndrome,
      )
    assertRefused(() => createQp(a, {}, { wq_umem_offset: (1n << 64n) - 1n }), 'outsideUmem')
    assertRefused(() => createQp(a, {}, { wq_umem_offset: 17n }), 'refused', /aligned/)
    assert.equal(a.device.counts.rc_qp ?? 0, 0)
    assert.equal(a.device.counts.devx_obj, 1)
    assert.ok(fa.umemOf(a.pages.addressOf(0), 64).object)
  })

  it('has no more than a device with smaller limits permits', () => {
    const { a } = two()
    const soft = a.device.state as SoftState
    Object.assign(soft, {
      limits: { ...soft.limits, maxInline: 101, maxSge: 3, maxRecvSge: 3, maxSrqSge: 2, maxQpWr: 256 },
    })
    createQp(a, { log_rq_stride: 3 })
    a.sharedReceives(16, 1, 'RING')
    const { capability } = withCommands(a).general(Commands.QUERY_HCA_CAP, {}, { opMod: 1 })
    assert.equal(decodeFields(cmdHcaCap, capability).log_max_qp_sz, 8)
  })

  it('leaves nothing if a step after its creation fails', () => {
    const { a, fa } = two()
    const pool = a.sharedReceives(16, 1, 'RING')
    const dct = { cqn: a.cq.number, srqn_xrqn: pool.object, pd: fa.pd, mtu: 7, port: 1, my_addr_index: 1 }
    assertRefused(() => fa.create('CREATE_DCT', { dct_context_entry: dct }), 'refused')
    assert.equal(a.device.counts.dct_qp ?? 0, 0)
    for (const handle of [pool.handle!, a.cq.object]) fa.destroy(handle)
  })

  it('uses the objects that it names: none is destroyed before it', () => {
    const { a, fa } = two()
    const { object: umem, out } = fa.umemOf(a.pages.addressOf(a.pages.take(8192)), 8192)
    const pool = a.sharedReceives(16, 1, 'RING')
    const made = createQp(a, { rq_type: 1, srqn_rmpn_xrqn: pool.object }, { wq_umem_id: out.umem, wq_umem_offset: 0n })
    const handles = [a.cq.object, pool.handle!]
    for (const handle of handles) assertErrno(() => fa.destroy(handle), 'EBUSY')
    assertErrno(() => withCommands(a).deregister(umem!), 'EBUSY')
    fa.destroy(made.object)
    withCommands(a).deregister(umem!)
    for (const handle of handles) fa.destroy(handle)
  })

  it('is reached by no other context', () => {
    const { m, a, b, fb } = two()
    const other = program(m, 0, { commands: true })
    const x = a.queuePair('rc')
    const pool = a.sharedReceives(16, 1, 'RING')
    assertRefused(() => createQp(other, { cqn_snd: a.cq.number }), 'noSuchCq')
    assertRefused(() => createQp(other, { rq_type: 1, srqn_rmpn_xrqn: pool.object }), 'noSuchReceiveQueue')
    assertErrno(() => other.firmware!.query(x.object, 'QUERY_QP', { qpn: x.qpn }), 'ENOENT')
    // its own object's handle with the other's number
    const own = other.queuePair('rc')
    assertErrno(() => other.firmware!.modify(own.object, '2ERR_QP', { qpn: x.qpn }), 'EINVAL', /not of the object/)
    assertErrno(() => fb.modify(b.cq.object, '2ERR_QP', { qpn: 0 }), 'EINVAL')
  })
})

describe('completion queues and pools of commands', () => {
  it('tell their state', () => {
    const { m, a, b, fa, fb } = two({ entries: 64 })
    const [x, y] = [a.queuePair('rc'), b.queuePair('rc')]
    x.connect(y, 1)
    y.connect(x, 0)
    for (let i = 0; i < 3; i++)
      x.post({ opcode: RDMA_WRITE, data: [a.element(0, 8)], remote: { address: b.address, rkey: b.region.rkey } })
    completionsOf(m, a, 3)
    a.arm()
    m.runUntil(() => true)
    m.devices[0]!.poll(m.time.now)
    const { cq_context: cqc } = fa.query(a.cq.object, 'QUERY_CQ', { cqn: a.cq.number }) as {
      cq_context: Record<string, number>
    }
    assert.deepEqual(
      [cqc.log_cq_size, cqc.cqe_sz, cqc.st, cqc.producer_counter, cqc.consumer_counter, cqc.c_eqn],
      [6, 0, 9, 3, 3, fa.eqn],
    )
    fa.modify(a.cq.object, 'MODIFY_CQ', {
      cqn: a.cq.number,
      modify_field_select: 3,
      cq_context: { cq_period: 100, cq_max_count: 8 },
    })
    const { cq_context: moderated } = fa.query(a.cq.object, 'QUERY_CQ', { cqn: a.cq.number }) as {
      cq_context: Record<string, number>
    }
    assert.deepEqual([moderated.cq_period, moderated.cq_max_count], [100, 8])
    assertRefused(() => fa.modify(a.cq.object, 'MODIFY_CQ', { cqn: a.cq.number }, 1), 'unsupportedModifier')
    assertRefused(
      () => fa.modify(a.cq.object, 'MODIFY_CQ', { cqn: a.cq.number, modify_field_select: 4 }),
      'unsupportedFeature',
    )
    const pool = b.sharedReceives(16, 1, 'RING')
    pool.receive(b.element(0, 64))
    const { rmp_context: rmpc } = fb.query(pool.handle!, 'QUERY_RMP', { rmpn: pool.object }) as {
      rmp_context: { state: number; wq: Record<string, number> }
    }
    assert.deepEqual([rmpc.state, rmpc.wq.log_wq_sz, rmpc.wq.hw_counter, rmpc.wq.sw_counter], [1, 4, 0, 1])
  })

  it('have the limits of an adapter', () => {
    const { a, fa } = two()
    const at = BigInt(a.pages.take(65536))
    const cqc = { log_cq_size: 4, uar_page: fa.uar, c_eqn: fa.eqn, ...a.recordPlace(a.record()) }
    const createCq =
      (changes: object, fields: object = {}) =>
      () =>
        fa.create('CREATE_CQ', {
          cq_context: { ...cqc, ...changes },
          cq_umem_id: fa.umem,
          cq_umem_offset: at,
          ...fields,
        })
    assertRefused(createCq({ log_cq_size: 31 }), 'badValue')
    assertRefused(createCq({ log_cq_size: 22 }), 'outsideUmem')
    assertRefused(createCq({ cqe_sz: 2 }), 'unsupportedFeature')
    assertRefused(createCq({ cqe_comp_en: 1 }), 'unsupportedFeature')
    assertRefused(createCq({ cq_timestamp_format: 2 }), 'unsupportedFeature')
    assertRefused(createCq({ c_eqn: 0 }), 'noSuchEq')
    assertRefused(createCq({}, { cq_umem_id: 1 << 30 }), 'noSuchUmem')
    const { out } = fa.umemOf(a.pages.addressOf(Number(at)), 8192, 0)
    assertRefused(createCq({}, { cq_umem_id: out.umem, cq_umem_offset: 0n }), 'outsideUmem', /LOCAL_WRITE/)
    const wq = {
      log_wq_sz: 4,
      log_wq_stride: 5,
      pd: fa.pd,
      wq_umem_id: fa.umem,
      wq_umem_offset: at,
      ...a.recordPlace(a.record()),
    }
    const createPool = (changes: object) => () =>
      fa.create('CREATE_RMP', { ctx: { state: 1, wq: { ...wq, ...changes } } })
    assertRefused(createPool({ wq_type: 2 }), 'unsupportedFeature')
    assertRefused(createPool({ log_wq_sz: 31 }), 'badValue')
    assertRefused(createPool({ log_wq_stride: 15 }), 'badValue')
    assertRefused(createPool({ log_wq_stride: 4 }), 'badValue')
    assertRefused(createPool({ log_wq_sz: 15, log_wq_stride: 9, wq_umem_offset: 3n << 20n }), 'outsideUmem')
    const target = { pd: fa.pd, cqn: a.cq.number, srqn_xrqn: a.sharedReceives(16).object, mtu: 3, my_addr_index: 1 }
    const createTarget = (changes: object) => () =>
      fa.create('CREATE_DCT', { dct_context_entry: { ...target, ...changes } })
    for (const changes of [{ mtu: 0 }, { mtu: 7 }, { my_addr_index: 200 }, { pkey_index: 9 }])
      assertRefused(createTarget(changes), 'refused')
    assertRefused(createTarget({ srqn_xrqn: 1 }), 'noSuchReceiveQueue')
    assert.equal(a.device.counts.dct_qp ?? 0, 0)
  })
})

describe('queues of verbs', () => {
  it('are told and armed by commands, too', () => {
    const m = machine(2)
    const a = program(m, 0)
    const f = withCommands(a)
    const xrcd = a.call(Xrcd, 'create', 0, { flags: 0 }).object
    const common = { pd: a.pd, maxWr: 15, maxSge: 1, limit: 0, userHandle: 0n }
    const createShared = (cls: typeof Srq | typeof XrcSrq, more: object) => {
      const bufferAddress = a.pages.addressOf(a.pages.take(4096))
      const doorbellAddress = a.pages.addressOf(a.record())
      return a.call<{ number: number }>(cls, 'create', 0, { ...common, bufferAddress, doorbellAddress, ...more })
    }
    const srq = createShared(Srq, {})
    const xrc = createShared(XrcSrq, { xrcd, cq: a.cq.object })
    f.about(Commands.MODIFY_RMP, srq.object, {
      rmpn: srq.out.number,
      rmp_state: 1,
      lwm: 1,
      ctx: { state: 1, wq: { lwm: 3 } },
    })
    f.about(Commands.ARM_XRC_SRQ, xrc.object, { xrc_srqn: xrc.out.number, lwm: 5 })
    const { wq } = f.about(Commands.QUERY_RMP, srq.object, { rmpn: srq.out.number }).rmp_context
    const { xrc_srq_context_entry: context } = f.about(Commands.QUERY_XRC_SRQ, xrc.object, { xrc_srqn: xrc.out.number })
    assert.deepEqual([wq.log_wq_sz, wq.lwm, context.log_xrc_srq_size, context.lwm], [4, 3, 4, 5])
    const limits = [srq, xrc].map(
      ({ object }, i) => a.call<{ limit: number }>(i === 0 ? Srq : XrcSrq, 'query', object, {}).out.limit,
    )
    assert.deepEqual(limits, [3, 5])
    const qp = a.queuePair('rc')
    f.about(Commands.RST2INIT_QP, qp.object, { qpn: qp.qpn, qpc: { rwe: 1 } })
    assert.equal(f.about(Commands.QUERY_QP, qp.object, { qpn: qp.qpn }).qpc.state, 1)
    const target = a.target(srq.object, 5n)
    f.about(Commands.ARM_DCT_FOR_KEY_VIOLATION, target.object, { dct_number: target.qpn })
    assert.equal(f.about(Commands.QUERY_DCT, target.object, { dctn: target.qpn }).dct_context_entry.state, 0)
    assertRefused(() => f.about(Commands.INIT2RTR_QP, qp.object, { qpn: qp.qpn }), 'refused')
  })
})

const channelOf = (m: Machine, p: Program, flags = 0) => {
  const { descriptors } = invokeNow(
    p.context,
    DevxAsyncEventFd,
    'create',
    0,
    { flags },
    {
      memory: undefined as never,
      copyIn: () => new Uint8Array(),
      copyOut() {},
      descriptor: fd => fd,
    },
  )
  const number = descriptors![0]!.object
  const fd = m.core.descriptors.get(number) as FdObject
  const queue: EventQueue = createEventQueue()
  attachSink(fd, queue)
  return { number, fd, queue }
}

const typesOf = (...types: number[]): Uint8Array => new Uint8Array(Uint16Array.from(types).buffer)

describe('events', () => {
  const { COMP, SRQ_LAST_WQE, SRQ_RQ_LIMIT, CQ_ERROR, DCT_KEY_VIOLATION } = ObjectEvents
  const subscribe = (
    p: Program,
    channel: { number: number },
    handle: number | undefined,
    types: Uint8Array,
    cookie = 5n,
  ) => p.call(Devx, 'subscribe', 0, { channel: channel.number, types, cookie, ...(handle !== undefined && { handle }) })
  const typesIn = ({ queue }: { queue: EventQueue }) => queue.queue.map(({ bytes }) => bytes[EventRecord.TYPE])

  it('of completions come once for each arming, to all who have subscribed, with their cookies', () => {
    const { m, a, b } = two()
    const [full, brief] = [channelOf(m, a), channelOf(m, a, 1)]
    subscribe(a, full, a.cq.object, typesOf(COMP.type, CQ_ERROR.type), 77n)
    subscribe(a, brief, a.cq.object, typesOf(COMP.type), 78n)
    const [x, y] = [a.queuePair('rc'), b.queuePair('rc')]
    x.connect(y, 1)
    y.connect(x, 0)
    const write = () =>
      x.post({ opcode: RDMA_WRITE, data: [a.element(0, 8)], remote: { address: b.address, rkey: b.region.rkey } })
    write()
    completionsOf(m, a, 1)
    assert.equal(full.queue.queue.length, 0)
    for (let i = 1; i < 4; i++) {
      a.arm()
      write()
      write()
      completionsOf(m, a, 2)
      assert.equal(full.queue.queue.length, i)
    }
    const { bytes } = full.queue.queue[0]!
    assert.equal(bytes.length, 72)
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    assert.deepEqual(
      [view.getBigUint64(0, true), bytes[EventRecord.TYPE], view.getUint32(EventRecord.NUMBER)],
      [77n, 0, a.cq.number],
    )
    // one that is unread is not repeated
    assert.deepEqual(
      brief.queue.queue.map(({ bytes: record }) => [...record]),
      [[78, 0, 0, 0, 0, 0, 0, 0]],
    )
    brief.queue.take(1)
    a.arm()
    write()
    completionsOf(m, a, 1)
    assert.equal(brief.queue.queue.length, 1)
  })

  it('of queue pairs, pools and targets', () => {
    const { m, a, b, fb } = two()
    const channel = channelOf(m, b)
    const pool = b.sharedReceives(16, 1, 'RING')
    const [x, y] = [a.queuePair('rc'), b.queuePair('rc', { srq: pool.object })]
    subscribe(b, channel, y.object, typesOf(SRQ_LAST_WQE.type))
    subscribe(b, channel, pool.handle, typesOf(SRQ_RQ_LIMIT.type))
    x.connect(y, 1)
    y.connect(x, 0)
    for (let i = 0; i < 4; i++) pool.receive(b.element(i * 64, 64))
    pool.limit(3)
    for (let i = 0; i < 2; i++) x.post({ opcode: SEND, data: [a.element(0, 8)] })
    completionsOf(m, b, 2)
    assert.deepEqual(typesIn(channel), [SRQ_RQ_LIMIT.type])
    y.fail()
    assert.deepEqual(typesIn(channel), [SRQ_RQ_LIMIT.type, SRQ_LAST_WQE.type])
    const target = b.target(pool.object, 9n)
    subscribe(b, channel, target.object, typesOf(DCT_KEY_VIOLATION.type))
    const dci = a.queuePair('dci')
    const attempt = () => {
      dci.reset()
      dci.start()
      dci.post({ opcode: SEND, destination: { ...target.destination, key: 8n }, data: [a.element(0, 8)] })
      completionsOf(m, a, 1)
    }
    completionsOf(m, a, 2)
    attempt()
    fb.modify(target.object, 'ARM_DCT_FOR_KEY_VIOLATION', { dct_number: target.qpn })
    attempt()
    attempt()
    assert.deepEqual(typesIn(channel).slice(2), [DCT_KEY_VIOLATION.type])
    const { dct_context_entry: dctc } = fb.query(target.object, 'QUERY_DCT', { dctn: target.qpn }) as {
      dct_context_entry: Record<string, number>
    }
    assert.equal(dctc.dc_access_key_violation_count, 3)
  })

  it('of the port', () => {
    const { m, a } = two()
    const channel = channelOf(m, a)
    subscribe(a, channel, undefined, typesOf(DeviceEvents.PORT_CHANGE), 9n)
    const { PORT_ERR, PORT_ACTIVE } = AsyncEventType.values
    for (const event of [PORT_ERR, PORT_ACTIVE]) raisePort(a.device, 1, event)
    assert.deepEqual(
      channel.queue.queue.map(({ bytes }) => [
        bytes[0],
        bytes[EventRecord.TYPE],
        bytes[EventRecord.SUB_TYPE],
        bytes[EventRecord.PORT],
      ]),
      [
        [9, 9, 1, 16],
        [9, 9, 4, 16],
      ],
    )
  })

  it('of an overrun', () => {
    const { m, a, b } = two({ entries: 4 })
    const channel = channelOf(m, a)
    subscribe(a, channel, a.cq.object, typesOf(CQ_ERROR.type))
    const [x, y] = [a.queuePair('rc'), b.queuePair('rc')]
    x.connect(y, 1)
    y.connect(x, 0)
    for (let i = 0; i < 6; i++)
      x.post({ opcode: RDMA_WRITE, data: [a.element(0, 8)], remote: { address: b.address, rkey: b.region.rkey } })
    m.runUntil(() => channel.queue.queue.length > 0)
    const { bytes } = channel.queue.queue[0]!
    assert.deepEqual([bytes[EventRecord.TYPE], bytes[EventRecord.CQ_SYNDROME]], [CQ_ERROR.type, 1])
  })

  it('are refused if the device does not raise them, and end with channel and object', async () => {
    const { m, a, b, fa } = two()
    const channel = channelOf(m, a)
    for (const types of [typesOf(0x55), typesOf(9), new Uint8Array(3), typesOf(...Array(17).fill(0))])
      assertErrno(() => subscribe(a, channel, a.cq.object, types), 'EINVAL')
    assertErrno(() => subscribe(a, channel, undefined, typesOf(COMP.type)), 'EINVAL')
    assertErrno(() => subscribe(a, channel, 999, typesOf(COMP.type)), 'ENOENT')
    assertErrno(() => subscribe(b, channel, b.cq.object, typesOf(COMP.type)), 'EBADF')
    const { channel: _, ...args } = {
      channel: channel.number,
      types: typesOf(0),
      cookie: 1n,
      eventFd: 3,
      handle: a.cq.object,
    }
    assertErrno(() => a.call(Devx, 'subscribe', 0, { channel: channel.number, ...args }), 'EINVAL', /cookie/)
    // closed channels are forgotten, so that no number of them fills the list
    for (let i = 0; i < 3000; i++) {
      const other = channelOf(m, a)
      subscribe(a, other, a.cq.object, typesOf(COMP.type))
      other.fd.isClosed = true
    }
    for (let i = 0; i < 1023; i++) subscribe(a, channel, a.cq.object, typesOf(COMP.type))
    assertErrno(() => subscribe(a, channel, a.cq.object, typesOf(COMP.type, CQ_ERROR.type)), 'ENOMEM')
    fa.destroy(a.cq.object)
    await new Promise<void>(done => closeContext(a.context, done))
  })
})

describe('a hostile program', () => {
  it('leaves nothing: 10,000 objects, in an order of its own, and the end of the context in the middle', async () => {
    const { m, a, fa } = two()
    const soft = a.device.state as SoftState
    const rows = soft.engine().stat().queuePairs
    const first = qpFields(a)
    const made: number[] = []
    for (let i = 0; i < 2500; i++) {
      made.push(
        fa.create('CREATE_QP', { qpc: { ...first.qpc, log_sq_size: 1, log_rq_size: 1 }, ...first.fields }).object,
      )
      if (i % 3 === 0) fa.destroy(made.splice((i * 7) % made.length, 1)[0]!)
    }
    const at = BigInt(a.pages.take(4096))
    for (let i = 0; i < 7500; i++)
      fa.create('CREATE_CQ', {
        cq_context: { log_cq_size: 1, uar_page: fa.uar, c_eqn: fa.eqn, ...a.recordPlace(a.record()) },
        cq_umem_id: fa.umem,
        cq_umem_offset: at,
      })
    await new Promise<void>(done => closeContext(a.context, done))
    assert.equal(soft.engine().stat().queuePairs, rows)
    for (const name of ['devx_obj', 'rc_qp', 'cq', 'devx_umem', 'uar', 'pd'])
      assert.equal(a.device.counts[name] ?? 0, 0, name)
    assert.equal(a.pages.shared(), 0)
    for (const device of m.devices) device.poll(m.time.now)
  })

  it('gets an answer or a refusal to each field of each command, and the device goes on', () => {
    const { m, a, b } = two()
    const f = withCommands(a)
    const queue = [Commands.CREATE_CQ, Commands.CREATE_QP, Commands.CREATE_RMP, Commands.CREATE_DCT]
    let random = 12345
    const next = () => (random = (Math.imul(random, 1103515245) + 12345) >>> 0)
    const made: number[] = []
    for (let i = 0; i < 4000; i++) {
      const command = queue[i % queue.length]!
      const bytes = new Uint8Array(command.in.bytes)
      // sparse bits, so that some pass the first checks
      for (let k = next() % 24; k > 0; k--) bytes[8 + (next() % (bytes.length - 8))] = next() >>> (next() % 24)
      new DataView(bytes.buffer).setUint16(0, command.opcode)
      try {
        made.push(f.createBytes(bytes, 16).object)
      } catch (error) {
        assert.match(String((error as { code?: string }).code), /EREMOTEIO|EINVAL/)
      }
    }
    for (const handle of made) f.destroy(handle)
    const [x, y] = [a.queuePair('rc'), b.queuePair('rc')]
    const movements = [
      Commands.RST2INIT_QP,
      Commands.INIT2RTR_QP,
      Commands.RTR2RTS_QP,
      Commands.RTS2RTS_QP,
      Commands['2RST_QP'],
    ]
    for (let i = 0; i < 4000; i++) {
      const command = movements[next() % movements.length]!
      const bytes = new Uint8Array(command.in.bytes)
      for (let k = next() % 24; k > 0; k--)
        bytes[16 + (next() % Math.max(1, bytes.length - 16))] = next() >>> (next() % 24)
      const view = new DataView(bytes.buffer)
      view.setUint16(0, command.opcode)
      view.setUint32(8, x.qpn | (bytes[8]! << 24))
      try {
        f.give('modify', bytes, 16, x.object)
      } catch (error) {
        assert.match(String((error as { code?: string }).code), /EREMOTEIO|EINVAL/)
      }
    }
    x.reset()
    x.connect(y, 1)
    y.connect(x, 0)
    y.receive(b.element(0, 64))
    x.post({ opcode: SEND, data: [a.element(0, 8)] })
    assert.equal(completionsOf(m, b, 1)[0]!.bytes, 8)
  })

  it('may fill its queues with anything', () => {
    const { m, a, b } = two()
    const [x, y] = [a.queuePair('rc'), b.queuePair('rc')]
    x.connect(y, 1)
    y.connect(x, 0)
    a.pages.bytes.fill(0xff, x.sendsAt, x.sendsAt + 64 * 64)
    x.ringSends(40)
    for (let i = 0; i < 50; i++) for (const device of m.devices) device.poll(m.time.now)
    const { LOCAL_WRITE } = AccessFlags.values
    assert.ok(a.firmware!.umemOf(a.pages.addressOf(0), 4096, LOCAL_WRITE).object)
    x.destroy()
    assert.equal(b.poll().length, 0)
  })
})
