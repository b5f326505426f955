/*
 * `--torment SEED` (spec/check/torment.ts): guarantees of the specification are kept with every seed; a behaviour that
 * is not guaranteed differs with some seed.
 */
import assert from 'node:assert/strict'
import { describe, it, test } from 'node:test'
import { type Device, invokeNow, unregister } from '../../../../src/core/index.ts'
import { bindWindow } from '../../../../src/core/memory/windows.ts'
import { Limits } from '../../../../src/drivers/soft/attributes.ts'
import { createTorment } from '../../../../src/drivers/soft/torment/torment.ts'
import { parseFaults } from '../../../../src/faults/rules.ts'
import {
  MAX_HOLD,
  type TormentDecision,
  type TormentKind,
  type TormentSetting,
  tormentKinds,
} from '../../../../src/spec/check/torment.ts'
import { Cq } from '../../../../src/spec/classes/cq.ts'
import { Mr } from '../../../../src/spec/classes/mr.ts'
import { Mw } from '../../../../src/spec/classes/mw.ts'
import { RcQp } from '../../../../src/spec/classes/qp/rc_qp.ts'
import { AccessFlags, MwType } from '../../../../src/spec/enums.ts'
import { WcStatus, WrOpcode } from '../../../../src/spec/work.ts'
import type { Path } from '../../../../src/transport/phy/memory/port.ts'
import { type Arena, plainArena } from '../../../../src/transport/wire/arena.ts'
import { inLongRun } from '../../../long-run.ts'
import {
  ALL_ACCESS,
  assertNothingLeft,
  connectQps,
  machine,
  makeChannel,
  makeCq,
  makeQp,
  modify,
  program,
  Qps,
  query,
  register,
} from '../../rxe/machine.ts'
import { completions, type End, exchange, makeEnd, pairOn, pattern, sgeOf } from '../../rxe/pair.ts'
import { Flag, pollAll, postReceive, postSend, type SendRequest, Wr } from '../../rxe/provider.ts'
import { seedWith, seedWithout } from '../../torment-seeds.ts'

const { RELAXED_ORDERING } = AccessFlags.values
const SEEDS = inLongRun(30, 12)
const PATHS: readonly Path[] = ['direct', 'packets']

const tormentOf = (seed: number, scratch: Arena, maxDecisions = Number.POSITIVE_INFINITY) =>
  createTorment({ seed, maxDecisions }, scratch)

const tormented = (seed: number, path: Path) => {
  const torment = tormentOf(seed, plainArena(4096))
  return { torment, ...pairOn(machine(2, { path, torment })) }
}

// `writeTo` writes LENGTH bytes at AT.
const LENGTH = 3000
const AT = 1000
const BEFORE = 0xee

/** A WRITE from `from` to `to`; `fields` override its fields. */
const writeTo = (from: End, to: End, fields: Partial<SendRequest> = {}): SendRequest => ({
  opcode: Wr.WRITE,
  id: 1n,
  sges: [sgeOf(from.mr, AT, LENGTH)],
  remote: to.mr.address + AT,
  rkey: to.mr.rkey,
  ...fields,
})
/** Whether all bytes of `writeTo` have arrived. */
const isWhole = (from: End, to: End): boolean =>
  Buffer.compare(from.mr.bytes.subarray(AT, AT + LENGTH), to.mr.bytes.subarray(AT, AT + LENGTH)) === 0
/** Fills the target with BEFORE, and the source of `writeTo` with other bytes (odd ones). */
const prepare = (from: End, to: End): void => {
  pattern(from.mr.bytes, 5)
  for (let i = 0; i < LENGTH; i++) from.mr.bytes[AT + i] |= 1
  to.mr.bytes.fill(BEFORE)
}

/** Advances time until no timer is set; calls `check` after each step. */
const run = (m: ReturnType<typeof machine>, check: () => void = () => {}): void => {
  m.settle()
  check()
  while (m.tick()) check()
}

