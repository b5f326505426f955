/*
 * Failure reports of two soft devices.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { addFailureHandler } from '../../../src/core/failures.ts'
import { invokeNow } from '../../../src/core/index.ts'
import { causes, createCause } from '../../../src/spec/check/causes.ts'
import { type Failure, failureJson, failureText, isNote } from '../../../src/spec/check/failures.ts'
import { Mr } from '../../../src/spec/classes/mr.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { AccessFlags } from '../../../src/spec/enums.ts'
import { connectQps, modify, Qps, register, toInit } from '../rxe/machine.ts'
import { makeEnd, pair, REGION_BYTES, sgeOf } from '../rxe/pair.ts'
import { pollAll, postReceive, postSend, Wr } from '../rxe/provider.ts'

const hex = (value: number | bigint): string => `0x${value.toString(16)}`
const { LOCAL_WRITE } = AccessFlags.values
/** No region has this lkey or rkey. */
const UNKNOWN_KEY = 5

/** `records` has all failure records; `errors` returns the texts of records that are not notes. */
const recordedPair = (...args: Parameters<typeof pair>) => {
  const p = pair(...args)
  const records: Failure[] = []
  addFailureHandler(p.m.core, failure => records.push(failure))
  const errors = (): string[] => records.filter(failure => !isNote(failure)).map(failureText)
  const tickUntilFailed = (): void => {
    p.m.settle()
    for (let ticks = 0; ticks < 100 && errors().length === 0; ticks++) p.m.tick()
  }
  return { ...p, records, errors, tickUntilFailed }
}

describe('a WRITE that the peer refuses', () => {
  it('names the deregistered key in the reports of both sides, and is the last failure of both queue pairs', () => {
    const { m, a, b, records, errors } = recordedPair()
    invokeNow(b.p.context, Mr, 'destroy', b.mr.handle, {}, b.p.caller)
    const remote = b.mr.address
    postSend(a.qp.send, { opcode: Wr.WRITE, id: 100n, sges: [sgeOf(a.mr, 0, 64)], remote, rkey: b.mr.rkey })
    m.settle()
    const [qa, qb, key] = [a.qp.qpn, b.qp.qpn, b.mr.rkey].map(hex)
    const cause = `rkey ${key} was deregistered (it was [${hex(remote)}, ${hex(remote + REGION_BYTES)}))`
    assert.deepEqual(
      errors().sort(),
      [
        `QP ${qa} WRITE wr_id 100: REM_ACCESS_ERR: peer QP ${qb}: ${cause}`,
        `QP ${qb} event QP_ACCESS_ERR: ${cause}`,
      ].sort(),
    )
    const { code } = causes.RKEY_DEREGISTERED
    assert.equal(pollAll(a.cq.ring)[0].vendor, code)
    const [lastOfA, lastOfB] = m.devices.map(({ device: { state } }, side) => {
      const row = state.qpns.rowOf([a, b][side].qp.qpn)
      return state.failures.last(row)
    })
    assert.deepEqual([lastOfA?.cause.id, lastOfB?.kind], ['RKEY_DEREGISTERED', 'event'])
    const json = failureJson(records.find(({ kind }) => kind === 'send') as Failure)
    assert.deepEqual(
      [json.status, json.opcode, json.wrId, json.vendorErr, json.device, json.args.rangeStart],
      ['REM_ACCESS_ERR', 'WRITE', '100', code, 'rxe0', hex(remote)],
    )
  })
  it('reports the requested and the registered range', () => {
    const { m, a, b, errors } = recordedPair()
    const remote = b.mr.address + REGION_BYTES - 6
    postSend(a.qp.send, { opcode: Wr.WRITE, id: 1n, sges: [sgeOf(a.mr, 0, 64)], remote, rkey: b.mr.rkey })
    m.settle()
    const ranges = `[${hex(remote)}, ${hex(remote + 64)}) is outside [${hex(b.mr.address)}, ${hex(b.mr.address + REGION_BYTES)})`
    assert.ok(errors()[0].endsWith(`rkey ${hex(b.mr.rkey)}: ${ranges}`), errors()[0])
  })
  it('reports the right that the region lacks', () => {
    const { m, a, b, errors } = recordedPair()
    const region = register(b.p, 4096, LOCAL_WRITE)
    postSend(a.qp.send, { opcode: Wr.WRITE, sges: [sgeOf(a.mr, 0, 64)], remote: region.address, rkey: region.lkey })
    m.settle()
    assert.ok(errors()[0].endsWith(`rkey ${hex(region.lkey)} has no REMOTE_WRITE`), errors()[0])
  })
})

