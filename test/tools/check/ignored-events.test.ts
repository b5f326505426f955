/*
 * Findings about programs that go on with what an event, or the end of a connection, has made invalid; and none for
 * those that have handled it.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Finding } from '../../../src/spec/check/finding.ts'
import type { CheckedCall } from '../../../src/spec/check/program-events.ts'
import { AsyncEventType, CmEventType, QpState } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { because } from '../../../src/spec/reason.ts'
import { WrOpcode } from '../../../src/spec/work.ts'
import { Checker } from '../../../src/tools/check/checker.ts'
import { workRequest } from './requests.ts'

const { RTR, RTS } = QpState.values
const { GID_CHANGE, DEVICE_FATAL } = AsyncEventType.values
const { DISCONNECTED, DEVICE_REMOVAL } = CmEventType.values
const SECOND = 1_000_000
const gidOf = (last: number): Uint8Array => new Uint8Array(16).fill(1).fill(last, 15)
/** A link-local GID of a MAC. */
const macGid = (last: number): Uint8Array =>
  Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0xff, 0xfe, 0, 0, last)

/** Two devices, 0 with GIDs 1 and 2, 1 with GID 3; index 0 of both is their MAC's. */
const scenario = (unread = 0) => {
  const found: Finding[] = []
  let now = 0
  let ids = 100
  const tables: (Uint8Array | undefined)[][] = [
    [macGid(1), gidOf(1), gidOf(2)],
    [macGid(2), gidOf(3)],
  ]
  const checker = new Checker(finding => found.push(finding), {
    now: () => now,
    deviceName: device => `rxe${device}`,
    deviceWithGid(gid) {
      const at = tables.findIndex(table => table.some(entry => entry?.every((byte, i) => byte === gid[i])))
      return at < 0 ? undefined : at
    },
    postStack: () => [],
    unreadEvents: () => unread,
  })
  for (const device of [0, 1]) checker.event({ event: 'gids', device: device, gids: tables[device]! })
  const call = (
    device: number,
    cls: string,
    method: string,
    id: number,
    { pid = 1, ...rest }: Partial<CheckedCall> & { readonly pid?: number } = {},
  ): void =>
    checker.event({
      event: 'called',
      time: now,
      device: `rxe${device}`,
      deviceNumber: device,
      context: device,
      program: { pid, command: 'client' },
      class: cls,
      method,
      object: { id, handle: id, class: { name: cls } },
      args: {},
      out: {},
      why: 'call',
      stack: [`${method} ${id}`],
      ...rest,
    })
  return {
    found,
    call,
    checker,
    wait(seconds: number) {
      now += seconds * SECOND
    },
    table(device: number, ...gids: (Uint8Array | undefined)[]) {
      tables[device] = gids
      checker.event({ event: 'portEvent', device, type: GID_CHANGE, gids })
    },
    send: (gid: Uint8Array, qp = 10) =>
      checker.requests.posted(
        workRequest({
          id: ids++,
          time: now,
          owner: qp,
          number: qp,
          opcode: WrOpcode.values.SEND,
          destQpn: 1,
          destination: { gid, qkey: 0 },
        }),
      ),
    attempt: (attempt: string, device = 0) =>
      checker.event({
        event: 'refusedAttempt',
        time: now,
        device: `rxe${device}`,
        deviceNumber: device,
        context: device,
        program: { pid: 1, command: 'client' },
        attempt,
        errno: Errno.EIO,
        reason: because`removed`,
        stack: [],
      }),
    told: () =>
      found
        .filter(({ id }) => id === 'event-ignored')
        .map(({ severity, text }) => `${severity}: ${text.split('0x').join('')}`),
  }
}
const address = (gid: Uint8Array, sgidIndex: number) => ({ args: { address: { dgid: gid, sgidIndex } } })

// ---- indices of the GID table ----

