/*
 * Our engine handles forged packets (test/fixtures/wire/responder.md) as Linux's rxe does. departures.ts lists the
 * exceptions.
 */
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { arenaOver } from '../../../../src/transport/wire/arena.ts'
import type { Ipv4Frame } from '../../../../src/transport/wire/frame.ts'
import { makeFlow, sealIcrc } from '../../../../src/transport/wire/icrc.ts'
import { compareLists, describeDifference, type Permit, type Recorded } from './compare.ts'
import { type Departure, departures, malformedDepartures } from './departures.ts'
import { type Case, type Linux, notCaptured, plainAfter, type Result, readCases, run, tableOf } from './forged.ts'
import { recordedMutants } from './mutations.ts'

/** A packet of this length contains BTH.DestQP, but is dropped as too short. */
const QPN_END = 8

const usedDepartures = new Set<Departure>()

const permitFor =
  (departure: Departure | undefined): Permit =>
  ({ fields }) => {
    const isAllowed = fields.every(({ path, recorded, ours }) => {
      const allowed = departure?.fields[path]
      return allowed !== undefined && allowed[0] === recorded && allowed[1] === ours
    })
    if (!isAllowed) return undefined
    usedDepartures.add(departure!)
    const packet = departure!.fields.packet
    // How many packets of each side the difference is about: none of the side that has no packet.
    return { recorded: packet?.[0] === '-' ? 0 : 1, ours: packet?.[1] === '-' ? 0 : 1 }
  }

const departureFor = (linux: Linux, name: string): Departure | undefined =>
  departures.find(d => d.name === name && (d.linux === undefined || d.linux === linux))

/** Sentences about differences from Linux (`linuxAfter`, `replies`) that departures.ts does not permit. */
const faultsOf = (
  linux: Linux,
  { name }: Case,
  linuxAfter: string,
  replies: readonly Recorded[],
  result: Result,
): string[] => {
  const departure = departureFor(linux, name)
  const faults = compareLists(0, 'answers', replies, result.replies, permitFor(departure)).map(describeDifference)
  const expectedAfter = departure?.after ?? plainAfter(linuxAfter)
  if (departure?.after !== undefined && departure.after !== plainAfter(linuxAfter)) usedDepartures.add(departure)
  if (expectedAfter !== result.after) faults.push(`${result.after}, not ${expectedAfter}`)
  return faults
}

for (const linux of ['6.1', '6.12'] as const) {
  describe(`forged packets against Linux ${linux}`, () => {
    for (const testCase of readCases(linux)) {
      const result = run(linux, testCase.name, testCase.frames)
      test(testCase.name, () =>
        assert.deepEqual(faultsOf(linux, testCase, testCase.after, testCase.replies, result), []),
      )

      const departure = departureFor(linux, testCase.name)

      test(`${testCase.name}: mutations of Linux's replies are noticed`, () => {
        const isExempt = (): boolean => Object.keys(departure?.fields ?? {}).length > 0
        const stream = { qpn: 0, answers: testCase.replies, requests: [] }
        for (const [mutant, [{ answers }]] of recordedMutants(testCase.name, [stream], isExempt))
          assert.notEqual(faultsOf(linux, testCase, testCase.after, answers, result).length, 0, mutant)
      })

      if (departure?.after === undefined)
        test(`${testCase.name}: a further digit in Linux's completions and state is noticed`, () => {
          for (const text of ['word ', 'qp state ', 'rq_psn 0x', 'wc status ']) {
            const otherAfter = testCase.after.replace(text, `${text}1`)
            if (otherAfter !== testCase.after)
              assert.notEqual(faultsOf(linux, testCase, otherAfter, testCase.replies, result).length, 0, text)
          }
        })

      if (testCase.replies.length > 0)
        test(`${testCase.name}: it is noticed if a packet is too short`, () => {
          const isNoticed = testCase.frames.some((frame, i) => {
            const short = { ...frame, payload: frame.payload.subarray(0, QPN_END) }
            const resultOfShort = run(linux, testCase.name, testCase.frames.with(i, short))
            return faultsOf(linux, testCase, testCase.after, testCase.replies, resultOfShort).length > 0
          })
          assert.ok(isNoticed, 'no packet matters')
        })
    }
  })
}

describe('malformed packets, which were not captured', () => {
  const sample = readCases('6.1').find(c => c.name === 'send_ackreq')!.frames[0]
  const sealed = (payload: Uint8Array): Ipv4Frame => {
    const frame = { ...sample, payload }
    sealIcrc(arenaOver(payload), 0, payload.length, makeFlow(frame), frame.identification)
    return frame
  }
  const spoiled = sample.payload.slice()
  spoiled[spoiled.length - 1] ^= 1
  // BTH, 3 bytes and the ICRC; PadCnt (bits 4 and 5 of byte 1) is 3, although the length is no multiple of 4
  const padded = new Uint8Array(12 + 3 + 4)
  padded.set(sample.payload.subarray(0, 12))
  padded[1] |= 3 << 4
  const packets: Record<string, Ipv4Frame> = {
    bad_icrc: { ...sample, payload: spoiled },
    short_packet: { ...sample, payload: sample.payload.slice(0, 10) },
    pad_more_than_body: sealed(padded),
  }
  for (const name of notCaptured) {
    test(name, () => {
      const result = run('6.1', name, [packets[name]])
      const expected = tableOf('Linux 6.1.192').find(c => c.name === name)!
      const hasDeparture = malformedDepartures.some(d => d.name === name)
      assert.equal(plainAfter(expected.after) !== result.after, hasDeparture)
      assert.deepEqual(result, { replies: [], after: 'state 3 rq_psn 0x000200; word 5' }, 'the packet has no effect')
    })
  }
})

after(() => {
  assert.deepEqual(
    departures.filter(row => !usedDepartures.has(row)),
    [],
    'rows of departures.ts that permit nothing',
  )
})
