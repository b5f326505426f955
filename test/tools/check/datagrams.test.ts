/*
 * Findings about datagrams that the receiver drops. The checker looks at the receiver when the device fetches the send.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createCause } from '../../../src/spec/check/causes.ts'
import type { Finding } from '../../../src/spec/check/finding.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { PostQueue } from '../../../src/spec/session.ts'
import { MULTICAST_QPN } from '../../../src/spec/wire/headers.ts'
import { GSI_QPN } from '../../../src/spec/wire/mad.ts'
import { WrOpcode } from '../../../src/spec/work.ts'
import { Checker } from '../../../src/tools/check/checker.ts'
import { type CheckerSources, noSources } from '../../../src/tools/check/detector.ts'

const { INIT, RTR, RTS, ERR } = QpState.values
const GID = new Uint8Array(16).fill(7)
const QKEY = 0x1111

interface Receiver {
  readonly class?: string
  readonly state?: number
  readonly isDestroyed?: boolean
  /** QP 0x22 reports that it has dropped the datagram for its Q_Key. */
  readonly reportsDrop?: boolean
}

/** Findings when QP 0x11 sends to QP `destQpn`. Without `receiver`, QP 0x22 does not exist. */
const findingsOf = (
  receiver: Receiver | undefined,
  qkey: number,
  gid = GID,
  destQpn = 0x22,
  sources: Pick<CheckerSources, 'isClosed' | 'hasMember'> = {},
  sender = 'ud_qp',
  waits = false,
) => {
  const findings: Finding[] = []
  const checker = new Checker(finding => findings.push(finding), {
    ...noSources,
    deviceWithGid: wanted => (wanted[0] === GID[0] ? 0 : undefined),
    ...sources,
  })
  const call = (id: number, name: string, method: string, args: object, out: object = {}): void =>
    checker.event({
      event: 'called',
      ...{ time: 0, device: 'rxe0', deviceNumber: 0, context: 0, program: undefined, class: name, method, why: 'call' },
      object: { id, handle: id, class: { name } },
      args: args as Record<string, unknown>,
      out: out as Record<string, unknown>,
      stack: [],
    })
  const create = (id: number, name: string, qpNum: number): void => {
    call(id, name, 'create', { cap: { maxSendWr: 1, maxRecvWr: 1 } }, { qpNum })
    call(id, name, 'modify', { state: INIT, qkey: QKEY })
  }
  create(1, sender, 0x11)
  if (receiver !== undefined) {
    const { class: name = 'ud_qp', state = RTR, isDestroyed = false } = receiver
    create(2, name, 0x22)
    call(2, name, 'modify', { state })
    if (isDestroyed) call(2, name, 'destroy', {})
  }
  checker.requests.posted({
    ...{ id: 1, time: 0, owner: 1, queue: PostQueue.SEND, number: 0x11, index: 0, wrId: 5n, flags: 0, length: 8 },
    opcode: WrOpcode.values.SEND,
    isSignaled: true,
    elements: [],
    remote: undefined,
    destQpn,
    destination: { gid, qkey },
  })
  if (receiver?.reportsDrop === true) {
    const cause = createCause('QKEY_DIFFERS', { sourceQpn: 0x11, packetQkey: qkey, qkey: QKEY })
    checker.event({
      event: 'failed',
      ...{ time: 0, deviceNumber: 0, context: 0, program: undefined, peerDevice: undefined, postStack: () => [] },
      failure: { kind: 'drop', device: 'rxe0', qpn: 0x22, cause, count: 1 },
    })
  }
  if (waits) {
    const at = { time: 1, device: 'rxe0', deviceNumber: 0, context: 0, program: undefined, stack: [] }
    checker.event({ event: 'waits', ...at, wait: { id: 'idle-queues', text: 'it waits' } })
    return findings.filter(({ id }) => id === 'idle-queues').map(({ text }) => text)
  }
  return findings.map(({ id, severity }) => `${id} ${severity}`)
}

test('a wait is told with the datagrams that no device got; with others it is not', () => {
  const nowhere = new Uint8Array(16).fill(8)
  const told = (gid: typeof GID) => findingsOf({}, QKEY, gid, 0x22, { isClosed: true }, 'ud_qp', true)
  assert.match(told(nowhere)[0] ?? '', /^it waits: 1 message of QP 0x11 to .* was dropped: no device has this GID$/)
  assert.deepEqual(told(GID), ['it waits'])
})

test('a datagram to a receiver that accepts it is no finding', () => {
  assert.deepEqual(findingsOf({}, QKEY), [])
  assert.deepEqual(findingsOf({ state: RTS }, 0x8000_0000), [], 'bit 31 selects the Q_Key of the sending queue pair')
  assert.deepEqual(findingsOf(undefined, QKEY, new Uint8Array(16)), [], 'to a device of another machine')
  assert.deepEqual(findingsOf(undefined, QKEY, GID, GSI_QPN), [], 'QP 1 is no queue pair of a program')
})

test('a datagram that the receiver drops is a finding, with its reason', () => {
  assert.deepEqual(findingsOf({}, QKEY + 1), ['key-mismatch error'])
  assert.deepEqual(findingsOf(undefined, QKEY), ['no-peer-qp error'])
  assert.deepEqual(findingsOf({ isDestroyed: true }, QKEY), ['no-peer-qp warning'])
  assert.deepEqual(findingsOf({ class: 'rc_qp' }, QKEY), ['service-mismatch error'])
  assert.deepEqual(findingsOf({ state: INIT }, QKEY), ['peer-not-ready warning'])
  assert.deepEqual(findingsOf({ state: ERR }, QKEY), ['peer-in-error warning'])
})

test('a message of SRD to a queue pair of SRD is no finding', () => {
  const sent = (receiver: Receiver, qkey: number) => findingsOf(receiver, qkey, GID, 0x22, {}, 'driver_qp')
  assert.deepEqual(sent({ class: 'driver_qp' }, QKEY), [])
  assert.deepEqual(sent({ class: 'ud_qp' }, QKEY), ['service-mismatch error'])
  assert.deepEqual(sent({ class: 'driver_qp' }, QKEY + 1), ['key-mismatch error'])
  assert.deepEqual(sent({ class: 'driver_qp' }, 0x8000_0000), ['key-mismatch error'], 'EFA sends the Q_Key as it is')
})

test('a wrong Q_Key is one finding: of the send, or of the drop if the send went to a multicast group', () => {
  assert.deepEqual(findingsOf({ reportsDrop: true }, QKEY + 1), ['key-mismatch error'])
  assert.deepEqual(findingsOf({ reportsDrop: true }, QKEY + 1, GID, MULTICAST_QPN), ['key-mismatch error'])
})

test('a datagram to a GID that no device has, or to a group without member, is dropped if packets leave no process', () => {
  const nowhere = new Uint8Array(16).fill(8)
  const group = new Uint8Array(16).fill(0xff)
  for (const [gid, isClosed, member, count] of [
    [nowhere, true, true, 1],
    [group, true, false, 1],
    [nowhere, false, false, 0],
    [group, false, false, 0],
    [group, true, true, 0],
    [group, true, undefined, 0],
  ] as const)
    assert.deepEqual(
      findingsOf({}, QKEY, gid, MULTICAST_QPN, { isClosed, hasMember: () => member }),
      new Array(count).fill('message-dropped note'),
    )
})
