/*
 * Copies within the memory of a program by work requests (mlx5dv_wr_memcpy): what they copy, what they may not reach,
 * how they fail, and that they do not keep others waiting.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Mr } from '../../../src/spec/classes/mr.ts'
import { Pd } from '../../../src/spec/classes/pd.ts'
import { NULL_KEY } from '../../../src/spec/drivers/mlx5.ts'
import { Commands } from '../../../src/spec/drivers/mlx5-firmware/commands.ts'
import { CompletionKind, syndromes } from '../../../src/spec/drivers/mlx5-queues.ts'
import { AccessFlags } from '../../../src/spec/enums.ts'
import { MAX_COPY_BYTES, WcStatus } from '../../../src/spec/work.ts'
import { encodeFields } from '../../../src/uapi/firmware/fields.ts'
import { klm, withCommands } from './firmware.ts'
import { type Element, MMO, machine, type Program, program, RDMA_READ, RDMA_WRITE, SEND } from './machine.ts'

const { REQUEST, REQUEST_ERROR } = CompletionKind
const { LOC_LEN_ERR, LOC_PROT_ERR, LOC_QP_OP_ERR, WR_FLUSH_ERR } = WcStatus.values
const { LOCAL_WRITE, REMOTE_READ } = AccessFlags.values
/** Segments of metadata, source and destination. */
const copyOf = (source: Element, target: Element) => {
  const raw = new Uint8Array(48)
  const view = new DataView(raw.buffer)
  for (const [i, { address, length, lkey }] of [source, target].entries()) {
    view.setUint32(16 + 16 * i, length)
    view.setUint32(20 + 16 * i, lkey)
    view.setBigUint64(24 + 16 * i, address)
  }
  return { opcode: MMO, modifier: 1, raw }
}

/** A program with a queue pair in RTS whose peer does not exist, as for copies alone. */
const setUp = (options: Parameters<Program['queuePair']>[1] = {}) => {
  const m = machine(2)
  const p = program(m, 0)
  const qp = p.queuePair('rc', options)
  qp.connect({ qpn: 0 }, 1)
  for (let i = 0; i < p.bytes.length; i++) p.bytes[i] = (i * 7) ^ (i >> 8)
  const completions = (count: number) => {
    const seen: ReturnType<Program['poll']> = []
    m.runUntil(() => {
      seen.push(...p.poll())
      return seen.length >= count
    })
    return seen
  }
  const copy = (source: Element, target: Element) => {
    qp.post(copyOf(source, target))
    return completions(1)[0]!
  }
  /** Another region over the program's memory. */
  const region = (pd: number, access: number) =>
    p.call<{ lkey: number }>(Mr, 'create', 0, { pd, start: p.address, length: 4096n, iova: p.address, access })
  return { m, p, qp, copy, completions, region }
}

/** The copy of `make` fails with `status`, and has written nothing. */
const fails = (status: number, make: (s: ReturnType<typeof setUp>) => readonly [Element, Element]): void => {
  const s = setUp()
  const [source, target] = make(s)
  const before = s.p.bytes.slice()
  const { kind, syndrome, opcode } = s.copy(source, target)
  assert.deepEqual([kind, syndrome, opcode], [REQUEST_ERROR, syndromes[status], MMO])
  assert.deepEqual(s.p.bytes, before)
}

