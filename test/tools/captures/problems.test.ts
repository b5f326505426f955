/*
 * Causes that captures show: those of Linux's captures (test/fixtures/wire), whole and damaged in the ways in which
 * captures are: cut payloads, missing frames, a late start.
 */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { captureCause } from '../../../src/spec/captures.ts'
import { fixture } from '../../paths.ts'
import { analyse, causesIn, packetsOfFixture, pcapOf, problemsIn, randomOf } from './build.ts'

/** By capture: all causes, and the frames of the first one. Other captures, but those of forged packets, have none. */
const expected: Readonly<Record<string, { readonly causes: readonly string[]; readonly frames: readonly number[] }>> = {
  cm_reject: { causes: ['cm-rejected'], frames: [1, 2] },
  rping_reject: { causes: ['cm-rejected'], frames: [1, 2] },
  udaddy_reject: { causes: ['cm-rejected'], frames: [1, 2] },
  nak_access_write: { causes: ['remote-access'], frames: [6, 7] },
  nak_access_read: { causes: ['remote-access'], frames: [1, 2] },
  nak_access_range: { causes: ['remote-access'], frames: [1, 2] },
  nak_access_permission: { causes: ['remote-access'], frames: [3, 4] },
  nak_operation_too_long: { causes: ['remote-operation'], frames: [1, 2] },
  nak_operation_too_long_multi: { causes: ['remote-operation'], frames: [3, 4] },
  memory_window_type2: { causes: ['remote-access'], frames: [5, 6] },
  linux612_new_operations: { causes: ['invalid-request'], frames: [9, 10] },
  retry_exceeded: { causes: ['no-answer'], frames: [1, 2, 4] },
  rnr_retry_exceeded: { causes: ['rnr-last', 'rnr-waits'], frames: [2, 6] },
  rnr_nak: { causes: ['rnr-waits'], frames: [3, 7] },
  loss_send_requests: { causes: ['loss'], frames: [14, 15, 30] },
  loss_write_requests: { causes: ['loss'], frames: [14, 15, 30] },
  loss_send_acks: { causes: ['loss'], frames: [5, 17] },
  loss_read_requests: { causes: ['loss'], frames: [12, 13, 16] },
  loss_read_responses: { causes: ['loss'], frames: [15, 19] },
  loss_atomic_responses: { causes: ['loss'], frames: [7, 25] },
  rstream: { causes: ['disconnected-outstanding'], frames: [70, 71] },
}
const FORGED = ['inject', 'linux612_inject']
const names = readdirSync(fixture('wire'))
  .filter(file => file.endsWith('.pcap'))
  .map(file => file.replace('.pcap', ''))
  .filter(name => !FORGED.includes(name))

for (const name of names) {
  test(`${name}: the causes that the packets show, and no others`, () => {
    const problems = problemsIn(pcapOf(packetsOfFixture(name)))
    assert.deepEqual(
      problems.map(({ cause }) => cause),
      expected[name]?.causes ?? [],
    )
    assert.deepEqual(problems[0]?.frames ?? [], expected[name]?.frames ?? [])
  })
}

/** Without the queue pairs in REQ and REP, a DREQ belongs to none. */
const cutCauses: Readonly<Record<string, readonly string[]>> = { rstream: ['unanswered'] }

test('cut to 96 bytes, all queue pairs have the same causes; only the reason of a REJ is not captured', () => {
  for (const name of names) {
    const problems = problemsIn(pcapOf(packetsOfFixture(name), { snap: 96 }))
    assert.deepEqual(
      problems.map(({ cause }) => cause),
      cutCauses[name] ?? expected[name]?.causes ?? [],
      name,
    )
    if (problems[0]?.cause === 'cm-rejected') assert.match(problems[0].evidence, /the reason was not captured|status 1/)
  }
})

/** What missing frames may make of a capture: the failure is less sure, or the loss is of the capture. */
const LESS_SURE: readonly string[] = [
  'answers-stop',
  'loss',
  'implied-nak',
  'late-acknowledgements',
  'doubled',
  'reordered',
  'cm-no-answer',
  'cm-rejected-alone',
  'no-answer',
]