for (const path of PATHS)
  describe(`torment on the path "${path}"`, () => {
    test('the last byte of a WRITE may arrive before others, but all have arrived when the WRITE completes', () => {
      let earlySeeds = 0
      for (let seed = 1; seed <= SEEDS; seed++) {
        const { m, a, b } = tormented(seed, path)
        prepare(a, b)
        postSend(a.qp.send, writeTo(a, b))
        let isLastByteEarly = false
        let completed = 0
        run(m, () => {
          if (b.mr.bytes[AT + LENGTH - 1] !== BEFORE && !isWhole(a, b)) isLastByteEarly = true
          completed += completions(a.cq).length
          if (completed > 0) assert.ok(isWhole(a, b), `seed ${seed}: completed before all bytes have arrived`)
        })
        assert.equal(completed, 1, `seed ${seed}`)
        if (isLastByteEarly) earlySeeds++
      }
      assert.ok(earlySeeds > SEEDS / 10, `${earlySeeds} of ${SEEDS} seeds show the last byte early`)
    })

    test('a word of 8 aligned bytes arrives whole', () => {
      for (let seed = 1; seed <= SEEDS; seed++) {
        const { m, a, b } = tormented(seed, path)
        prepare(a, b)
        assert.equal((b.mr.address + AT) % 8, 0)
        postSend(a.qp.send, writeTo(a, b))
        run(m, () => {
          for (let at = AT; at < AT + LENGTH; at += 8) {
            const missing = b.mr.bytes.subarray(at, at + 8).filter(byte => byte === BEFORE).length
            assert.ok(missing === 0 || missing === 8, `seed ${seed}: ${missing} bytes of the word at ${at} are missing`)
          }
        })
      }
    })

    test('when a SEND, immediate data or an atomic arrives, the bytes of earlier WRITEs have arrived', () => {
      const WORD = 8000
      for (let seed = 1; seed <= SEEDS; seed++)
        for (const opcode of [Wr.SEND, Wr.WRITE_IMM, Wr.FAA]) {
          const { m, a, b } = tormented(seed, path)
          prepare(a, b)
          b.mr.bytes.fill(0, WORD, WORD + 8)
          postReceive(b.qp.receive, 7n, [sgeOf(b.mr, 20000, 64)])
          postSend(a.qp.send, writeTo(a, b, { flags: 0 }))
          postSend(a.qp.send, {
            opcode,
            id: 2n,
            sges: [sgeOf(a.mr, 8, 8)],
            remote: b.mr.address + WORD,
            rkey: b.mr.rkey,
            compareAdd: 1n,
          })
          let hasArrived = false
          run(m, () => {
            hasArrived ||= opcode === Wr.FAA ? b.mr.bytes[WORD] !== 0 : completions(b.cq).length > 0
            if (hasArrived) assert.ok(isWhole(a, b), `seed ${seed}, opcode ${opcode}`)
          })
          assert.ok(hasArrived)
        }
    })

    test('of two WRITEs to the same bytes, the later WRITE wins', () => {
      for (let seed = 1; seed <= SEEDS; seed++) {
        const { m, a, b } = tormented(seed, path)
        prepare(a, b)
        postSend(a.qp.send, writeTo(a, b, { sges: [sgeOf(a.mr, 30000, LENGTH)] }))
        postSend(a.qp.send, writeTo(a, b, { id: 2n }))
        run(m)
        assert.ok(isWhole(a, b), `seed ${seed}`)
      }
    })

    test('a READ returns the bytes of earlier WRITEs, and all have arrived when the READ completes', () => {
      let earlyChecks = 0
      for (let seed = 1; seed <= SEEDS; seed++) {
        const { m, a, b } = tormented(seed, path)
        prepare(a, b)
        a.mr.bytes.fill(BEFORE, 40000)
        postSend(a.qp.send, writeTo(a, b, { flags: 0 }))
        const readFields = { opcode: Wr.READ, sges: [sgeOf(a.mr, 40000, LENGTH)] }
        postSend(a.qp.send, writeTo(a, b, readFields))
        const hasRead = (): boolean =>
          Buffer.compare(a.mr.bytes.subarray(AT, AT + LENGTH), a.mr.bytes.subarray(40000, 40000 + LENGTH)) === 0
        let completed = 0
        run(m, () => {
          completed += completions(a.cq).length
          if (completed > 0) assert.ok(hasRead(), `seed ${seed}`)
          else if (a.mr.bytes[40000 + LENGTH - 1] !== BEFORE && !hasRead()) earlyChecks++
        })
        assert.equal(completed, 1)
      }
      assert.ok(earlyChecks > 0, 'no seed shows the last byte of a READ early')
    })

    test('nothing is written after the region is deregistered', () => {
      let delayedSeeds = 0
      for (let seed = 1; seed <= SEEDS; seed++) {
        const { m, a, b } = tormented(seed, path)
        prepare(a, b)
        postSend(a.qp.send, writeTo(a, b))
        m.settle()
        if (!isWhole(a, b)) delayedSeeds++
        invokeNow(b.p.context, Mr, 'destroy', b.mr.handle, {}, b.p.caller)
        b.mr.bytes.fill(BEFORE)
        run(m)
        assert.ok(
          b.mr.bytes.every(byte => byte === BEFORE),
          `seed ${seed}`,
        )
      }
      assert.ok(delayedSeeds > 0, 'no seed delays bytes')
    })

    test('completions of one work queue keep their order; send and receive completions may overtake each other', () => {
      let lateSeeds = 0
      let swappedSeeds = 0
      for (let seed = 1; seed <= SEEDS; seed++) {
        const { m, a, b } = tormented(seed, path)
        const seen: string[] = []
        let steps = 0
        for (let i = 0; i < 5; i++) {
          postReceive(b.qp.receive, BigInt(i), [sgeOf(b.mr, 64 * i, 64)])
          postReceive(a.qp.receive, BigInt(i), [sgeOf(a.mr, 64 * i, 64)])
          postSend(a.qp.send, { opcode: Wr.SEND, id: BigInt(10 + i), sges: [sgeOf(a.mr, 4096, 8)] })
          postSend(b.qp.send, { opcode: Wr.SEND, id: BigInt(10 + i), sges: [sgeOf(b.mr, 4096, 8)] })
        }
        run(m, () => {
          const polled = pollAll(a.cq.ring)
          if (steps++ === 0 && polled.length < 10) lateSeeds++
          for (const { id, status } of polled) {
            assert.equal(status, 0)
            seen.push(String(id))
          }
        })
        const sends = seen.filter(id => Number(id) >= 10)
        const receives = seen.filter(id => Number(id) < 10)
        assert.deepEqual(sends, ['10', '11', '12', '13', '14'], `seed ${seed}`)
        assert.deepEqual(receives, ['0', '1', '2', '3', '4'], `seed ${seed}`)
        if (seen.indexOf('14') < seen.indexOf('0') || seen.indexOf('4') < seen.indexOf('10')) swappedSeeds++
      }
      assert.ok(lateSeeds > 0, 'no seed delays a completion')
      assert.ok(swappedSeeds > 0, 'no seed delivers all completions of one queue before those of the other')
    })

    test('queue pair, CQ and contexts can be destroyed while a WRITE is in flight', () => {
      for (let seed = 1; seed <= SEEDS; seed++) {
        const { m, a, b } = tormented(seed, path)
        exchange(m, a, b, seed)
        postSend(a.qp.send, writeTo(a, b))
        m.settle()
        invokeNow(a.p.context, RcQp, 'destroy', a.qp.handle, {}, a.p.caller)
        invokeNow(a.p.context, Cq, 'destroy', a.cq.handle, {}, a.p.caller)
        a.p.close()
        b.p.close()
        run(m)
        assertNothingLeft(m, [a.p, b.p])
      }
    })
  })