describe('a copy', () => {
  it('of any length, also over several slices, has the bytes of its source', () => {
    const { p, copy } = setUp()
    for (const length of [1, 3, 4096, 32_768, 32_769, 100_001]) {
      p.bytes.fill(0, 0x2_0000)
      const { kind, opcode, bytes } = copy(p.element(5, length), p.element(0x2_0000, length))
      assert.deepEqual([kind, opcode, bytes], [REQUEST, MMO, length])
      assert.deepEqual(p.bytes.slice(0x2_0000, 0x2_0000 + length), p.bytes.slice(5, 5 + length))
      assert.equal(p.bytes[0x2_0000 + length], 0)
    }
  })

  it('reads zeros of the null region, and writes nothing there', () => {
    const { p, copy } = setUp()
    const nowhere = { address: 0n, length: 64, lkey: NULL_KEY }
    assert.equal(copy(nowhere, p.element(0, 64)).kind, REQUEST)
    assert.deepEqual(p.bytes.slice(0, 64), new Uint8Array(64))
    assert.equal(copy(p.element(64, 64), nowhere).kind, REQUEST)
  })

  it('completes in order with messages, also after a loss', () => {
    const m = machine(2, 'drop=1,count=2')
    const [a, b] = [program(m, 0), program(m, 1)]
    const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
    qa.connect(qb, 1)
    qb.connect(qa, 0)
    a.bytes.set([1, 2, 3, 4])
    b.bytes.set([9, 8, 7, 6], 64)
    const remote = (offset: number) => ({ address: b.address + BigInt(offset), rkey: b.region.rkey })
    qa.post({ opcode: RDMA_READ, data: [a.element(100_000, 4)], remote: remote(64) })
    // waits for the READ
    qa.post({ ...copyOf(a.element(100_000, 100_000), a.element(8, 100_000)), flags: 8 | (2 << 5) })
    qa.post({ opcode: RDMA_WRITE, data: [a.element(8, 4)], remote: remote(0) })
    const seen: ReturnType<Program['poll']> = []
    m.runUntil(() => seen.push(...a.poll()) >= 3)
    assert.deepEqual(
      seen.map(({ kind, opcode }) => [kind, opcode]),
      [RDMA_READ, MMO, RDMA_WRITE].map(opcode => [REQUEST, opcode]),
    )
    assert.deepEqual(b.bytes.slice(0, 4), Uint8Array.of(9, 8, 7, 6))
  })

  it('needs no target of an initiator of DC', () => {
    const m = machine(1)
    const p = program(m, 0)
    const qp = p.queuePair('dci')
    qp.start()
    p.bytes.set([1, 2, 3])
    qp.post(copyOf(p.element(0, 3), p.element(64, 3)))
    let kind: number | undefined
    m.runUntil(() => {
      kind ??= p.poll()[0]?.kind
      return kind !== undefined
    })
    assert.equal(kind, REQUEST)
    assert.deepEqual(p.bytes.slice(64, 67), Uint8Array.of(1, 2, 3))
  })

  it('that the program does not want to hear of has no completion', () => {
    const { p, qp, completions } = setUp()
    qp.post({ ...copyOf(p.element(0, 8), p.element(64, 8)), flags: 0 })
    qp.post(copyOf(p.element(0, 8), p.element(128, 8)))
    assert.deepEqual(
      completions(1).map(({ counter }) => counter),
      [1],
    )
    assert.deepEqual(p.bytes.slice(64, 72), p.bytes.slice(0, 8))
  })
})

