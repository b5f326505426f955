/*
 * What answers say: which request was refused, reserved syndromes by their numbers, and syndromes that were not
 * captured; and what the connection manager's messages say of connections that were rejected, or given up.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cmAnswered, rejReason } from '../../../src/spec/wire/mad.ts'
import { type OpcodeName, opcodeHeaderBytes, opcodeNumber } from '../../../src/spec/wire/opcodes.ts'
import type { CapturedPacket } from '../../../src/tools/captures/file.ts'
import { reportLines, reportObjects } from '../../../src/tools/captures/report.ts'
import { type CmDraft, emitCm } from '../../../src/transport/wire/mad/mad.ts'
import { aeth, analyse, packetsOfFixture, pcapOf, problemsIn, roce } from './build.ts'

const QPN = 0x11
const BACK = 0x12
const NAK = 0x60

const request = (psn: number, opcode: OpcodeName, rest: Uint8Array): CapturedPacket =>
  roce({ from: 1, to: 2, opcode, qpn: QPN, psn, time: psn * 1000, rest })
const answer = (psn: number, syndrome: number, time = psn * 1000 + 500): CapturedPacket =>
  roce({ from: 2, to: 1, opcode: 'RC_ACKNOWLEDGE', qpn: BACK, psn, time, rest: aeth(syndrome) })

/** A RETH or the start of an AtomicETH. */
const remote = (address: bigint, rkey: number, length: number): Uint8Array => {
  const bytes = new Uint8Array(16)
  const view = new DataView(bytes.buffer)
  view.setBigUint64(0, address)
  view.setUint32(8, rkey)
  view.setUint32(12, length)
  return bytes
}
const padded = (start: Uint8Array, bytes: number): Uint8Array => {
  const all = new Uint8Array(start.length + bytes)
  all.set(start)
  return all
}

const refusedOf = (packets: readonly CapturedPacket[], snap?: number): unknown =>
  [...reportObjects(analyse(pcapOf(packets, snap === undefined ? {} : { snap })), '')].find(
    ({ kind }) => kind === 'problem',
  )?.refused

test('the request that was refused, of every kind, and at any of its packets', () => {
  const at = remote(0xffff_8000_0000_1000n, 0x1234, 3000)
  const address = '0xffff800000001000'
  const write = [
    request(0, 'RC_WRITE_FIRST', padded(at, 1024)),
    request(1, 'RC_WRITE_MIDDLE', new Uint8Array(1024)),
    request(2, 'RC_WRITE_LAST', new Uint8Array(952)),
  ]
  for (const psn of [0, 1, 2])
    assert.deepEqual(refusedOf([...write, answer(psn, NAK | 2, 9000)]), {
      opcode: 'RDMA_WRITE',
      rkey: 0x1234,
      address,
      length: 3000,
    })
  // A READ may be refused at any of its responses.
  const mtu = request(0, 'RC_SEND_FIRST', new Uint8Array(1024))
  const read = [mtu, request(1, 'RC_SEND_LAST', new Uint8Array(8)), request(2, 'RC_READ_REQUEST', at)]
  for (const psn of [2, 4])
    assert.deepEqual(refusedOf([...read, answer(psn, NAK | 2, 9000)]), {
      opcode: 'RDMA_READ',
      rkey: 0x1234,
      address,
      length: 3000,
    })
  const atomic = request(0, 'RC_FETCH_ADD', padded(at.subarray(0, 12), 16))
  assert.deepEqual(refusedOf([atomic, answer(0, NAK | 2)]), {
    opcode: 'ATOMIC_FETCH_AND_ADD',
    rkey: 0x1234,
    address,
    length: 8,
  })
  const send = { rkey: undefined, address: undefined }
  assert.deepEqual(refusedOf([request(0, 'RC_SEND_ONLY', new Uint8Array(24)), answer(0, NAK | 3)]), {
    opcode: 'SEND',
    ...send,
    length: 24,
  })
  assert.deepEqual(refusedOf([mtu, answer(0, NAK | 1)]), { opcode: 'SEND', ...send, length: undefined })
  // Cut before the RETH: the operation is known.
  assert.deepEqual(refusedOf([...write, answer(0, NAK | 2, 9000)], 60), {
    opcode: 'RDMA_WRITE',
    ...send,
    length: undefined,
  })
  // Not in the capture.
  assert.equal(refusedOf([request(5, 'RC_SEND_ONLY', new Uint8Array(8)), answer(4, NAK | 2, 9000)]), undefined)
})