test('whatever acknowledges a WRITE to another daemon, all bytes have arrived when it completes', () => {
  const later = [
    { opcode: Wr.WRITE, length: 0 },
    { opcode: Wr.READ, length: 0 },
    { opcode: Wr.READ, length: 8 },
    { opcode: Wr.FAA, length: 8 },
  ]
  for (const { opcode, length } of later)
    for (let seed = 1; seed <= SEEDS; seed++) {
      // the sender's device has no torment: it completes the WRITE as soon as a response acknowledges it
      const { m, a, b } = pairOn(machine(2, { torments: [undefined, tormentOf(seed, plainArena(4096))] }))
      prepare(a, b)
      postSend(a.qp.send, writeTo(a, b))
      const sges = length === 0 ? [] : [sgeOf(a.mr, 8, length)]
      postSend(a.qp.send, { opcode, id: 2n, sges, remote: b.mr.address + 8000, rkey: b.mr.rkey })
      let completed = 0
      run(m, () => {
        completed += completions(a.cq).length
        if (completed > 0) assert.ok(isWhole(a, b), `opcode ${opcode} of ${length} bytes, seed ${seed}`)
      })
      assert.equal(completed, 2)
    }
})

describe('completion events', () => {
  /** Receives as a correct program does: arm, poll, wait. Returns the number of events after which the CQ was empty. */
  const receiveByEvents = (seed: number, count: number): number => {
    const torment = tormentOf(seed, plainArena(4096))
    const m = machine(2, { path: 'direct', torment })
    const a = makeEnd(m, 0)
    const p = program(m, 1)
    const { fd, queue } = makeChannel(p)
    const cq = makeCq(p, 31, fd)
    const qp = makeQp(p, cq)
    const mr = register(p, 65536)
    connectQps(a.qp, qp)
    const arm = (): void => {
      invokeNow(p.context, Cq, 'reqNotify', cq.handle, { solicitedOnly: 0 }, p.caller)
    }
    for (let i = 0; i < count; i++) postReceive(qp.receive, BigInt(i), [sgeOf(mr, 64 * i, 64)])
    arm()
    let received = 0
    let empty = 0
    for (let i = 0; i < count; i++) {
      postSend(a.qp.send, { opcode: Wr.SEND, id: BigInt(i), sges: [sgeOf(a.mr, 0, 8)] })
      run(m, () => {
        while (queue.take(1).length > 0) {
          arm()
          const polled = pollAll(cq.ring).length
          received += polled
          if (polled === 0) empty++
        }
      })
    }
    assert.equal(received, count, `seed ${seed}: a wake-up was lost`)
    return empty
  }
  it('may come without a completion, and no wake-up of a correct program is lost', () => {
    let empty = 0
    for (let seed = 1; seed <= SEEDS; seed++) empty += receiveByEvents(seed, 8)
    assert.ok(empty > 0)
  })
})