describe('a copy is refused, and nothing is copied,', () => {
  const beyond = { address: 0xffff_ffff_ffff_ff00n, length: 512 }

  it('if a key is unknown, of another domain or another program, or lacks the right', () => {
    fails(LOC_PROT_ERR, ({ p }) => [p.element(0, 64), { ...p.element(64, 64), lkey: 0x1234_5678 }])
    fails(LOC_PROT_ERR, ({ p }) => [{ ...p.element(0, 64), lkey: 0 }, p.element(64, 64)])
    for (const isSource of [true, false])
      fails(LOC_PROT_ERR, ({ p, region }) => {
        const { lkey } = region(p.call(Pd, 'create', 0, {}).object, LOCAL_WRITE).out
        const foreign = { ...p.element(0, 64), lkey }
        return isSource ? [foreign, p.element(64, 64)] : [p.element(64, 64), foreign]
      })
    fails(LOC_PROT_ERR, ({ p, region }) => [
      p.element(64, 64),
      { ...p.element(0, 64), lkey: region(p.pd, REMOTE_READ).out.lkey },
    ])
    for (const isSource of [true, false])
      fails(LOC_PROT_ERR, ({ p, m }) => {
        const other = program(m, 0)
        const foreign = other.element(0, 64)
        return isSource ? [foreign, p.element(0, 64)] : [p.element(0, 64), foreign]
      })
  })

  it('if a range goes beyond its region, or beyond all addresses', () => {
    fails(LOC_PROT_ERR, ({ p }) => [p.element(p.bytes.length - 63, 64), p.element(0, 64)])
    fails(LOC_PROT_ERR, ({ p }) => [p.element(0, 100_000), p.element(p.bytes.length - 99_999, 100_000)])
    fails(LOC_PROT_ERR, ({ p }) => [{ ...beyond, lkey: p.region.lkey }, p.element(0, 512)])
    fails(LOC_PROT_ERR, ({ p }) => [p.element(0, 512), { ...beyond, lkey: p.region.lkey }])
  })

  it('if its lengths differ, or are more than the device tells', () => {
    for (const [from, to] of [
      [8, 9],
      [9, 8],
      [0, 0],
      [0, 8],
      [8, 0],
      [MAX_COPY_BYTES + 1, MAX_COPY_BYTES + 1],
      [0x7fff_ffff, 0x7fff_ffff],
    ] as const)
      fails(LOC_LEN_ERR, ({ p }) => [p.element(0, from), p.element(64, to)])
  })

  it('if the request has another form', () => {
    const malformed = (request: object, kind: 'rc' | 'ud' = 'rc'): void => {
      const m = machine(1)
      const p = program(m, 0)
      const qp = p.queuePair(kind)
      if (kind === 'rc') qp.connect({ qpn: 0 }, 0)
      else qp.activate()
      const before = p.bytes.slice()
      qp.post({ ...copyOf(p.element(0, 64), p.element(64, 64)), ...request })
      const seen: ReturnType<Program['poll']> = []
      m.runUntil(() => seen.push(...p.poll()) >= 1)
      assert.deepEqual([seen[0]!.kind, seen[0]!.syndrome], [REQUEST_ERROR, syndromes[LOC_QP_OP_ERR]])
      assert.deepEqual(p.bytes, before)
    }
    const { raw } = copyOf({ address: 0n, length: 8, lkey: 0 }, { address: 0n, length: 8, lkey: 0 })
    const inline = raw.slice()
    inline[32] = 0x80
    for (const modifier of [0, 2, 255]) malformed({ modifier })
    for (const count of [0, 16, 32]) malformed({ raw: raw.subarray(0, count) })
    malformed({ raw: new Uint8Array(64) })
    malformed({ raw: inline })
    malformed({}, 'ud')
  })
})