test('a PSN mismatch is in doubt only where the first packet is within a message', () => {
  const evidence = (psn: number, code: number): string => {
    const packets = [
      request(0, 'RC_SEND_FIRST', new Uint8Array(1024)),
      request(1, 'RC_SEND_LAST', new Uint8Array(8)),
      request(2, 'RC_SEND_ONLY', new Uint8Array(8)),
      answer(psn, NAK | code, 9000),
    ]
    return problemsIn(pcapOf(packets))[0]!.evidence
  }
  assert.match(evidence(1, 1), /it is the LAST packet of a message, and its PSN is 1 above the first one/)
  for (const [psn, code] of [
    [2, 1],
    [0, 1],
    [1, 2],
  ] as const)
    assert.match(evidence(psn, code), /^the responder refused PSN 0x\d$/)
})

test('reserved NAK codes and syndromes are told by their numbers, and acknowledge nothing', () => {
  const asked = [0, 1].map(psn => request(psn, 'RC_SEND_ONLY', new Uint8Array(8)))
  const problems = problemsIn(
    pcapOf([
      ...asked,
      answer(1, NAK | 5, 2000),
      answer(1, NAK | 31, 2100),
      answer(1, 0x41, 2200),
      answer(1, NAK | 5, 9e6),
    ]),
  )
  assert.deepEqual(
    problems.map(({ cause }) => cause),
    ['malformed', 'unanswered'],
  )
  assert.equal(
    problems[0]!.evidence,
    '4 answers with a reserved syndrome: NAK code 5 twice, NAK code 31 once, 0x41 once',
  )
  for (let code = 5; code < 32; code++) {
    const [first] = problemsIn(pcapOf([...asked, answer(0, NAK | code)]))
    assert.match(first!.evidence, new RegExp(`NAK code ${code} once$`))
  }
})

test('syndromes that were not captured are said, and not taken for NAKs or acknowledgements alone', () => {
  const file = pcapOf(packetsOfFixture('loss_send_requests'), { snap: 54 })
  const lines = reportLines(analyse(file), { name: 'x', top: 5 }).join('\n')
  assert.match(
    lines,
    /of \d+ answers the syndrome is cut, the first in frame \d+: whether they are ACKs or NAKs is not known/,
  )
  assert.match(lines, /after NAKs or timeouts, as the syndromes were not captured/)
  const whole = reportLines(analyse(pcapOf(packetsOfFixture('loss_send_requests'), { snap: 58 })), {
    name: 'x',
    top: 5,
  })
  assert.doesNotMatch(whole.join('\n'), /syndrome/)
})

/** A message of the connection manager in a datagram. */
const cm = (from: number, to: number, time: number, psn: number, message: CmDraft): CapturedPacket => {
  const mad = emitCm(message)
  const rest = new Uint8Array(opcodeHeaderBytes[opcodeNumber.UD_SEND_ONLY]! - 12 + mad.length)
  new DataView(rest.buffer).setUint32(0, 0x8001_0000)
  new DataView(rest.buffer).setUint32(4, 1)
  rest.set(mad, 8)
  return roce({ from, to, opcode: 'UD_SEND_ONLY', qpn: 1, psn, time: time * 1e6, rest })
}

const CLIENT = 0x51
const SERVER = 0x52
const req = (time: number, psn: number) =>
  cm(1, 2, time, psn, { name: 'REQ', tid: 1n, localId: CLIENT, qpn: QPN, serviceId: 0x106_1c06n })
const rep = (time: number, psn: number) =>
  cm(2, 1, time, psn, { name: 'REP', tid: 1n, localId: SERVER, remoteId: CLIENT, qpn: BACK })
