/*
 * What an EFA device knows of its network: strangers that send packets, the port's state, what was sent again and why,
 * and why requests fail.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { addFailureHandler } from '../../../src/core/failures.ts'
import { emptyRequest } from '../../../src/drivers/efa/requests.ts'
import { Opcode, packetBytes, putHeaders } from '../../../src/drivers/efa/srd/packets.ts'
import type { CauseName } from '../../../src/spec/check/causes.ts'
import type { Failure } from '../../../src/spec/check/failures.ts'
import { EfaOperation } from '../../../src/spec/drivers/efa-queues.ts'
import { AsyncEventType, PhysState, PortState, QpState } from '../../../src/spec/enums.ts'
import { WcStatus } from '../../../src/spec/work.ts'
import { completionsOf } from '../machine.ts'
import { ipv4, type Machine, machine, type Program, program, QKEY } from './machine.ts'

const { SEND, RDMA_WRITE } = EfaOperation
const STRANGERS = 10_000

const stranger = (n: number): Uint8Array =>
  Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1 + (n >> 16), (n >> 8) & 0xff, n & 0xff])

/** A port that sends a packet of SRD from any address to the program's queue pair. */
const senderTo = (m: Machine, one: Program) => {
  const port = m.link.attach()
  return (address: Uint8Array, qpn: number): void => {
    port.addAddress?.(address)
    const path = {
      source: address,
      destination: ipv4(1),
      sourcePort: 4791,
      trafficClass: 0,
      hopLimit: 64,
      flowLabel: 0,
    }
    const flow = port.openFlow(path)
    const bytes = packetBytes(Opcode.SEND, 16)
    const at = port.reserve(bytes)
    const request = { ...emptyRequest(one.state), destQpn: qpn, qkey: QKEY, length: 16, message: 1 }
    putHeaders(port.arena.view, at, Opcode.SEND, request, 5, 0, 0, 16)
    port.commit(at, bytes, 1, bytes, flow)
    port.flush()
    m.devices[0]!.poll(m.time.now)
    port.closeFlow(flow)
    port.removeAddress?.(address)
  }
}

const hardware = (m: Machine, device = 0) => m.devices[device]!.counters!().hardware as Record<string, number>

describe('strangers', () => {
  it(`that have sent a packet each, ${STRANGERS} of them, do not keep a later one from being heard`, () => {
    const m = machine(1)
    const a = program(m, 0)
    const send = senderTo(m, a)
    // to a queue pair that does not exist, so that nothing is kept of them but their address
    for (let n = 0; n < STRANGERS; n++) send(stranger(n), 0x7777)
    assert.equal(hardware(m).rx_drops, 0)
    a.receive(1, 0, 64)
    send(ipv4(9), a.qpn)
    assert.equal(a.poll().length, 1)
  })
})

describe('the port', () => {
  it('follows its interface, with an event for each change of its state', () => {
    const m = machine(1)
    const { device, link } = m.devices[0]!
    const { PORT_ACTIVE, PORT_ERR } = AsyncEventType.values
    const { attributes } = device.ports[0]
    assert.ok(link !== undefined)
    assert.equal(link.setState({ isUp: true, hasCarrier: true }), undefined)
    assert.equal(link.setState({ isUp: true, hasCarrier: false }), PORT_ERR)
    assert.deepEqual([attributes.state, attributes.physState], [PortState.values.DOWN, PhysState.values.POLLING])
    assert.equal(link.setState({ isUp: true, hasCarrier: false }), undefined)
    assert.equal(link.setState({ isUp: true, hasCarrier: true, speed: 10_000 }), PORT_ACTIVE)
    assert.deepEqual([attributes.state, attributes.physState], [PortState.values.ACTIVE, PhysState.values.LINK_UP])
    // a fault takes the carrier, whatever the interface says
    assert.equal(link.setCarrier(false), PORT_ERR)
    assert.equal(link.setState({ isUp: true, hasCarrier: true }), undefined)
    assert.equal(attributes.state, PortState.values.DOWN)
    assert.equal(link.setCarrier(true), PORT_ACTIVE)
    link.moveTo('eth7', 7)
    assert.equal(link.identity.interfaceName, 'eth7')
    // the only GID is the device's address
    assert.equal(link.addAddress(ipv4(77), 'spare'), undefined)
    assert.equal(device.ports[0].gids.entries.filter(entry => entry !== undefined).length, 1)
  })
})

