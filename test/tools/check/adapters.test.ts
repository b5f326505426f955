/*
 * Findings about limits and missing operations of other adapters (`--like`).
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { AdapterName } from '../../../src/spec/check/adapters.ts'
import type { Finding } from '../../../src/spec/check/finding.ts'
import type { CheckedCall, ObjectName } from '../../../src/spec/check/program-events.ts'
import type { WorkRequest } from '../../../src/spec/check/requests.ts'
import { AccessFlags, MrKind } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { because } from '../../../src/spec/reason.ts'
import { PostQueue } from '../../../src/spec/session.ts'
import { SendFlags, WrOpcode } from '../../../src/spec/work.ts'
import { Checker } from '../../../src/tools/check/checker.ts'

const { ATOMIC_FETCH_AND_ADD, FLUSH, SEND } = WrOpcode.values
const { REMOTE_ATOMIC, FLUSH_GLOBAL } = AccessFlags.values
const PAGE = 4096
const GID = Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)

const scenario = (...adapters: AdapterName[]) => {
  const found: Finding[] = []
  const sources = {
    now: () => 0,
    deviceName: () => 'rxe0',
    deviceWithGid: () => undefined,
    postStack: () => ['post'],
    adapters,
    lockLimit: () => 4 * PAGE,
  }
  const checker = new Checker(finding => found.push(finding), sources)
  let ids = 0
  const call = (changes: Partial<CheckedCall> & Pick<CheckedCall, 'class' | 'method' | 'object'>): void =>
    checker.event({
      event: 'called',
      time: 0,
      device: 'rxe0',
      deviceNumber: 0,
      context: 0,
      program: { pid: 1, command: 'client' },
      args: {},
      out: {},
      why: 'call',
      stack: [`${changes.class}.${changes.method}`],
      ...changes,
    })
  const create = (name: string, args: Record<string, unknown> = {}, changes: Partial<CheckedCall> = {}): ObjectName => {
    const object = { id: ids++, handle: ids, class: { name } }
    const out = name.endsWith('_qp') ? { qpNum: ids } : {}
    call({ class: name, method: 'create', object, args, out, ...changes })
    return object
  }
  const modify = (object: ObjectName, args: Record<string, unknown>): void =>
    call({ class: object.class.name, method: 'modify', object, args })
  const destroy = (object: ObjectName): void => call({ class: object.class.name, method: 'destroy', object })
  const post = (
    { id: owner, handle: number }: ObjectName,
    opcode: number,
    length = 8,
    queue = PostQueue.SEND as number,
    changes: Partial<WorkRequest> = {},
  ) => {
    const request: WorkRequest = {
      ...{ id: 0, time: 0, owner, queue, number, index: 0, wrId: 5n, opcode, flags: 0 },
      ...{ isSignaled: true, length, elements: [], remote: undefined, destQpn: undefined },
      destination: undefined,
      ...changes,
    }
    checker.requests.posted(request)
  }
  /** Findings since the last `take`, without text in parentheses. */
  const take = (): string[] => found.splice(0).map(({ id, text }) => `${id}: ${text.replace(/ \(.*?\)/g, '')}`)
  return { checker, take, found, create, modify, destroy, call, post }
}

const limit = (text: string): string => `adapter-limit: ${text}`
const lacks = (text: string): string => `adapter-operation: ${text}`

test('a message that is longer than an adapter allows is found, a receive of that length is not', () => {
  const { take, found, create, post } = scenario('mlx5', 'irdma')
  const qp = create('rc_qp')
  post(qp, SEND, 2 ** 30)
  post(qp, -1, 2 ** 31, PostQueue.RECEIVE)
  assert.deepEqual(take(), [])
  post(qp, SEND, 2 ** 30 + 1)
  assert.equal(found[0]?.moments[0]?.action, 'posted')
  assert.deepEqual(take(), [limit('max_msg_sz 1073741825 exceeds 1073741824 of mlx5')])
  post(qp, WrOpcode.values.RDMA_READ, 2 ** 31)
  assert.deepEqual(take().sort(), [limit('max_msg_sz 2147483648 exceeds 2147483647 of irdma')])
})

test('a limit may concern only some types of queue pair', () => {
  const { take, create } = scenario('mlx5', 'efa')
  create('ud_qp', { cap: { maxInlineData: 900, maxSendWr: 4097, maxRecvWr: 8193 } })
  create('uc_qp', { cap: { maxInlineData: 829 } })
  assert.deepEqual(
    take().filter(text => text.startsWith('adapter-limit')),
    [
      limit('max_send_wr 4097 exceeds 4096 of efa'),
      limit('max_inline_data 900 exceeds 32 of efa'),
      limit('max_recv_wr 8193 exceeds 8192 of efa'),
      limit('max_inline_data 829 exceeds 828 of mlx5'),
      limit('max_inline_data 829 exceeds 32 of efa'),
    ],
  )
})