describe('a seed', () => {
  const decisionsOf = (seed: number): TormentDecision[] => {
    const { torment, m, a, b } = tormented(seed, 'direct')
    const decided: TormentDecision[] = []
    torment.decisions.listen(decision => decided.push(decision))
    for (let i = 0; i < 5; i++) exchange(m, a, b, i)
    // numbers of queue pairs and addresses are random
    return decided.map(decision => ({ ...decision, text: decision.text.replace(/QP \d+|0x[0-9a-f]+/g, '') }))
  }
  it('repeats its decisions', () => {
    const seeds = Array.from({ length: 30 }, (_, i) => i)
    assert.ok(seeds.some(seed => decisionsOf(seed).length > 10))
    for (const seed of seeds) assert.deepEqual(decisionsOf(seed), decisionsOf(seed))
  })
  it('makes only its first maxDecisions decisions, except about packets', () => {
    const kindsOf = (seed: number, maxDecisions?: number): string[] => {
      const torment = tormentOf(seed, plainArena(4096), maxDecisions)
      const decided: string[] = []
      torment.decisions.listen(({ kind, held }) => {
        if (held === undefined) decided.push(kind)
      })
      const { m, a, b } = pairOn(machine(2, { path: 'direct', torment }))
      for (let i = 0; i < 5; i++) exchange(m, a, b, i)
      return decided
    }
    for (let seed = 0; seed < 20; seed++)
      for (const maxDecisions of [0, 1, 4]) {
        const decided = kindsOf(seed, maxDecisions)
        // packets of one burst are decided together, so there may be more decisions about packets
        assert.deepEqual(decided.slice(0, maxDecisions), kindsOf(seed).slice(0, maxDecisions))
        assert.ok(
          decided.slice(maxDecisions).every(kind => kind === 'packet') && (maxDecisions > 0 || decided.length === 0),
        )
      }
  })
  it('makes each decision alone as among the others', () => {
    /** The text of each decision by its identity, without numbers and addresses, which are random. */
    const textsOf = (setting: TormentSetting): ReadonlyMap<string, string> => {
      const torment = createTorment(setting, plainArena(4096))
      const texts = new Map<string, string>()
      torment.decisions.listen(({ id, text, held }) => {
        if (held !== undefined) return
        assert.ok(!texts.has(id), `${id} is decided twice`)
        texts.set(id, text.replace(/0x[0-9a-f]+/g, ''))
      })
      const { m, a, b } = pairOn(machine(2, { path: 'packets', torment }))
      for (let i = 0; i < 5; i++) exchange(m, a, b, i)
      return texts
    }
    const kinds = new Set<string>()
    for (let seed = 0; seed < inLongRun(20, 8); seed++) {
      const setting: TormentSetting = { seed, maxDecisions: Number.POSITIVE_INFINITY }
      const all = [...textsOf(setting)]
      for (let i = seed % 5; i < all.length; i += 13) {
        const [id, text] = all[i]!
        const alone = [...textsOf({ ...setting, only: [id] })]
        // a wait that another one had covered, or a packet that comes in a retransmission only, may have no effect
        if (alone.length === 0) continue
        assert.deepEqual(alone, [[id, text]])
        kinds.add(id.slice(0, id.indexOf('/')))
      }
    }
    assert.ok(kinds.size >= 3, [...kinds].join(' '))
  })
  it('tells what passes a held completion, and whether a call ends the wait', () => {
    const seen: TormentDecision[] = []
    const torment = createTorment({ seed: 1, maxDecisions: 1, kinds: ['completion'] }, plainArena(4096))
    torment.decisions.listen(decision => seen.push(decision))
    const { m, a, b } = pairOn(machine(2, { path: 'direct', torment }))
    postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 8)])
    postSend(a.qp.send, { opcode: Wr.SEND, id: 2n, sges: [sgeOf(a.mr, 0, 8)] })
    m.settle()
    modify(a.qp, { state: Qps.ERR })
    const [decision, outcome] = seen
    assert.equal(decision?.held, undefined)
    assert.equal(outcome?.id, decision?.id)
    assert.deepEqual([outcome?.held?.isEarly, outcome?.held?.passedCount], [true, 1])
    const queues = ['receive1', 'send1'].flatMap(thing => ['rxe0', 'rxe1'].map(name => `${name}/-/rc_qp1/${thing}`))
    assert.ok(queues.includes(outcome!.held!.passed[0]!), outcome!.held!.passed[0])
  })
  describe('with ~', () => {
    const SEND = 'completion/rxe0/-/rc_qp1/send1'
    const RECEIVE = 'rxe1/-/rc_qp1/receive1'
    /** A SEND, with what is held. */
    const sent = (only: readonly string[]) => {
      const ends: TormentDecision[] = []
      const torment = createTorment({ seed: 1, maxDecisions: Number.POSITIVE_INFINITY, only }, plainArena(4096))
      torment.decisions.listen(decision => {
        if (decision.held !== undefined) ends.push(decision)
      })
      const { m, a, b } = pairOn(machine(2, { path: 'packets', torment }))
      postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 8)])
      postSend(a.qp.send, { opcode: Wr.SEND, id: 2n, sges: [sgeOf(a.mr, 0, 8)] })
      m.settle()
      return { m, a, b, ends, torment }
    }
    it('holds a completion until the program has polled another', () => {
      const { m, a, b, ends, torment } = sent([`${SEND}~${RECEIVE}`])
      for (let i = 0; i < 20; i++) m.tick()
      assert.deepEqual([completions(a.cq).length, ends.length], [0, 0])
      assert.equal(completions(b.cq).length, 1)
      assert.ok(m.tick())
      assert.equal(completions(a.cq).length, 1)
      assert.deepEqual([ends[0]?.held?.hasCome, torment.decisions.missed], [true, []])
    })
    it('holds it at most MAX_HOLD', () => {
      const { m, a, ends } = sent([`${SEND}~rxe1/-/rc_qp1/receive2`])
      while (ends.length === 0) assert.ok(m.tick())
      assert.equal(completions(a.cq).length, 1)
      assert.equal(ends[0]?.held?.hasCome, false)
      assert.ok(ends[0].held.microseconds >= MAX_HOLD, `${ends[0].held.microseconds} µs`)
    })
    it('holds what one decision is about until that of another goes on', () => {
      for (const [other, isHeld] of [
        ['ack/rxe1/-/rc_qp1/message1', true],
        ['request/rxe0/-/rc_qp1/post1', true],
        ['ack/rxe1/-/rc_qp1/message2', false],
      ] as const) {
        const { m, ends } = sent([`completion/${RECEIVE}~${other}`, `${other}~3000`])
        run(m)
        const { held } = ends.find(({ kind }) => kind === 'completion')!
        assert.equal(held?.hasCome, isHeld, other)
      }
    })
    it('starts no post that was not made', () => {
      const { m, torment } = sent(['request/rxe0/-/rc_qp1/post2'])
      run(m)
      assert.deepEqual(torment.decisions.missed, ['request/rxe0/-/rc_qp1/post2'])
    })
    it('waits for so many microseconds', () => {
      const { m, ends } = sent([`${SEND}~1234`])
      run(m)
      assert.equal(ends[0]?.held?.hasCome, undefined)
      assert.equal(ends[0]?.text.endsWith('waits for 1234 µs'), true, ends[0]?.text)
    })
  })
  it('makes other decisions than most other seeds', () => {
    const texts = Array.from({ length: 30 }, (_, seed) => JSON.stringify(decisionsOf(seed)))
    assert.ok(new Set(texts).size > 15)
  })
})