/** Fails if a cause of a failure is one that the whole capture does not have, and that is not a lesser form of it. */
const assertNoOther = (name: string, causes: readonly string[]): void => {
  for (const cause of causes) {
    if (expected[name]?.causes.includes(cause) || LESS_SURE.includes(cause)) continue
    // Without the first packets of a message, its later ones look out of order: not a failure of these captures.
    assert.equal(captureCause(cause as Parameters<typeof captureCause>[0]).severity, 'note', `${name}: ${cause}`)
  }
}

test('with frames missing, and with the start missing, no other cause is named', () => {
  for (const name of names) {
    const packets = packetsOfFixture(name)
    for (let seed = 1; seed <= 12; seed++) {
      const random = randomOf(seed)
      const some = packets.filter(() => random() > 0.05)
      assertNoOther(`${name}`, causesIn(pcapOf(some)))
      assertNoOther(`${name}`, causesIn(pcapOf(packets.slice(Math.floor((packets.length * seed) / 13)))))
    }
  }
})

test('a connection has the fields of its messages', () => {
  const { connections, addresses } = analyse(pcapOf(packetsOfFixture('cm_connect')))
  const [connection] = connections
  assert.equal(connections.length, 1)
  assert.equal(addresses.text(connection.client), '10.77.0.2')
  assert.equal(addresses.text(connection.server), '10.77.0.3')
  assert.ok(connection.clientQpn! > 0 && connection.serverQpn! > 0)
  assert.equal(connection.mtu, 1024)
  assert.ok((connection.clientData?.length ?? 0) > 0 && (connection.serverData?.length ?? 0) > 0)
  assert.deepEqual(Object.keys(connection.messages), ['REQ', 'REP', 'RTU', 'DREQ', 'DREP'])
})

test('messages are rebuilt: kinds, sizes and the queue pair at the other end', () => {
  const { flows } = analyse(pcapOf(packetsOfFixture('read_bw')))
  const requester = flows.find(({ requests }) => requests > 0)!
  assert.equal(requester.messages?.[2], 5)
  assert.equal(requester.messageBytes, 5 * 5000)
  assert.ok(requester.peer !== undefined && requester.peer.answers === 25 && requester.peer.delays > 0)
  const sends = analyse(pcapOf(packetsOfFixture('rc_pingpong_4096'))).flows
  assert.deepEqual(
    sends.map(({ messages, messageBytes, mtu }) => [messages?.[0], messageBytes, mtu]),
    [
      [3, 3 * 4096, 1024],
      [3, 3 * 4096, 1024],
    ],
  )
})

test('an answer to another address, and the ECN marks and CNPs of a path, are named', () => {
  const packets = packetsOfFixture('retry_exceeded')
  const answer = packetsOfFixture('send_bw').find(({ bytes }) => bytes[42] === 0x11)!
  const elsewhere = Uint8Array.from(answer.bytes)
  const view = new DataView(elsewhere.buffer)
  // From the responder to a third address, for PSN 0x100.
  elsewhere.set([10, 77, 0, 3], 26)
  elsewhere.set([10, 77, 0, 9], 30)
  view.setUint32(50, 0x100)
  assert.ok(causesIn(pcapOf([...packets, { ...answer, bytes: elsewhere }])).includes('answer-elsewhere'))

  const marked = packetsOfFixture('send_bw').map(packet => {
    const bytes = Uint8Array.from(packet.bytes)
    if (bytes[12] === 8 && bytes[13] === 0) bytes[15] |= 3
    return { ...packet, bytes }
  })
  assert.ok(causesIn(pcapOf(marked)).includes('congestion'))
})

test('a changed address makes the ICRC wrong', () => {
  const packets = packetsOfFixture('send_bw').map(packet => {
    const bytes = Uint8Array.from(packet.bytes)
    bytes[29] ^= 64
    bytes[33] ^= 64
    return { ...packet, bytes }
  })
  assert.deepEqual(causesIn(pcapOf(packets)), ['icrc-wrong', 'icrc-wrong'])
})