test('the receive capacity of a queue pair without a receive queue of its own is not compared', () => {
  const { take, create } = scenario('mlx5')
  const srq = create('srq', { maxWr: 10, maxSge: 1 })
  create('rc_qp', { cap: { maxRecvWr: 100000, maxRecvSge: 31 }, srq })
  create('xrc_ini_qp', { cap: { maxRecvWr: 100000, maxRecvSge: 31 } })
  assert.deepEqual(take(), [])
})

test('sizes of CQs and regions, and max_rd_atomic, above a limit are found', () => {
  const { take, create, modify } = scenario('mlx5', 'irdma')
  const cq = create('cq', { cqe: 1048575 })
  assert.deepEqual(take(), [limit('max_cqe 1048575 exceeds 1048574 of irdma')])
  modify(cq, { cqe: 4194304 })
  assert.deepEqual(take(), [
    limit('max_cqe 4194304 exceeds 4194303 of mlx5'),
    limit('max_cqe 4194304 exceeds 1048574 of irdma'),
  ])
  const qp = create('rc_qp')
  modify(qp, { maxRdAtomic: 17, maxDestRdAtomic: 128 })
  assert.deepEqual(take(), [
    limit('max_rd_atomic 17 exceeds 16 of mlx5'),
    limit('max_dest_rd_atomic 128 exceeds 16 of mlx5'),
    limit('max_dest_rd_atomic 128 exceeds 127 of irdma'),
  ])
  const maxMrSize = 2n ** 45n
  const tooLarge = limit(`max_mr_size ${maxMrSize + 1n} exceeds ${maxMrSize} of irdma`)
  create('mr', { start: 0n, length: maxMrSize + 1n, kind: MrKind.values.IMPLICIT })
  assert.deepEqual(take(), [tooLarge])
  const mr = create('mr', { start: 0n, length: 1n })
  modify(mr, { translation: { start: 0n, length: maxMrSize + 1n, iova: 0n } })
  assert.deepEqual(
    take().filter(text => text.startsWith('adapter-limit')),
    [tooLarge],
  )
})

test('missing operations, queue pair types and access rights of an adapter are found', () => {
  const { take, create, modify, call, post } = scenario('efa', 'irdma')
  const qp = create('rc_qp')
  assert.deepEqual(take(), [lacks('efa lacks reliable connections')])
  create('uc_qp')
  assert.deepEqual(take(), [lacks('efa lacks unreliable connections'), lacks('irdma lacks unreliable connections')])
  post(qp, SEND)
  assert.deepEqual(take(), [])
  post(qp, ATOMIC_FETCH_AND_ADD)
  assert.deepEqual(take(), [lacks('irdma lacks atomic operations')])
  post(qp, FLUSH)
  assert.equal(take().length, 2)
  create('mr', { length: 8n, access: REMOTE_ATOMIC | FLUSH_GLOBAL })
  assert.deepEqual(
    take().map(text => text.split(' ').slice(0, 5).join(' ')),
    [
      'adapter-operation: efa lacks regions with',
      'adapter-operation: efa lacks FLUSH, and',
      'adapter-operation: irdma lacks FLUSH, and',
    ],
  )
  const srq = create('srq', { maxWr: 10, maxSge: 1 })
  modify(srq, { limit: 5 })
  assert.deepEqual(take(), [lacks('efa lacks shared receive queues'), lacks('irdma lacks shared receive queues')])
  modify(create('cq', { cqe: 1 }), { cqe: 10 })
  assert.deepEqual(take(), [lacks('efa lacks resizing of completion queues')])
  const ud = create('ud_qp')
  call({ class: 'ud_qp', method: 'attachMcast', object: ud, args: { gid: new Uint8Array(16) } })
  assert.deepEqual(take(), [lacks('efa lacks multicast')])
})

test('flags of sends, and on-demand regions, that an adapter refuses are found on any device', () => {
  const { take, create, post } = scenario('efa', 'irdma', 'rxe', 'mlx5')
  const qp = create('rc_qp')
  take()
  const send = (changes: Partial<WorkRequest>): string[] => {
    post(qp, SEND, 8, PostQueue.SEND, changes)
    return take()
  }
  assert.deepEqual(send({}), [])
  assert.deepEqual(send({ isSignaled: false }), [
    lacks('efa lacks sends without a completion: IBV_SEND_SIGNALED, or sq_sig_all, is needed'),
  ])
  const { FENCE, SOLICITED } = SendFlags.values
  assert.deepEqual(send({ flags: FENCE }), [lacks('efa lacks IBV_SEND_FENCE')])
  assert.deepEqual(send({ flags: SOLICITED }), [lacks('efa lacks IBV_SEND_SOLICITED')])
  post(qp, -1, 8, PostQueue.RECEIVE, { isSignaled: false, elements: [{ address: 0, length: 8, lkey: 1 }] })
  assert.deepEqual(take(), [])
  post(qp, -1, 0, PostQueue.RECEIVE, { isSignaled: false, elements: [] })
  assert.deepEqual(take(), [lacks('efa lacks receives without elements')])
  create('mr', { length: 8n, access: AccessFlags.values.ON_DEMAND })
  assert.deepEqual(
    take(),
    ['efa', 'irdma', 'rxe'].map(name => lacks(`${name} lacks on-demand paging`)),
  )
})