describe('the text of a decision', () => {
  /** The texts of all decisions while SENDs and WRITEs are executed, and the CQ of the receiver is armed. */
  const textsOf = (seed: number): string[] => {
    const torment = tormentOf(seed, plainArena(4096))
    const texts: string[] = []
    torment.decisions.listen(({ kind, text }) => texts.push(`${kind}: ${text}`))
    const m = machine(2, { torment })
    const a = makeEnd(m, 0)
    const p = program(m, 1)
    const cq = makeCq(p, 31, makeChannel(p).fd)
    const b: End = { p, cq, qp: makeQp(p, cq), mr: register(p, 65536) }
    connectQps(a.qp, b.qp, {}, { timeout: 8 })
    // like a real clock, the clock goes on between two reads
    let time = 0
    Object.defineProperty(m, 'now', {
      get: () => {
        time += 0.37
        return time
      },
      set: (value: number) => {
        time = value
      },
    })
    for (let i = 0; i < 5; i++) {
      invokeNow(p.context, Cq, 'reqNotify', cq.handle, { solicitedOnly: 0 }, p.caller)
      exchange(m, a, b, i)
    }
    run(m)
    return texts
  }
  const texts = Array.from({ length: SEEDS }, (_, seed) => textsOf(seed)).flat()
  it('has whole microseconds', () => {
    const times = texts.flatMap(text => [...text.matchAll(/(\S+) µs/g)].map(([, time]) => time))
    assert.ok(times.length > 100)
    for (const time of times) assert.match(time, /^[1-9]\d*$/)
    for (const kind of ['bytes', 'completion', 'event', 'spurious', 'ack'])
      assert.ok(
        texts.some(text => text.startsWith(kind) && text.includes('µs')),
        kind,
      )
  })
  it('of parts of a payload has the times since its arrival', () => {
    let several = 0
    for (const text of texts.filter(text => text.startsWith('bytes'))) {
      const times = [...text.matchAll(/after (\d+) µs/g)].map(([, time]) => Number(time))
      if (times.length > 1) several++
      assert.deepEqual(
        times,
        times.toSorted((x, y) => x - y),
        text,
      )
    }
    assert.ok(several > 0)
  })
  it('of a late ACK has at most a quarter of the ACK timeout', () => {
    for (const text of texts.filter(text => text.startsWith('ack')))
      assert.ok(Number(/(\d+) µs/.exec(text)![1]) <= (4.096 * 2 ** 8) / 4, text)
  })
})