test('an index whose address has left, of a call that is refused, and what the program has not read', () => {
  const s = scenario(2)
  s.table(0, macGid(1), undefined, gidOf(2), gidOf(1))
  s.wait(1)
  s.call(0, 'ah', 'create', 5, { ...address(gidOf(3), 1), refused: { errno: Errno.ENODATA, reason: because`empty` } })
  assert.deepEqual(s.told(), [], 'the program may look again')
  s.checker.event({ event: 'contextEnds', context: 0, how: 'exit', pendingSends: undefined })
  assert.match(
    s.told()[0] ?? '',
    /^warning: ah names GID index 1, which is empty: the address .*1:101 left GID index 1 of rxe0 1.0 s before, and returned .* at GID index 3$/,
  )
  assert.match(s.found[0]?.details[0] ?? '', /^2 asynchronous events of its context were delivered and not read/)
  // So it is if the program has found it empty.
  const empty = { errno: Errno.ENODATA, reason: because`empty` }
  const told = scenario()
  told.table(0, macGid(1), undefined, gidOf(2), gidOf(1))
  told.call(0, 'port', 'queryGidEntry', 0, { args: { index: 1 }, refused: empty })
  told.call(0, 'ah', 'create', 5, { ...address(gidOf(3), 1), refused: empty })
  assert.equal(told.found[0]?.id, 'refused-call')
  assert.match(told.found[0].details[0] ?? '', /left GID index 1/)
  // An index that was always empty is only refused.
  s.call(0, 'ah', 'create', 5, { ...address(gidOf(3), 9), refused: { errno: Errno.ENODATA, reason: because`empty` } })
  assert.equal(s.found[1]?.id, 'refused-call')
})

test('an index that was refused once, and looked up again: nothing; refused again: found', () => {
  const empty = { errno: Errno.ENODATA, reason: because`empty` }
  for (const looks of [true, false]) {
    const s = scenario()
    s.call(0, 'port', 'queryGidEntry', 0, { args: { index: 1 } })
    s.table(0, macGid(1), undefined, gidOf(2), gidOf(1))
    s.call(0, 'ah', 'create', 5, { ...address(gidOf(3), 1), refused: empty })
    if (looks) s.call(0, 'port', 'queryGidEntry', 0, { args: { index: 3 } })
    s.call(0, 'ah', 'create', 5, { ...address(gidOf(3), looks ? 3 : 1), ...(!looks && { refused: empty }) })
    if (looks) s.checker.event({ event: 'contextEnds', context: 0, how: 'exit', pendingSends: undefined })
    assert.equal(s.told().length, looks ? 0 : 1)
  }
})

test('an index that was refused before the device was closed is a note: the program may open it again', () => {
  const s = scenario()
  s.table(0, macGid(1), undefined, gidOf(2), gidOf(1))
  s.call(0, 'ah', 'create', 5, { ...address(gidOf(3), 1), refused: { errno: Errno.ENODATA, reason: because`empty` } })
  s.checker.event({ event: 'contextEnds', context: 0, how: 'close', pendingSends: undefined })
  assert.match(s.told()[0] ?? '', /^note: /)
})

test('an index that rdma_cm has named, and one of a program that may read sysfs, are right', () => {
  for (const how of ['frame', 'attributes', 'sysfs'] as const) {
    const s = scenario()
    s.call(0, 'rc_qp', 'create', 10, { out: { qpNum: 10 } })
    s.call(0, 'cm_id', 'create', 2)
    const modify = (): void => {
      if (how === 'attributes') s.call(0, 'cm_id', 'initQpAttr', 2, { out: { address: { sgidIndex: 1 } } })
      const stack = how === 'frame' ? ['/usr/lib/librdmacm.so.1 rdma_connect'] : []
      s.call(0, 'rc_qp', 'modify', 10, { args: { state: RTR, destQpn: 9, ...address(gidOf(3), 1).args }, stack })
    }
    if (how !== 'sysfs') s.call(0, 'device', 'queryGidTable', 0)
    modify()
    s.table(0, macGid(1), gidOf(2), gidOf(1))
    modify()
    assert.deepEqual(s.told(), [], how)
  }
})

test('an index that another address has now, unless the program has looked it up since', () => {
  for (const looksUp of [undefined, 'queryGidEntry', 'queryGidTable'] as const) {
    const s = scenario()
    s.call(0, 'port', 'queryGidEntry', 0, { args: { index: 1 } })
    s.table(0, macGid(1), gidOf(2), gidOf(1))
    if (looksUp !== undefined)
      s.call(0, looksUp === 'queryGidEntry' ? 'port' : 'device', looksUp, 0, { args: { index: 1 } })
    s.call(0, 'ah', 'create', 5, address(gidOf(3), 1))
    assert.equal(s.told().length, looksUp === undefined ? 1 : 0, looksUp)
    if (looksUp === undefined)
      assert.match(
        s.told()[0]!,
        /^warning: AH 5 uses GID index 1, which is 101:.*:102 now: the address .* at GID index 2$/,
      )
    // Known from now on.
    s.call(0, 'ah', 'create', 6, address(gidOf(3), 1))
    assert.equal(s.told().length, looksUp === undefined ? 1 : 0)
  }
})