test('mlx5 lacks resizing of shared receive queues', () => {
  const { take, create, modify } = scenario('mlx5')
  modify(create('srq', { maxWr: 10, maxSge: 1 }), { maxWr: 20 })
  assert.deepEqual(take(), [lacks('mlx5 lacks resizing of shared receive queues')])
})

test('paths of RoCE that InfiniBand lacks are found, unless rdma_cm has found them', () => {
  const { take, create, call, checker } = scenario('infiniband')
  const connect = (sgidIndex: number, stack = ['main']): string[] => {
    const object = create('rc_qp')
    call({ class: 'rc_qp', method: 'modify', object, args: { state: 2, address: { dgid: GID, sgidIndex } }, stack })
    return take()
  }
  const noLid = lacks(
    'infiniband lacks paths by a GID alone: the program has not asked for the LID of its port, so its peer cannot have it',
  )
  const asks = (stack: string[]): void =>
    call({ class: 'port', method: 'query', object: undefined as unknown as ObjectName, stack })
  assert.deepEqual(connect(0), [noLid])
  asks(['/usr/lib/libmlx5.so.1+0x12'])
  assert.deepEqual(connect(0, ['/usr/lib/librdmacm.so.1+0x12']), [])
  assert.deepEqual(connect(1, ['other']), [limit('sgid_index 1 exceeds 0 of infiniband'), noLid])
  asks(['main'])
  assert.deepEqual(connect(0), [])
  checker.event({ event: 'contextEnds', context: 0, how: 'close', pendingSends: new Map() })
  assert.deepEqual(connect(0, ['again']), [noLid])
})

test('paths, partition keys and addresses of InfiniBand that RoCE lacks are found', () => {
  const { take, create, call, modify, post } = scenario('roce')
  const qp = create('rc_qp')
  modify(qp, { ibAddress: { dgid: GID, dlid: 3, isGlobal: 1, sgidIndex: 0 } })
  assert.deepEqual(take(), [])
  modify(qp, { ibAddress: { dgid: GID, dlid: 3, isGlobal: 0, sgidIndex: 0 }, pkeyIndex: 1 })
  assert.deepEqual(take(), [lacks('roce lacks paths by a LID alone'), limit('pkey_index 1 exceeds 0 of roce')])
  const ud = create('ud_qp')
  post(ud, SEND, 8, PostQueue.SEND, { destination: { gid: GID, qkey: 1 } })
  assert.deepEqual(take(), [])
  post(ud, SEND, 8, PostQueue.SEND, { destination: { gid: GID, qkey: 1, hasNoGrh: true } })
  assert.deepEqual(take(), [lacks('roce lacks paths by a LID alone')])
  const object = create('cm_id')
  const destination = Uint8Array.of(27, 0)
  call({ class: 'cm_id', method: 'resolveAddress', object, args: { destination } })
  assert.deepEqual(take(), [lacks('roce lacks addresses of rdma_cm that are GIDs')])
})

test('registered memory is found each time its sum passes RLIMIT_MEMLOCK', () => {
  const { checker, take, create, destroy, modify } = scenario('mlx5', 'efa')
  const memlock = (pages: number) =>
    `adapter-memlock: ${pages * PAGE} bytes are registered, more than RLIMIT_MEMLOCK, 16384: mlx5, efa would refuse this without CAP_IPC_LOCK`
  // Whole pages count.
  const one = create('mr', { start: 4095n, length: 2n })
  const two = create('mr', { start: 0n, length: 8192n })
  assert.deepEqual(take(), [])
  const three = create('mr', { start: 0n, length: 1n })
  assert.deepEqual(take(), [memlock(2 + 2 + 1)])
  // The sum has passed the limit already.
  create('mr', { start: 0n, length: 1n })
  assert.deepEqual(checker.counts, [1])
  for (const region of [one, two, three]) destroy(region)
  modify(create('mr', { start: 0n, length: 1n }), { translation: { start: 0n, length: BigInt(25 * PAGE) } })
  assert.deepEqual(take(), [memlock(1 + 25)])
})

test('refused calls, and calls without --like, are not compared', () => {
  const refused = { errno: Errno.ENOMEM, reason: because`too much` }
  const withAdapters = scenario('mlx5')
  withAdapters.create('rc_qp', { cap: { maxSendWr: 40000 } }, { refused })
  assert.deepEqual(withAdapters.take(), [])
  const withoutAdapters = scenario()
  withoutAdapters.create('rc_qp', { cap: { maxSendWr: 40000 } })
  withoutAdapters.create('mr', { start: 0n, length: 1000000n })
  assert.deepEqual(withoutAdapters.take(), [])
})