describe('every kind', () => {
  /** The kinds of all decisions while WRITEs, SENDs whose receiver is not ready, and one that fails are executed. */
  const decidedKinds = (seed: number, maxDecisions?: number): TormentKind[] => {
    const torment = tormentOf(seed, plainArena(4096), maxDecisions)
    const kinds: TormentKind[] = []
    torment.decisions.listen(({ kind }) => kinds.push(kind))
    const m = machine(2, { torment })
    // all memory is lent, and nobody uses it
    m.devices[1].device.memory.lentWatch = { watch: () => () => {}, update() {} }
    const a = makeEnd(m, 0)
    const p = program(m, 1)
    const cq = makeCq(p, 20, makeChannel(p).fd)
    const b: End = { p, cq, qp: makeQp(p, cq), mr: register(p, 65536, ALL_ACCESS | RELAXED_ORDERING) }
    connectQps(a.qp, b.qp)
    for (let i = 0; i < 8; i++) {
      invokeNow(p.context, Cq, 'reqNotify', cq.handle, { solicitedOnly: 0 }, p.caller)
      postSend(a.qp.send, writeTo(a, b))
      postSend(a.qp.send, { opcode: Wr.SEND, sges: [sgeOf(a.mr, 0, 8)] })
      m.settle()
      postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 8)])
      run(m)
      assert.deepEqual(
        [...completions(a.cq), ...completions(b.cq)].map(({ status }) => status),
        [0, 0, 0],
        `seed ${seed}`,
      )
    }
    postSend(a.qp.send, { opcode: Wr.SEND, id: 77n, sges: [{ ...sgeOf(a.mr, 0, 8), lkey: 0 }] })
    run(m)
    const [failed] = completions(a.cq)
    assert.deepEqual([failed?.id, failed?.status], [77, WcStatus.values.LOC_PROT_ERR])
    return kinds
  }
  for (const kind of tormentKinds)
    it(`${kind} happens with a seed that has it, and not with other seeds or with maxDecisions 0`, () => {
      const seed = seedWith(kind, 1)
      assert.ok(decidedKinds(seed).includes(kind), `seed ${seed}`)
      assert.deepEqual(decidedKinds(seed, 0), [])
      assert.ok(!decidedKinds(seedWithout(kind)).includes(kind))
    })
})