describe('copies and other requests', () => {
  it('of which one fails flush what follows', () => {
    const { p, qp, completions } = setUp()
    qp.post(copyOf(p.element(0, 8), p.element(64, 8)))
    qp.post(copyOf(p.element(0, 8), { ...p.element(64, 8), lkey: 5 }))
    qp.post(copyOf(p.element(0, 8), p.element(128, 8)))
    const before = p.bytes.slice(128, 136)
    assert.deepEqual(
      completions(3).map(({ syndrome }) => syndrome),
      [0, syndromes[LOC_PROT_ERR], syndromes[WR_FLUSH_ERR]],
    )
    assert.deepEqual(p.bytes.slice(128, 136), before)
  })

  it('of a key that ends while the copy runs stop there', () => {
    const { m, p, qp } = setUp()
    const { object, out } = p.call<{ lkey: number }>(Mr, 'create', 0, {
      pd: p.pd,
      start: p.address,
      length: BigInt(p.bytes.length),
      iova: p.address,
      access: LOCAL_WRITE,
    })
    // one-byte ranges make slices that end the device's turn
    const { scattered } = scatteredKey(p, p.region.lkey)
    for (let i = 0; i < 40; i++)
      qp.post(copyOf({ address: 0n, length: 4096, lkey: scattered }, { ...p.element(131_072, 4096), lkey: out.lkey }))
    m.devices[0]!.poll(0)
    p.call(Mr, 'destroy', object, {})
    const seen: ReturnType<Program['poll']> = []
    m.runUntil(() => seen.push(...p.poll()) >= 40)
    const syndromesSeen = [...new Set(seen.map(({ syndrome }) => syndrome))]
    assert.deepEqual(syndromesSeen.slice(-2), [syndromes[LOC_PROT_ERR], syndromes[WR_FLUSH_ERR]])
  })

  /**
   * Two connected programs, and `count` more queue pairs of the first one with `each` copies. Polls until a message has
   * arrived.
   */
  const pollsUntilMessage = (count: number, each: number, isScattered: boolean) => {
    const m = machine(2)
    const [a, b] = [program(m, 0), program(m, 1)]
    const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
    qa.connect(qb, 1)
    qb.connect(qa, 0)
    const source = isScattered ? scatteredKey(a, a.region.lkey).scattered : a.region.lkey
    for (let i = 0; i < count; i++) {
      const qp = a.queuePair('rc', { sends: each })
      qp.connect({ qpn: 0 }, 1)
      for (let n = 1; n <= each; n++) {
        const [from, length] = isScattered
          ? [{ ...a.element(0, 4096), address: 0n }, 4096]
          : [a.element(0, 120_000), 120_000]
        qp.post({ ...copyOf({ ...from, lkey: source }, a.element(131_072, length)), flags: n === each ? 8 : 0 })
      }
    }
    qb.receive(b.element(0, 64))
    qa.post({ opcode: SEND, data: [a.element(0, 64)] })
    let polls = 0
    for (; b.poll().length === 0; polls++) for (const { poll } of m.devices) poll(0)
    const ended = new Set<number>()
    m.runUntil(() => {
      for (const { kind, qpn } of a.poll()) if (kind === REQUEST) ended.add(qpn)
      return ended.size === count + 1
    })
    return polls
  }

  it('share the device: a message does not wait for ten thousand long copies', () => {
    assert.ok(pollsUntilMessage(20, 512, false) <= 4)
  })

  it('share the device: a message does not wait for copies of ranges of one byte', () => {
    assert.ok(pollsUntilMessage(4, 16, true) <= 8)
  })

  it('that are not awaited end with the queue pair', () => {
    const { m, p, qp } = setUp()
    for (let i = 0; i < 64; i++) qp.post(copyOf(p.element(0, 120_000), p.element(131_072, 120_000)))
    m.devices[0]!.poll(0)
    qp.destroy()
    for (let i = 0; i < 10; i++) m.devices[0]!.poll(0)
    assert.equal(m.devices[0]!.device.counts.rc_qp, 0)
  })
})

/** A key over 2048 ranges of one byte, twice. */
function scatteredKey(p: Program, key: number) {
  const firmware = withCommands(p)
  const pd = (p.context.handles.slots[p.pd]!.state as { number: number }).number
  const make = (ranges: readonly { key: number; address: bigint; length: number }[], len: bigint) => {
    const list = Buffer.concat(
      ranges.map(({ key: mkey, address, length }) => encodeFields(klm, { mkey, address, byte_count: length })),
    )
    const count = ranges.length
    const { out } = firmware.create(
      Commands.CREATE_MKEY,
      {
        memory_key_mkey_entry: {
          access_mode_1_0: 2,
          pd,
          qpn: 0xff_ffff,
          translations_octword_size: count,
          len,
          lr: 1,
          lw: 1,
        },
        translations_octword_actual_size: count,
        klm_pas_mtt: list,
      },
      { restBytes: list.length },
    )
    return (out.mkey_index << 8) >>> 0
  }
  const bytes = Array.from({ length: 2048 }, (_, i) => ({ key, address: p.address + BigInt(2 * i), length: 1 }))
  const inner = make(bytes, 2048n)
  const twice = [0, 1].map(() => ({ key: inner, address: 0n, length: 2048 }))
  return { scattered: make(twice, 4096n) }
}