// ---- address handles ----

const handles: readonly {
  readonly what: string
  readonly change: (s: ReturnType<typeof scenario>) => void
  readonly expected: RegExp | undefined
}[] = [
  {
    what: 'the source address leaves',
    change: s => s.table(0, macGid(1), undefined, gidOf(2)),
    expected: /sends with AH 5 to 101:.*3, with a source address that is gone: the address .* and has not returned$/,
  },
  {
    what: 'the source address returns at another index',
    change: s => s.table(0, macGid(1), undefined, gidOf(2), gidOf(1)),
    expected: undefined,
  },
  {
    what: 'the peer moves to another device',
    change(s) {
      s.table(1, macGid(2))
      s.table(2, macGid(9), gidOf(3))
    },
    expected: /made before it moved: the address .* left GID index 1 of rxe1 .*, and is now GID index 1 of rxe2$/,
  },
  {
    what: 'the peer gets another MAC',
    change(s) {
      s.table(1)
      s.table(1, macGid(7))
      s.table(1, macGid(7), gidOf(3))
    },
    expected: /^note: .* made before rxe1 got another MAC 2.0 s before: adapters keep the MAC in the handle/,
  },
  {
    what: 'the address of the peer leaves',
    change: s => s.table(1, macGid(2)),
    expected: undefined,
  },
  {
    what: 'the source address of another handle leaves',
    change(s) {
      s.call(0, 'ah', 'create', 7, address(gidOf(3), 2))
      s.table(0, macGid(1), gidOf(1))
    },
    expected: undefined,
  },
  {
    what: 'the address of the peer leaves and returns',
    change(s) {
      s.table(1, macGid(2))
      s.table(1, macGid(2), gidOf(3))
    },
    expected: undefined,
  },
]
for (const { what, change, expected } of handles)
  test(`an address handle that is used for a second after ${what}: ${expected ? 'found' : 'nothing'}`, () => {
    const s = scenario()
    s.call(0, 'ud_qp', 'create', 10, { out: { qpNum: 10 } })
    s.call(0, 'ah', 'create', 5, address(gidOf(3), 1))
    s.send(gidOf(3))
    s.wait(1)
    change(s)
    for (let i = 0; i < 5; i++) s.send(gidOf(3))
    assert.deepEqual(s.told(), [], 'a service needs some time')
    s.wait(2)
    for (let i = 0; i < 5; i++) s.send(gidOf(3))
    assert.equal(s.told().length, expected === undefined ? 0 : 1)
    if (expected !== undefined) assert.match(s.told()[0]!, expected)
    // A new handle is right.
    s.call(0, 'ah', 'create', 6, address(gidOf(3), 2))
    s.wait(2)
    for (let i = 0; i < 5; i++) s.send(gidOf(3))
    assert.equal(s.told().length, expected === undefined ? 0 : 1)
  })

// ---- devices ----

test('the third call after the removal of a device; not those that clean up', () => {
  const s = scenario()
  s.checker.event({ event: 'deviceEvent', device: 0, type: DEVICE_FATAL })
  for (let i = 0; i < 9; i++) s.attempt('mr.create')
  assert.deepEqual(s.told(), [], 'threads need some time')
  s.wait(1)
  for (const attempt of ['rc_qp.destroy', 'cq.destroy', 'port.query', 'pd.create', 'pd.create']) s.attempt(attempt)
  for (let i = 0; i < 9; i++) {
    s.attempt('rc_qp.modify')
    s.attempt('ud_qp.detachMcast')
    s.attempt('pd.destroyAhs')
    s.attempt('CQ_DESTROY')
    s.attempt('DEALLOC_PD')
  }
  assert.deepEqual(s.told(), [])
  s.attempt('mr.create')
  s.attempt('mr.create')
  assert.deepEqual(s.told(), [
    'warning: mr.create on rxe0, which was removed 1.0 s before (DEVICE_FATAL): 3 calls were refused since then (EIO)',
  ])
  // The CQ could not be destroyed, so its channel cannot.
  s.call(0, 'comp_channel', 'destroy', 6, { refused: { errno: Errno.EBUSY, reason: because`in use` } })
  assert.equal(s.found.length, 1)
  s.checker.event({ event: 'deviceAdded', device: 0 })
  for (let i = 0; i < 9; i++) s.attempt('pd.create', 1)
  assert.equal(s.told().length, 1)
})