describe('limits and packets', () => {
  it('a CQ has exactly as many entries as requested, also after a resize (kind limit)', () => {
    const torment = tormentOf(seedWith('limit', 1), plainArena(4096))
    const m = machine(1, { path: 'direct', torment })
    const p = program(m)
    const cq = makeCq(p, 20)
    assert.equal(cq.cqe, 20)
    assert.equal(cq.ring.mask, 31)
    assert.equal(invokeNow(p.context, Cq, 'modify', cq.handle, { cqe: 9 }, p.caller).out.cqe, 9)
  })
  it('a device has the smallest limits of all adapters with RC, reports them and refuses more (kind adapter)', () => {
    const torment = tormentOf(seedWith('adapter', 1), plainArena(4096))
    const texts: string[] = []
    torment.decisions.listen(({ kind, text }) => texts.push(`${kind}: ${text}`))
    const m = machine(1, { path: 'direct', torment })
    const { attributes } = m.devices[0].device
    assert.deepEqual(
      [attributes.maxQpWr, attributes.maxSge, attributes.maxSrqWr, attributes.maxQpRdAtom],
      [4351, 6, 32767, 16], // docs/reference/adapters.md
    )
    assert.ok(texts.includes('adapter: max_inline_data: at most 101'), texts.join('\n'))
    const p = program(m)
    const cq = makeCq(p)
    for (const cap of [{ maxSendSge: 7 }, { maxRecvSge: 7 }, { maxInlineData: 102 }, { maxSendWr: 4352 }])
      assert.throws(() => makeQp(p, cq, { cap }), /rc_qp\.create: attribute cap\.max\w+: \d+ is not in 0 to/)
    makeQp(p, cq, { cap: { maxSendSge: 6, maxInlineData: 101 } })
    assert.equal(tormentOf(seedWith('adapter', 1), plainArena(64), 0).limits('rxe0', Limits).maxSge, Limits.maxSge)
  })
  it('send and receive queues accept exactly as many requests as requested (kind queue)', () => {
    const torment = tormentOf(seedWith('queue', 1), plainArena(4096))
    const m = machine(2, { path: 'direct', torment })
    const p = program(m)
    const cap = { maxSendWr: 4, maxRecvWr: 5, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 8 }
    const qp = makeQp(p, makeCq(p), { cap })
    assert.deepEqual(qp.cap, cap)
    assert.deepEqual(query(qp).cap, cap)
    const postUntilFull = () => {
      let sends = 0
      let receives = 0
      while (postSend(qp.send, { opcode: Wr.SEND })) sends++
      while (postReceive(qp.receive, 1n, [])) receives++
      return { sends, receives }
    }
    assert.deepEqual(postUntilFull(), { sends: 4, receives: 5 })
    modify(qp, { state: Qps.RESET })
    assert.deepEqual(postUntilFull(), { sends: 4, receives: 5 })
  })
  it('the slot of a send is free after a CQE of the send or of a later send, the slot of a receive after its CQE', () => {
    for (const path of PATHS) {
      const torment = tormentOf(seedWith('queue', 1), plainArena(4096))
      const m = machine(2, { path, torment })
      const [a, b] = [0, 1].map(device => {
        const p = program(m, device)
        const cq = makeCq(p, 31)
        return { p, cq, qp: makeQp(p, cq, { cap: { maxSendWr: 4, maxRecvWr: 3 } }), mr: register(p, 4096) }
      }) as [End, End]
      connectQps(a.qp, b.qp)
      const receive = () => postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 8)])
      const send = (flags: number) => postSend(a.qp.send, { opcode: Wr.SEND, flags, sges: [sgeOf(a.mr, 0, 8)] })
      for (let round = 0; round < 10; round++) {
        for (let i = 0; i < 3; i++) assert.ok(receive() && send(0))
        assert.equal(receive(), false)
        run(m)
        assert.equal(completions(b.cq).length, 3)
        assert.ok(receive() && send(Flag.SIGNALED))
        assert.equal(send(0), false, 'slots of unsignaled sends are free before a completion')
        run(m)
        assert.equal(completions(a.cq).length + completions(b.cq).length, 2)
      }
      for (let i = 0; i < 4; i++) assert.ok(send(0))
      modify(a.qp, { state: Qps.ERR })
      run(m)
      assert.equal(completions(a.cq).length, 4)
      for (let i = 0; i < 4; i++) assert.ok(send(0))
    }
  })
  it('fault rules still apply', () => {
    const { m, a, b } = tormented(seedWith('packet', 1), 'direct')
    prepare(a, b)
    m.ports[0].setFaults(parseFaults('dir=sent,drop=100%'))
    postSend(a.qp.send, writeTo(a, b))
    m.settle()
    for (let i = 0; i < 3; i++) m.tick()
    assert.deepEqual(completions(a.cq), [])
    assert.equal(b.mr.bytes[AT], BEFORE)
    m.ports[0].setFaults([])
    run(m)
    assert.deepEqual(
      completions(a.cq).map(({ status }) => status),
      [0],
    )
    assert.ok(isWhole(a, b))
  })
  it('packets are duplicated and overtaken, and every message arrives', () => {
    const seed = seedWith('packet', 1)
    const { torment, m, a, b } = tormented(seed, 'direct')
    const texts: string[] = []
    torment.decisions.listen(({ kind, text }) => {
      if (kind === 'packet') texts.push(text)
    })
    for (let i = 0; i < 40; i++) exchange(m, a, b, i)
    for (const effect of ['duplicated', 'reordered'])
      assert.ok(
        texts.some(text => new RegExp(`^${effect}: RC_[A-Z_]+ to QP 0x[0-9a-f]+$`).test(text)),
        `${effect}: ${texts.join('; ')}`,
      )
  })
})