describe('packets that are sent again', () => {
  it('count as timeouts only if they were not acknowledged in time', () => {
    const m = machine(2, 'drop=0.02,seed=3')
    const [a, b] = [program(m, 0), program(m, 1)]
    const ah = a.handleOf(1)
    b.handleOf(0)
    const remote = { address: b.address, rkey: b.region.rkey }
    for (let id = 0; id < 40; id++)
      a.post({ id, operation: RDMA_WRITE, ah, qpn: b.qpn, offset: 0, length: 1 << 17, remote })
    completionsOf(m, a, 40)
    const { retrans_pkts: again = 0, retrans_timeout_events: timeouts = 0 } = hardware(m)
    assert.ok(again > timeouts, `${again} packets, ${timeouts} timeouts`)
  })
})

describe('a failure', () => {
  const start = (fault = '') => {
    const m = machine(2, fault)
    const failures: Failure[] = []
    addFailureHandler(m.core, failure => failures.push(failure))
    const [a, b] = [program(m, 0, { rnrRetry: 0 }), program(m, 1)]
    const [ah] = [a.handleOf(1), b.handleOf(0)]
    const send = { id: 9, operation: SEND as number, ah, qpn: b.qpn, offset: 0, length: 8 }
    const write = { ...send, operation: RDMA_WRITE as number, remote: { address: b.address, rkey: b.region.rkey } }
    return { m, a, b, failures, send, write }
  }
  type Start = ReturnType<typeof start>
  const cases: readonly (readonly [cause: CauseName, status: number, post: (s: Start) => void])[] = [
    ['BAD_OPCODE', WcStatus.values.LOC_QP_OP_ERR, ({ a, send }) => a.post({ ...send, operation: 6 })],
    ['NO_ADDRESS_HANDLE', WcStatus.values.LOC_QP_OP_ERR, ({ a, send }) => a.post({ ...send, ah: 999 })],
    ['SRD_LENGTH', WcStatus.values.LOC_LEN_ERR, ({ a, send }) => a.post({ ...send, length: 9000 })],
    ['SRD_NO_QUEUE_PAIR', WcStatus.values.REM_INV_RD_REQ_ERR, ({ a, send }) => a.post({ ...send, qpn: 4444 })],
    ['SRD_QKEY', WcStatus.values.REM_INV_RD_REQ_ERR, ({ a, send }) => a.post({ ...send, qkey: 4444 })],
    ['RNR_EXCEEDED', WcStatus.values.RNR_RETRY_EXC_ERR, ({ a, send }) => a.post(send)],
    [
      'RKEY_UNKNOWN',
      WcStatus.values.REM_ACCESS_ERR,
      ({ a, b, write }) => a.post({ ...write, remote: { address: b.address, rkey: 0x1234_5678 } }),
    ],
  ]
  for (const [cause, status, post] of cases)
    it(`of a send has its cause: ${cause}`, () => {
      const s = start()
      post(s)
      completionsOf(s.m, s.a, 1)
      const [failure] = s.failures
      assert.deepEqual(
        [failure?.kind, failure?.cause.id, failure?.status, failure?.qpn, failure?.wrId],
        ['send', cause, status, s.a.qpn, 9n],
      )
      const { qps } = s.m.devices[0]!.queues!.list(0, 1)
      assert.ok(qps[0]?.facts.lastError !== undefined)
    })

  it('of a receive has its cause, and flushed requests are one failure', () => {
    const { m, a, b, failures, send } = start()
    b.receive(5, 0, 4)
    for (let i = 0; i < 3; i++) b.receive(6 + i, 0, 64)
    a.post(send)
    completionsOf(m, a, 1)
    completionsOf(m, b, 1)
    b.modify({ state: QpState.values.ERR })
    const described = failures.map(({ kind, cause, qpn, count }) => [kind, cause.id, qpn, count])
    assert.deepEqual(described, [
      ['receive', 'RECEIVE_TOO_SHORT', b.qpn, undefined],
      ['send', 'NAK_INVALID_REQUEST', a.qpn, undefined],
      ['flush', 'MODIFIED', b.qpn, 3],
    ])
  })
})