const refused = { errno: Errno.ENXIO, reason: because`the identifier's device was removed` }
for (const isRead of [false, true])
  test(`an identifier whose device is gone, DEVICE_REMOVAL ${isRead ? 'read' : 'unread'}`, () => {
    const s = scenario()
    s.call(0, 'cm_channel', 'create', 1)
    s.call(0, 'cm_id', 'create', 2)
    if (isRead) s.call(0, 'cm_channel', 'getEvent', 1, { out: { type: DEVICE_REMOVAL, status: 0, object: 2 } })
    for (const method of ['disconnect', 'destroy', 'query', 'connect', 'connect'])
      s.call(0, 'cm_id', method, 2, { refused })
    assert.deepEqual(s.told(), [])
    s.call(0, 'cm_id', 'connect', 2, { refused })
    assert.match(s.told()[0] ?? '', isRead ? /DEVICE_REMOVAL was read$/ : /DEVICE_REMOVAL was not read/)
  })

test('DISCONNECTED whose status nobody can have wanted: a warning if the peer stays connected, else a note', () => {
  for (const how of ['left', 'gone', 'told'] as const) {
    const isLeft = how === 'left'
    const s = scenario()
    s.call(0, 'cm_channel', 'create', 1)
    s.call(0, 'cm_id', 'create', 2)
    for (const [qp, device] of [
      [10, 0],
      [11, 1],
    ] as const) {
      s.call(device, 'rc_qp', 'create', qp, { out: { qpNum: qp } })
      const args = { state: RTS, destQpn: 21 - qp, address: { dgid: device === 0 ? gidOf(3) : gidOf(1), sgidIndex: 1 } }
      s.call(device, 'rc_qp', 'modify', qp, { args })
    }
    s.call(0, 'cm_id', 'disconnect', 2, { queuePair: 10 })
    if (how === 'gone') s.call(1, 'rc_qp', 'destroy', 11)
    const event = (status: number) =>
      s.call(0, 'cm_channel', 'getEvent', 1, { out: { type: DISCONNECTED, status: status >>> 0, object: 2 } })
    event(0)
    assert.deepEqual(s.told(), [])
    event(-Errno.ETIMEDOUT)
    if (how === 'told') s.call(1, 'rc_qp', 'destroy', 11)
    s.call(0, 'cm_id', 'destroy', 2)
    assert.match(
      s.told()[0] ?? '',
      isLeft
        ? /^warning: .*status ETIMEDOUT: no answer to DREQ, and QP b of .* is still connected/
        : /^note: .*no answer to DREQ$/,
    )
  }
})

// ---- queue pairs of earlier connections ----

/** Client and server connect; the client gives up and makes another queue pair. `order`: what happens then. */
const reconnect = (...order: readonly ('late' | 'right' | 'destroys' | 'answers')[]) => {
  const s = scenario()
  const make = (device: number, qp: number) =>
    s.call(device, 'rc_qp', 'create', qp, { out: { qpNum: qp }, pid: device + 1 })
  const connect = (device: number, qp: number, destQpn: number) =>
    s.call(device, 'rc_qp', 'modify', qp, {
      pid: device + 1,
      args: { state: RTR, destQpn, address: { dgid: device === 0 ? gidOf(3) : gidOf(1), sgidIndex: 1 } },
    })
  make(0, 10)
  make(1, 20)
  connect(1, 20, 10)
  s.call(0, 'rc_qp', 'destroy', 10)
  make(0, 11)
  for (const step of order)
    if (step === 'late') connect(0, 11, 20)
    else if (step === 'right') connect(0, 11, 21)
    else if (step === 'destroys') s.call(1, 'rc_qp', 'destroy', 20, { pid: 2 })
    else {
      make(1, 21)
      connect(1, 21, 11)
    }
  return s.told()
}

test('a reply to an earlier request configures the next queue pair, in any order of the two ends', () => {
  for (const order of [
    ['late', 'destroys', 'answers'],
    ['destroys', 'late', 'answers'],
    ['destroys', 'answers', 'late'],
    ['answers', 'late'],
  ] as const) {
    const [told] = reconnect(...order)
    assert.match(
      told ?? '',
      /^error: QP b is connected to QP 14 of process 2 .*, of the connection with QP a, which was destroyed .*; the peer has connected QP 15 to it$/,
      order.join(),
    )
  }
})

test('a new connection is none, nor is a queue pair that is connected again', () => {
  assert.deepEqual(reconnect('destroys', 'answers', 'right'), [])
  assert.deepEqual(reconnect('answers', 'right', 'destroys'), [])
  // The server may still connect its old queue pair to the new one.
  assert.deepEqual(reconnect('late'), [])
})