const rej = (from: number, time: number, message: number, reason: number, ids: object = {}) =>
  cm(from, 3 - from, time, 99, {
    name: 'REJ',
    tid: 1n,
    ...(from === 1 ? { localId: CLIENT, remoteId: 0 } : { localId: 0, remoteId: CLIENT }),
    ...ids,
    message,
    reason,
  })
const problemOf = (packets: readonly CapturedPacket[]): string => {
  const [problem, ...others] = problemsIn(pcapOf(packets))
  assert.deepEqual(others, [])
  return `${problem?.cause}: ${problem?.evidence}`
}

test('a REJ says who sent it, of what, and the reason in words', () => {
  const { REQ, REP, OTHER } = cmAnswered
  const { INVALID_SERVICE_ID, TIMEOUT, CONSUMER_DEFINED } = rejReason
  assert.match(
    problemOf([req(0, 1), rej(2, 1, REQ, INVALID_SERVICE_ID)]),
    /^cm-rejected: 10\.0\.0\.1 to 10\.0\.0\.2 port 7174: 10\.0\.0\.2 rejected the REQ: reason 8, invalid service id: no program listens there$/,
  )
  assert.match(
    problemOf([req(0, 1), rep(1, 2), rej(1, 2, REP, CONSUMER_DEFINED, { remoteId: SERVER })]),
    /^cm-rejected: .*: 10\.0\.0\.1 rejected the REP: reason 28, consumer defined: its program rejected/,
  )
  assert.match(
    problemOf([req(0, 1), req(4000, 2), rej(1, 9000, OTHER, TIMEOUT)]),
    /^cm-no-answer: .*: 10\.0\.0\.1 sent the REQ twice in 4\.00 s, and gave up 5\.00 s after the last one .*; 10\.0\.0\.2 never answered$/,
  )
  assert.match(
    problemOf([req(0, 1), rej(1, 9000, OTHER, TIMEOUT)]),
    /^cm-no-answer: .*: 10\.0\.0\.1 sent the REQ once, and gave up 9\.00 s after it /,
  )
  const mra = cm(2, 1, 1, 3, { name: 'MRA', tid: 1n, localId: SERVER, remoteId: CLIENT })
  assert.match(
    problemOf([req(0, 1), mra, rej(1, 9000, OTHER, TIMEOUT)]),
    /; 10\.0\.0\.2 answered with an MRA only: its program did not accept$/,
  )
  assert.match(
    problemOf([
      req(0, 1),
      rep(1, 2),
      rep(4000, 3),
      rej(2, 9000, OTHER, TIMEOUT, { localId: SERVER, remoteId: CLIENT }),
    ]),
    /^cm-no-answer: .*: 10\.0\.0\.2 sent the REP twice in 4\.00 s, and gave up .*; 10\.0\.0\.1 never answered$/,
  )
})

test('a REJ alone is told, once for all its copies', () => {
  const alone = rej(2, 1, cmAnswered.REQ, rejReason.INVALID_SERVICE_ID)
  assert.match(
    problemOf([alone]),
    /^cm-rejected-alone: 10\.0\.0\.2 sent 10\.0\.0\.1 a REJ of the REQ: reason 8, invalid/,
  )
  const [problem] = problemsIn(pcapOf([alone, { ...alone, time: alone.time! + 5000n }]))
  assert.doesNotMatch(problem!.evidence, /twice/)
})

test('a message of the connection manager that a mirror has twice was sent once', () => {
  const packets = [req(0, 1), req(4000, 2)].flatMap(packet => [packet, { ...packet, time: packet.time! + 5000n }])
  const found = problemsIn(pcapOf(packets)).find(({ cause }) => cause === 'cm-no-answer')
  assert.match(found!.evidence, /sent the REQ twice in 4\.00 s, 10\.0\.0\.2 never answered/)
})