describe('late requests', () => {
  it('do not delay an invalidation that is posted behind them: no later WRITE of another queue pair passes it', () => {
    const m = machine(1, { path: 'direct', torment: tormentOf(seedWith('request', 1), plainArena(4096)) })
    const p = program(m)
    const cq = makeCq(p)
    const [first, second] = [makeQp(p, cq), makeQp(p, cq)]
    connectQps(first, second)
    const { LOCAL_WRITE, REMOTE_WRITE, MW_BIND } = AccessFlags.values
    const mr = register(p, 4096, LOCAL_WRITE | REMOTE_WRITE | MW_BIND)
    const write = { opcode: Wr.WRITE, sges: [sgeOf(mr, 64, 8)], remote: mr.address }
    // the device has no window yet, so this request starts late
    postSend(second.send, { ...write, id: 1n, rkey: mr.rkey })
    p.rxe.poll(m.now)
    assert.deepEqual(completions(cq), [])
    const { rkey } = invokeNow(p.context, Mw, 'create', 0, { pd: p.pd, type: MwType.values.TYPE_2 }, p.caller).out
    const pd = p.context.handles.slots.find(object => object?.class.name === 'pd')!.id
    const [hi, lo] = [Math.floor(mr.address / 2 ** 32), mr.address >>> 0]
    const range = { lkey: mr.lkey, hi, lo, lengthHi: 0, lengthLo: 64 }
    assert.ok(
      bindWindow(p.rxe.device.memory, pd, second.qpn, { window: rkey, key: rkey, ...range, access: REMOTE_WRITE }),
    )
    postSend(second.send, { opcode: WrOpcode.values.LOCAL_INV, id: 2n, imm: rkey })
    postSend(first.send, { ...write, id: 3n, rkey })
    run(m)
    assert.equal(completions(cq).find(({ id }) => id === 3)?.status, WcStatus.values.REM_ACCESS_ERR)
  })
})

describe('a removed device', () => {
  it('is not kept: the end of the decisions does not change its port', () => {
    const torment = tormentOf(seedWith('packet', 1, 'numbers'), plainArena(4096), 1)
    const m = machine(3, { torment })
    const changed = new Set<number>()
    for (const [i, port] of m.ports.entries())
      Object.defineProperty(port, 'receiver', { get: () => null, set: () => changed.add(i) })
    unregister(m.devices[0].device as Device)
    torment.decisions.decide('packet', 'rxe1/-/qp', 'packet', 1, { isAlways: true })!.note(() => '')
    assert.ok(torment.decisions.isOver)
    assert.equal(changed.size, 0)
    m.devices[1].poll(m.now)
    assert.deepEqual([...changed], [1, 2])
  })
})

describe('a responder', () => {
  it('sends RNR NAKs with longer timers when it has no receive request', () => {
    let longSeeds = 0
    for (let seed = 0; seed < SEEDS; seed++) {
      const { m, a, b } = tormented(seed, 'direct')
      postSend(a.qp.send, { opcode: Wr.SEND, sges: [sgeOf(a.mr, 0, 8)] })
      m.settle()
      postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 8)])
      run(m)
      assert.deepEqual(
        completions(a.cq).map(({ status }) => status),
        [0],
        `seed ${seed}`,
      )
      // min_rnr_timer is 12, 640 µs, and the waits of other kinds are together below 100 ms
      if (m.now > 100_000) longSeeds++
    }
    assert.ok(longSeeds > 0)
  })
  it('acknowledges only bytes that are in memory, and late ACKs make no request fail or repeat', () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const { torment, m, a, b } = tormented(seed, 'packets')
      prepare(a, b)
      for (let i = 0; i < 8; i++) postSend(a.qp.send, writeTo(a, b, { id: BigInt(i) }))
      let completed = 0
      run(m, () => {
        for (const { status } of completions(a.cq)) {
          assert.equal(status, 0, `seed ${seed}`)
          completed++
        }
        if (completed > 0) assert.ok(isWhole(a, b))
      })
      assert.equal(completed, 8)
      const { retransmissions } = m.devices[0].device.state.engine().counters
      if (torment.decisions.probability('packet') === 0) assert.equal(retransmissions, 0, `seed ${seed}`)
    }
  })
})