it('a receive buffer that is too short is reported by both sides', () => {
  const { m, a, b, errors } = recordedPair()
  postReceive(b.qp.receive, 7n, [sgeOf(b.mr, 0, 10)])
  postSend(a.qp.send, { opcode: Wr.SEND, id: 2n, sges: [sgeOf(a.mr, 0, 64)] })
  m.settle()
  const cause = 'the receive buffer of 10 bytes is too short for a message of 64 bytes or more'
  assert.deepEqual(errors(), [
    `QP ${hex(b.qp.qpn)} receive wr_id 7: LOC_LEN_ERR: ${cause}`,
    `QP ${hex(a.qp.qpn)} SEND wr_id 2: REM_INV_REQ_ERR: peer QP ${hex(b.qp.qpn)}: ${cause}`,
  ])
})

describe('the report of a SEND that the peer cannot receive', () => {
  /** The first error of a SEND by `a`, from the status on. */
  const errorAfter = (prepare: (p: ReturnType<typeof recordedPair>) => void): string => {
    const p = recordedPair()
    prepare(p)
    postSend(p.a.qp.send, { opcode: Wr.SEND, id: 1n, sges: [sgeOf(p.a.mr, 0, 8)] })
    p.tickUntilFailed()
    const [first] = p.errors()
    return first.replace(/^.*?: /, '')
  }
  it('says that the peer does not exist, or is in RESET or INIT', () => {
    const missing = errorAfter(({ b }) => invokeNow(b.p.context, RcQp, 'destroy', b.qp.handle, {}, b.p.caller))
    assert.match(missing, /^RETRY_EXC_ERR: no answer: sent 8 times, retry_cnt is 7; there is no QP 0x\w+ at 127.0.0.2$/)
    const reset = errorAfter(({ b }) => modify(b.qp, { state: Qps.RESET }))
    assert.match(reset, /retry_cnt is 7; peer QP 0x\w+ at 127.0.0.2 is in RESET$/)
    const init = errorAfter(({ b }) => {
      modify(b.qp, { state: Qps.RESET })
      modify(b.qp, toInit())
    })
    assert.match(init, /; peer QP 0x\w+ at 127.0.0.2 is in INIT$/)
  })
  it('says that no receive is posted', () => {
    const text = errorAfter(({ a, b }) => {
      for (const { qp } of [a, b]) modify(qp, { state: Qps.RESET })
      connectQps(a.qp, b.qp, {}, { rnrRetry: 3 })
    })
    assert.match(
      text,
      /^RNR_RETRY_EXC_ERR: the peer has no receive posted: RNR NAK 4 times, rnr_retry is 3; peer QP 0x\w+ at 127.0.0.2 is in RTS$/,
    )
  })
})

it('drops of one cause are reported with their count at 1, 2, 4 … drops', () => {
  const { m, a, b, records } = recordedPair()
  const row = m.devices[1].device.state.qpns.rowOf(b.qp.qpn)
  for (let i = 0; i < 9; i++) m.devices[1].device.state.failures.dropped(row, createCause('NO_RECEIVE', {}), undefined)
  assert.deepEqual(
    records.map(({ kind, count, peer }) => [kind, count, peer?.qpn]),
    [1, 2, 4, 8].map(count => ['drop', count, a.qp.qpn]),
  )
  assert.equal(m.devices[1].device.state.failures.last(row), undefined, 'a drop is no failure of the queue pair')
})