test('what is not decoded is named by its EtherType, protocol or port', () => {
  const [frame] = packetsOfFixture('nak_access_write')
  const changed = (at: number, ...values: number[]): CapturedPacket => {
    const bytes = Uint8Array.from(frame!.bytes)
    bytes.set(values, at)
    return { ...frame!, bytes }
  }
  const packets = [
    changed(12, 0x88, 0xcc),
    changed(12, 0x88, 0xcc),
    changed(12, 0x12, 0x34),
    changed(12, 0, 0x26),
    changed(23, 89),
    changed(23, 200),
    changed(36, 0, 53),
    changed(36, 0x12, 0xb6),
  ]
  const [line] = reportLines(analyse(pcapOf(packets)), { name: 'x', top: 5 }) as string[]
  for (const text of [
    '2 EtherType 0x88cc (LLDP)',
    '1 EtherType 0x1234',
    '1 IEEE 802.3',
    '1 IP protocol 89 (OSPF)',
    '1 IP protocol 200',
    '1 UDP port 53 (DNS)',
    '1 UDP port 4790 (VXLAN-GPE)',
  ])
    assert.ok(line!.includes(text), `${text} in ${line}`)
  const [capture] = [...reportObjects(analyse(pcapOf(packets)), 'x')]
  assert.deepEqual((capture!.others as { protocols: object }).protocols, [
    { number: 89, count: 1, name: 'OSPF' },
    { number: 200, count: 1 },
  ])
})

test('link-local addresses that do not answer are told, since no router forwards them', () => {
  const evidenceOf = (isIpv6: true | 'fe80'): string => {
    const packets = [0, 1, 2].map(time =>
      roce({ from: 1, to: 2, opcode: 'RC_SEND_ONLY', qpn: 7, psn: 3, time: time * 1e6, isIpv6 }),
    )
    const found = problemsIn(pcapOf(packets)).find(({ cause }) => cause === 'no-answer')
    return found?.evidence ?? 'none'
  }
  assert.match(evidenceOf('fe80'), /; fe80:.* is a link-local address, which no router forwards: if the ends are in/)
  assert.match(evidenceOf(true), /sent again twice[^;]*$/)
})

test('the flows of a capture have DSCP and TTL, where these are not the default', () => {
  const flowsOf = (fields: { trafficClass?: number; hopLimit?: number; isIpv6?: boolean }): string => {
    const packets = [1, 2].map(psn =>
      roce({ from: 1, to: 2, opcode: 'RC_SEND_ONLY', qpn: QPN, psn, time: psn * 1000, ...fields }),
    )
    return reportLines(analyse(pcapOf(packets)), { name: 'x', top: 5 }).at(-1) as string
  }
  assert.doesNotMatch(flowsOf({}), /DSCP|TTL/)
  // 2: the ECN bits are no part of it
  for (const isIpv6 of [false, true])
    assert.match(flowsOf({ trafficClass: (26 << 2) | 2, hopLimit: 63, isIpv6 }), /, DSCP 26, TTL 63, frames 1 to 2/)
})

test('queue pairs of two hosts with different DSCP, and directions of a connection, are told once', () => {
  const notesOf = (classes: readonly [to: number, back: number, other: number]): string[] => {
    const packets = classes.flatMap((trafficClass, i) => {
      const [from, to] = i === 1 ? [2, 1] : [1, 2]
      return [0, 1, 2].map(psn =>
        i === 1
          ? roce({
              ...{ from, to, opcode: 'RC_ACKNOWLEDGE', qpn: 9, psn, trafficClass, ackReq: false },
              ...{ rest: Uint8Array.of(0, 0, 0, psn), time: psn * 1e6 + 1000 },
            })
          : roce({ from, to, opcode: 'RC_SEND_ONLY', qpn: 7 + i, psn: psn + 100 * i, trafficClass, time: psn * 1e6 }),
      )
    })
    packets.sort((a, b) => Number((a.time ?? 0n) - (b.time ?? 0n)))
    return problemsIn(pcapOf(packets)).flatMap(({ cause, evidence }) => (cause === 'class-differs' ? [evidence] : []))
  }
  assert.deepEqual(notesOf([236, 236, 236]), [])
  // ECN bits are no part of the class
  assert.deepEqual(notesOf([236, 238, 237]), [])
  assert.deepEqual(notesOf([236, 0, 0]), ['DSCP 59, and 0 in the other direction'])
  assert.deepEqual(notesOf([236, 236, 0]), ['DSCP 0, and 59 from the same host to QP 0x7 of the other'])
})