it('a completion for a full CQ raises events for CQ and queue pair, and all reports name the CQ', () => {
  const { m, errors } = recordedPair()
  const smallCqe = 1
  const [a, b] = [makeEnd(m, 0, smallCqe), makeEnd(m, 1)]
  connectQps(a.qp, b.qp)
  postReceive(a.qp.receive, 7n, [sgeOf(a.mr, 0, 10)])
  for (let i = 0; i <= a.cq.cqe; i++) {
    const remote = b.mr.address
    postSend(a.qp.send, { opcode: Wr.WRITE, id: 1n, sges: [sgeOf(a.mr, 0, 8)], remote, rkey: b.mr.rkey })
  }
  m.settle()
  const full = `CQ ${a.cq.handle} of ${a.cq.cqe} is full`
  assert.deepEqual(errors(), [
    `event CQ_ERR: ${full}; a completion was lost`,
    `QP ${hex(a.qp.qpn)} event QP_FATAL: ${full}`,
    `QP ${hex(a.qp.qpn)} 1 receive request flushed: WR_FLUSH_ERR: ${full}`,
  ])
})

describe('flushed requests', () => {
  it('name the failure that moved the queue pair to ERR', () => {
    const { m, a, records } = recordedPair()
    postReceive(a.qp.receive, 7n, [sgeOf(a.mr, 0, 10)])
    postSend(a.qp.send, { opcode: Wr.SEND, id: 1n, sges: [{ address: a.mr.address, length: 8, lkey: UNKNOWN_KEY }] })
    postSend(a.qp.send, { opcode: Wr.SEND, id: 2n, sges: [sgeOf(a.mr, 0, 8)] })
    m.settle()
    const failed = `QP ${hex(a.qp.qpn)} SEND wr_id 1: LOC_PROT_ERR: lkey ${hex(UNKNOWN_KEY)} is unknown: it was never registered, or was deregistered long ago`
    const cause = `the queue pair moved to ERR after an error (${failed})`
    assert.deepEqual(records.map(failureText), [
      failed,
      `QP ${hex(a.qp.qpn)} 1 send request flushed: WR_FLUSH_ERR: ${cause}`,
      `QP ${hex(a.qp.qpn)} 1 receive request flushed: WR_FLUSH_ERR: ${cause}`,
    ])
    modify(a.qp, { state: Qps.RESET })
    modify(a.qp, { state: Qps.ERR })
    postSend(a.qp.send, { opcode: Wr.SEND, id: 3n })
    m.settle()
    assert.match(
      failureText(records.at(-1) as Failure),
      /1 send request flushed: .* the program has moved the queue pair to ERR, or its connection has ended$/,
    )
  })

  it('after a RESET name no failure before it', () => {
    const { m, a, b, records } = recordedPair()
    postSend(a.qp.send, { opcode: Wr.SEND, id: 1n, sges: [{ address: a.mr.address, length: 8, lkey: UNKNOWN_KEY }] })
    m.settle()
    const { failures, qpns } = m.devices[0].device.state
    const row = qpns.rowOf(a.qp.qpn)
    assert.equal(failures.last(row)?.wrId, 1n)
    for (const { qp } of [a, b]) modify(qp, { state: Qps.RESET })
    assert.equal(failures.last(row), undefined)
    connectQps(a.qp, b.qp)
    postReceive(a.qp.receive, 7n, [sgeOf(a.mr, 0, 10)])
    postSend(b.qp.send, { opcode: Wr.WRITE, sges: [sgeOf(b.mr, 0, 8)], remote: a.mr.address, rkey: UNKNOWN_KEY })
    m.settle()
    const flushed = records.find(({ kind }) => kind === 'flush')
    assert.deepEqual([flushed?.queue, flushed?.root], ['receive', undefined])
  })
})
