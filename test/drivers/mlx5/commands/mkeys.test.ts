/*
 * Memory keys made by firmware commands: over user memory, over ranges of other keys, loops of them, and what is
 * refused.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { closeContext } from '../../../../src/core/index.ts'
import { Mr } from '../../../../src/spec/classes/mr.ts'
import { Pd } from '../../../../src/spec/classes/pd.ts'
import { NULL_KEY, REPEAT_BLOCK } from '../../../../src/spec/drivers/mlx5.ts'
import { Commands } from '../../../../src/spec/drivers/mlx5-firmware/commands.ts'
import { CompletionKind } from '../../../../src/spec/drivers/mlx5-queues.ts'
import { encodeFields } from '../../../../src/uapi/firmware/fields.ts'
import { assertErrno, assertRefused, klm, withCommands } from '../firmware.ts'
import { ATOMIC_FA, machine, program, RDMA_READ, RDMA_WRITE, UMR } from '../machine.ts'

const KLM = 2
const KSM = 3
const MTT = 1
const RIGHTS = { lr: 1, lw: 1, rr: 1, rw: 1, a: 1 }
const { REQUEST, REQUEST_ERROR } = CompletionKind

interface Range {
  readonly key: number
  readonly address: bigint
  readonly length?: number
}

/** Two connected programs; `b` gives commands. */
const setUp = (fault = '') => {
  const m = machine(2, fault)
  const [a, b] = [program(m, 0), program(m, 1)]
  const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
  qa.connect(qb, 1)
  qb.connect(qa, 0)
  const firmware = withCommands(b)
  const pd = (b.context.handles.slots[b.pd]!.state as { number: number }).number
  const key = (mode: number, context: object, ranges: readonly Range[] = [], more: object = {}) => {
    const list = Buffer.concat(
      ranges.map(({ key: mkey, address, length = 0 }) => encodeFields(klm, { mkey, address, byte_count: length })),
    )
    const { handle, out } = firmware.create(
      Commands.CREATE_MKEY,
      {
        memory_key_mkey_entry: {
          access_mode_1_0: mode,
          pd,
          qpn: 0xff_ffff,
          translations_octword_size: ranges.length,
          ...RIGHTS,
          ...context,
        },
        translations_octword_actual_size: ranges.length,
        klm_pas_mtt: list,
        ...more,
      },
      { restBytes: list.length },
    )
    return { handle, index: out.mkey_index, rkey: (out.mkey_index << 8) >>> 0 }
  }
  /** Executes a request of `a` and returns the kind of its completion. */
  const execute = (request: object): number => {
    qa.post({ opcode: RDMA_READ, data: [a.element(0, 8)], ...request })
    let kind: number | undefined
    m.runUntil(() => {
      kind ??= a.poll()[0]?.kind
      return kind !== undefined
    })
    return kind!
  }
  /** Executes a request of `b`. */
  const configure = (request: Parameters<typeof qb.post>[0]): number => {
    qb.post(request)
    let kind: number | undefined
    m.runUntil(() => {
      kind ??= b.poll()[0]?.kind
      return kind !== undefined
    })
    return kind!
  }
  const read = (rkey: number, address: bigint, length: number) => {
    const kind = execute({ data: [a.element(0, length)], remote: { address, rkey } })
    return { kind, bytes: a.bytes.slice(0, length) }
  }
  b.bytes.set(Uint8Array.from({ length: 1 << 16 }, (_, i) => (i * 7) ^ (i >> 8)))
  return {
    m,
    a,
    b,
    qa,
    firmware,
    pd,
    key,
    execute,
    configure,
    read,
    region: b.region.lkey,
    at: (offset: number) => b.address + BigInt(offset),
  }
}

describe('a key of fixed ranges (KSM)', () => {
  it('with byte 0 over 8 bytes at address 0 is the flush key of UCX', () => {
    const { key, read, b, region, at } = setUp()
    const flush = key(KSM, { len: 8n, log_page_size: 30 }, [{ key: region, address: at(64) }])
    assert.equal(flush.rkey & 0xff, 0)
    assert.deepEqual(read(flush.rkey, 0n, 8), { kind: REQUEST, bytes: b.bytes.slice(64, 72) })
  })

  it('translates addresses from its first one on, whatever that is', () => {
    const { key, read, b, region, at } = setUp()
    const start = 0x7fff_1234_5678n
    const ranges = [0x3000, 0x1000, 0x8000].map(offset => ({ key: region, address: at(offset) }))
    const { rkey } = key(KSM, { start_addr: start, len: 0x3000n, log_page_size: 12, mkey_7_0: 0x5a }, ranges)
    const bytes = Buffer.concat([0x3000, 0x1000, 0x8000].map(offset => b.bytes.subarray(offset, offset + 0x1000)))
    assert.deepEqual(read(rkey | 0x5a, start, 0x3000).bytes, new Uint8Array(bytes))
    assert.deepEqual(read(rkey | 0x5a, start + 0xffdn, 10).bytes, new Uint8Array(bytes.subarray(0xffd, 0xffd + 10)))
  })

  it('takes writes and atomics as its ranges and rights permit', () => {
    const { key, execute, b, a, region, at } = setUp()
    const ranges = [{ key: region, address: at(0x100) }]
    const { rkey } = key(KSM, { len: 0x1000n, log_page_size: 12 }, ranges)
    a.bytes.fill(0x77, 0, 8)
    assert.equal(execute({ opcode: RDMA_WRITE, remote: { address: 16n, rkey } }), REQUEST)
    assert.deepEqual(b.bytes.slice(0x110, 0x118), new Uint8Array(8).fill(0x77))
    new DataView(b.bytes.buffer).setBigUint64(0x120, 40n, true)
    const atomic = { swapAdd: 2n, compare: 0n }
    assert.equal(execute({ opcode: ATOMIC_FA, atomic, remote: { address: 32n, rkey } }), REQUEST)
    assert.equal(new DataView(b.bytes.buffer).getBigUint64(0x120, true), 42n)
    const { rkey: readOnly } = key(KSM, { len: 0x1000n, log_page_size: 12, rw: 0, a: 0 }, ranges)
    assert.equal(execute({ opcode: RDMA_WRITE, remote: { address: 16n, rkey: readOnly } }), REQUEST_ERROR)
  })
})

describe('a key of ranges (KLM)', () => {
  it('has ranges of any length, also of one byte', () => {
    const { key, read, b, region, at } = setUp()
    const lengths = [1, 3, 1000, 5000, 2]
    const ranges = lengths.map((length, i) => ({ key: region, address: at(0x2000 * i + i), length }))
    const { rkey } = key(KLM, { start_addr: 0x1001n, len: 6006n }, ranges)
    const bytes = Buffer.concat(lengths.map((length, i) => b.bytes.subarray(0x2000 * i + i, 0x2000 * i + i + length)))
    assert.deepEqual(read(rkey, 0x1001n, 6006).bytes, new Uint8Array(bytes))
    assert.equal(read(rkey, 0x1001n, 6007).kind, REQUEST_ERROR)
  })

  it('over a key over a key reaches the memory; a loop reaches nothing', () => {
    const { key, read, b, region, at } = setUp()
    const first = key(KLM, { len: 64n }, [{ key: region, address: at(0), length: 64 }])
    const second = key(KLM, { len: 32n }, [{ key: first.rkey, address: 32n, length: 32 }])
    assert.deepEqual(read(second.rkey, 8n, 8).bytes, b.bytes.slice(40, 48))
    // the next key that is made has the number behind this one
    const last = key(KLM, { len: 64n }, [{ key: region, address: at(0), length: 64 }])
    const own = ((last.index + 1) << 8) >>> 0
    const loop = key(KLM, { len: 64n }, [{ key: own, address: 0n, length: 64 }])
    assert.equal(loop.rkey, own)
    assert.equal(read(loop.rkey, 0n, 8).kind, REQUEST_ERROR)
  })

  /** A key of 64 KiB over lists of 2048 ranges of one byte. */
  const scatteredKey = ({ key, at, region }: Pick<ReturnType<typeof setUp>, 'key' | 'at' | 'region'>): number => {
    const bytes = Array.from({ length: 2048 }, (_, i) => ({ key: region, address: at(2 * i), length: 1 }))
    const scattered = key(KLM, { len: 2048n }, bytes).rkey
    const lists = Array.from({ length: 32 }, () => ({ key: scattered, address: 0n, length: 2048 }))
    return key(KLM, { len: 65_536n }, lists).rkey
  }

  it('of one byte does not keep others waiting for a whole message', () => {
    const made = setUp()
    const { a, b, m, qa, at, region } = made
    const other = [a.queuePair('rc'), b.queuePair('rc')] as const
    other[0].connect(other[1], 1)
    other[1].connect(other[0], 0)
    const rkey = scatteredKey(made)
    qa.post({ opcode: RDMA_WRITE, data: [a.element(0, 65_536)], remote: { address: 0n, rkey } })
    other[0].post({ opcode: RDMA_WRITE, data: [a.element(0, 8)], remote: { address: at(0), rkey: region } })
    const order: number[] = []
    m.runUntil(() => {
      order.push(...a.poll().map(({ qpn }) => qpn))
      return order.length === 2
    })
    assert.deepEqual(order, [other[0].qpn, qa.qpn])
  })

  /** A rule that never applies: messages are packets. */
  const asPackets = 'opcode=RC_ATOMIC_ACK,drop=100%'

  for (const [name, opcode] of [
    ['WRITE', RDMA_WRITE],
    ['READ', RDMA_READ],
  ] as const)
    it(`of one byte, as packets, does not keep others waiting for a window of ${name} packets`, () => {
      const made = setUp(asPackets)
      const { a, m, qa } = made
      const c = program(m, 1)
      const other = [a.queuePair('rc'), c.queuePair('rc')] as const
      other[0].connect(other[1], 1)
      other[1].connect(other[0], 0)
      const rkey = scatteredKey(made)
      const { memory } = m.devices[1]!.device
      let before = memory.rangeAccesses
      let most = 0
      const count = () => {
        most = Math.max(most, memory.rangeAccesses - before)
        before = memory.rangeAccesses
      }
      qa.post({ opcode, data: [a.element(0, 65_536)], remote: { address: 0n, rkey } })
      for (const _ of [0, 1, 2, 3])
        other[0].post({
          opcode: RDMA_WRITE,
          data: [a.element(0, 8)],
          remote: { address: c.address, rkey: c.region.rkey },
        })
      const order: number[] = []
      m.runUntil(() => {
        count()
        order.push(...a.poll().map(({ qpn }) => qpn))
        return order.length === 5
      })
      assert.deepEqual(order, [...Array.from({ length: 4 }, () => other[0].qpn), qa.qpn])
      // two accesses to ranges a byte: of the list of lists, and of the list
      assert.ok(most > 0 && most <= 2 * 4096 + 8, String(most))
      assert.ok(memory.rangeAccesses >= 65_536)
    })

  it('over a key that has ended reaches nothing', () => {
    const { key, read, firmware, region, at } = setUp()
    const inner = key(KLM, { len: 64n }, [{ key: region, address: at(0), length: 64 }])
    const outer = key(KLM, { len: 64n }, [{ key: inner.rkey, address: 0n, length: 64 }])
    firmware.destroy(inner.handle)
    assert.equal(read(outer.rkey, 0n, 8).kind, REQUEST_ERROR)
  })

  it('over a key of another domain reaches nothing', () => {
    const { key, read, b, at } = setUp()
    const pd = b.call(Pd, 'create', 0, {}).object
    const range = { start: at(0), length: 64n, iova: at(0), access: 15 }
    const { lkey } = b.call<{ lkey: number }>(Mr, 'create', 0, { pd, ...range }).out
    const { rkey } = key(KLM, { len: 64n }, [{ key: lkey, address: at(0), length: 64 }])
    assert.equal(read(rkey, 0n, 8).kind, REQUEST_ERROR)
  })

  it('over a key of another program reaches nothing', () => {
    const { key, read, m } = setUp()
    const other = program(m, 1)
    const { rkey } = key(KLM, { len: 64n }, [{ key: other.region.lkey, address: other.address, length: 64 }])
    assert.equal(read(rkey, 0n, 8).kind, REQUEST_ERROR)
  })
})

describe('a key of a block of ranges that repeats (KLM)', () => {
  it('has the ranges of each repetition, and may be padded as libdpcp pads it', () => {
    const { key, read, b, region, at } = setUp()
    // the address of a repeated block: its repetitions, and its ranges; the length of a range: stride, and bytes
    const block = { key: REPEAT_BLOCK, address: (1000n << 32n) | 2n, length: 12 }
    const ranges = [
      { key: region, address: at(0), length: (10 << 16) | 8 },
      { key: region, address: at(0x8000), length: (20 << 16) | 4 },
    ]
    const padding = { key: 0, address: 0n, length: 0 }
    const { rkey } = key(KLM, { start_addr: 0x1000n, len: 12_000n, mkey_7_0: 9 }, [block, ...ranges, padding])
    const expected = Array.from({ length: 1000 }, (_, i) => [
      ...b.bytes.slice(10 * i, 10 * i + 8),
      ...b.bytes.slice(0x8000 + 20 * i, 0x8000 + 20 * i + 4),
    ])
    assert.deepEqual(read(rkey | 9, 0x1000n, 12_000).bytes, new Uint8Array(expected.flat()))
    assert.equal(read(rkey | 9, 0x1001n, 12_000).kind, REQUEST_ERROR)
    const rkeys = Array.from(
      { length: 8 },
      () => key(KLM, { len: 4n }, [{ key: region, address: at(0), length: 4 }]).rkey,
    )
    assert.ok(!rkeys.includes(REPEAT_BLOCK))
  })
})

describe('a key of user memory (MTT)', () => {
  it('is a region of the model, and keeps the memory registered', () => {
    const { key, read, b, firmware, m, at } = setUp()
    const { regions } = { regions: m.devices[1]!.device.counts.mr! }
    const umem = firmware.umem(0x1000, 0x4000)
    const place = { mkey_umem_id: umem.id, mkey_umem_offset: 0x1000n }
    const { handle, rkey } = key(MTT, { start_addr: at(0x2010), len: 0x1000n, mkey_7_0: 7 }, [], place)
    assert.equal(m.devices[1]!.device.counts.mr, regions + 1)
    assert.deepEqual(read(rkey | 7, at(0x2010), 64).bytes, b.bytes.slice(0x2010, 0x2050))
    assertErrno(() => firmware.deregister(umem.handle), 'EBUSY')
    const { memory_key_mkey_entry } = firmware.about(Commands.QUERY_MKEY, handle, { mkey_index: rkey >>> 8 })
    assert.equal(memory_key_mkey_entry.len, 0x1000n)
    firmware.destroy(handle)
    firmware.deregister(umem.handle)
    assert.equal(m.devices[1]!.device.counts.mr, regions)
  })

  it('is not larger than the user memory, nor of that of others', () => {
    const { key, firmware, at } = setUp()
    const umem = firmware.umem(0x1000, 0x4000)
    const place = { mkey_umem_id: umem.id }
    assertRefused(() => key(MTT, { start_addr: at(0), len: 0x4001n }, [], place), 'outsideUmem')
    assertRefused(() => key(MTT, { len: 8n }, [], { ...place, mkey_umem_offset: 0x4000n }), 'outsideUmem')
    assertRefused(() => key(MTT, { len: 8n }, [], { mkey_umem_id: umem.id + 1 }), 'noSuchUmem')
    const reader = firmware.umem(0x1000, 0x4000, 0)
    assertRefused(() => key(MTT, { len: 8n }, [], { mkey_umem_id: reader.id }), 'outsideUmem', /without LOCAL_WRITE/)
  })
})

describe('CREATE_MKEY', () => {
  it('refuses what the device does not tell or cannot make', () => {
    const { key, region, at, pd } = setUp()
    const range = { key: region, address: at(0), length: 64 }
    for (const field of ['free', 'en_rinval', 'bsf_en', 'length64'])
      assertRefused(
        () => key(KLM, { len: 64n, [field]: 1 }, [range]),
        'unsupportedFeature',
        /free|umr_en 1|bsf_en 1|length64 1/,
      )
    assertRefused(() => key(MTT, { len: 64n, umr_en: 1 }), 'unsupportedFeature', /modes KLM \(2\) and KSM/)
    assertRefused(() => key(KSM, { len: 8n, log_page_size: 32 }, [range]), 'badValue', /log_entity_size 32/)
    assertRefused(
      () => key(KLM, { umr_en: 1, translations_octword_size: 0 }),
      'badValue',
      /translations_octword_size 0/,
    )
    assertRefused(() => key(KLM, { len: 64n, pd: pd + 1 }, [range]), 'noSuchPd')
    assertRefused(() => key(KLM, { len: 64n, qpn: 5 }, [range]), 'badValue', /qpn 0x5/)
    assertRefused(() => key(0, { len: 64n }, [range]), 'badValue', /access mode 0/)
    assertRefused(() => key(KLM, { len: 64n }, []), 'badValue', /no ranges/)
    assertRefused(() => key(KLM, { len: 64n, translations_octword_size: 1 }, [range, range]), 'badValue', /the 2 of/)
    const block = { key: REPEAT_BLOCK, address: (1n << 32n) | 2n, length: 64 }
    assertRefused(() => key(KLM, { len: 64n }, [block, range]), 'badValue', /a block of 2 ranges that repeats 1 times/)
    assertRefused(() => key(KLM, { len: 65n }, [range]), 'refused', /65 is not in 1 to the 64/)
    assertRefused(() => key(KLM, { len: 64n }, [{ ...range, length: 0 }]), 'badValue', /range 0 has byte_count 0/)
    assertRefused(() => key(KSM, { len: 64n }, [{ ...range, key: 0 }]), 'badValue', /range 0 has mkey 0/)
    const many = { translations_octword_actual_size: 2049 }
    assertRefused(() => key(KLM, { len: 64n, translations_octword_size: 2048 }, [range], many), 'badValue', /2049/)
    const missing = { translations_octword_actual_size: 5 }
    assertRefused(() => key(KLM, { len: 64n, translations_octword_size: 5 }, [range], missing), 'shortInput')
  })

  it('makes regions that no call reaches, and that end with the context', () => {
    const { key, region, at, b, m, read } = setUp()
    const range = { key: region, address: at(0), length: 64 }
    const made = Array.from({ length: 100 }, () => key(KLM, { len: 64n }, [range]))
    const inner = b.context.handles.slots.filter(
      object => object?.class.name === 'mr' && object.handle > made[0]!.handle,
    )
    assert.equal(inner.length, 100)
    for (const object of inner) assertErrno(() => b.call(Mr, 'destroy', object!.handle, {}), 'ENOENT')
    closeContext(b.context)
    const { device } = m.devices[1]!
    assert.deepEqual([device.counts.mr, device.counts.devx_obj, device.memory.liveKeys], [0, 0, 0])
    assert.notEqual(read(made[0]!.rkey, 0n, 8).kind, REQUEST)
  })
})

describe('the null region', () => {
  it('gives zeros and takes everything, in every domain, but not from peers', () => {
    const { a, b, execute, at, region } = setUp()
    const nowhere = { address: 0xffff_ffff_ffff_f000n, length: 64, lkey: NULL_KEY }
    b.bytes.fill(0x55, 0, 64)
    assert.equal(execute({ opcode: RDMA_WRITE, data: [nowhere], remote: { address: at(0), rkey: region } }), REQUEST)
    assert.deepEqual(b.bytes.slice(0, 64), new Uint8Array(64))
    a.bytes.fill(0x55, 0, 128)
    const parts = [a.element(0, 32), nowhere, a.element(96, 32)]
    assert.equal(execute({ data: parts, remote: { address: at(64), rkey: region } }), REQUEST)
    assert.deepEqual(a.bytes.slice(96, 128), b.bytes.slice(160, 192))
    assert.deepEqual(a.bytes.slice(32, 96), new Uint8Array(64).fill(0x55))
    assert.equal(execute({ remote: { address: 0n, rkey: NULL_KEY } }), REQUEST_ERROR)
  })

  it('can be a range of another key', () => {
    const { key, read, b, region, at } = setUp()
    const ranges = [
      { key: region, address: at(0), length: 8 },
      { key: NULL_KEY, address: 0n, length: 8 },
    ]
    const { rkey } = key(KLM, { len: 16n }, ranges)
    assert.deepEqual(read(rkey, 0n, 16).bytes, new Uint8Array([...b.bytes.slice(0, 8), ...new Uint8Array(8)]))
  })
})

describe('a key whose ranges work requests set (UMR)', () => {
  const FREE = { free: 1, umr_en: 1, lw: 0, rr: 0, rw: 0, a: 0, translations_octword_size: 4 }
  const REMOTE_READ = 0x10

  /** A request for `qb`, whose key is `rkey`: elements of four words each. */
  const change = (rkey: number, words: readonly number[], length: number, { access = REMOTE_READ, count = 4 } = {}) => {
    const raw = new Uint8Array(112 + 16 * count)
    const view = new DataView(raw.buffer)
    view.setUint8(0, 0x80)
    view.setUint16(4, count)
    view.setBigUint64(8, 1n | (0xfn << 18n) | (1n << 29n))
    view.setUint8(50, access)
    view.setUint32(52, 0xffff_ff00)
    view.setBigUint64(72, BigInt(length))
    for (const [i, word] of words.entries()) view.setUint32(112 + 4 * i, word)
    return { opcode: UMR, imm: rkey, raw }
  }
  const invalidation = (rkey: number) => {
    const raw = new Uint8Array(112)
    new DataView(raw.buffer).setUint8(0, 0x90)
    new DataView(raw.buffer).setBigUint64(8, (1n << 14n) | (1n << 29n))
    new DataView(raw.buffer).setUint8(48, 0x40)
    return { opcode: UMR, imm: rkey, raw }
  }
  const words = (address: bigint): [number, number] => [Number(address >> 32n), Number(address & 0xffff_ffffn)]

  it('reaches what a list says, until it is invalidated', () => {
    const { key, read, configure, region, at, b } = setUp()
    const { rkey } = key(KLM, FREE)
    assert.equal(configure(change(rkey, [8, region, ...words(at(64)), 8, region, ...words(at(0))], 16)), REQUEST)
    const bytes = new Uint8Array([...b.bytes.slice(64, 72), ...b.bytes.slice(0, 8)])
    assert.deepEqual(read(rkey, 0n, 16).bytes, bytes)
    assert.equal(configure(change(rkey, [4, region, ...words(at(100))], 4)), REQUEST)
    assert.deepEqual(read(rkey, 0n, 4).bytes, b.bytes.slice(100, 104))
    assert.equal(configure(invalidation(rkey)), REQUEST)
    assert.equal(read(rkey, 0n, 4).kind, REQUEST_ERROR)
  })

  it('has room for what is padded to four octowords', () => {
    const { key, read, configure, region, at, b } = setUp()
    const { rkey } = key(KLM, { ...FREE, translations_octword_size: 2 })
    assert.equal(configure(change(rkey, [8, region, ...words(at(64)), 8, region, ...words(at(0))], 16)), REQUEST)
    const bytes = new Uint8Array([...b.bytes.slice(64, 72), ...b.bytes.slice(0, 8)])
    assert.deepEqual(read(rkey, 0n, 16).bytes, bytes)
  })

  it('of fixed ranges (KSM) has ranges of the size that it was made with, or of a new one', () => {
    const { key, read, configure, region, at, b } = setUp()
    const { rkey } = key(KSM, { ...FREE, translations_octword_size: 2, log_page_size: 12 })
    // byte counts do not matter
    const list = [5, region, ...words(at(0x3000)), 0, region, ...words(at(0x1000))]
    assert.equal(configure(change(rkey, list, 0x2000)), REQUEST)
    const bytes = (size: number) =>
      new Uint8Array([...b.bytes.slice(0x3000, 0x3000 + size), ...b.bytes.slice(0x1000, 0x1000 + size)])
    assert.deepEqual(read(rkey, 0n, 0x2000).bytes, bytes(0x1000))
    assert.equal(configure(change(rkey, list, 0x2001)), REQUEST_ERROR)
    const small = setUp()
    const other = small.key(KSM, { ...FREE, log_page_size: 12 }).rkey
    const request = change(other, [0, small.region, ...words(small.at(0)), 0, small.region, ...words(small.at(64))], 32)
    const view = new DataView(request.raw.buffer)
    view.setBigUint64(8, view.getBigUint64(8) | 2n)
    view.setUint8(107, 4)
    assert.equal(small.configure(request), REQUEST)
    assert.deepEqual(
      small.read(other, 0n, 32).bytes,
      new Uint8Array([...small.b.bytes.slice(0, 16), ...small.b.bytes.slice(64, 80)]),
    )
  })

  it('may be valid from the beginning', () => {
    const { key, read, configure, region, at, b } = setUp()
    const valid = { ...FREE, free: 0, rr: 1, len: 8n, translations_octword_size: 4 }
    const { rkey } = key(KLM, valid, [{ key: region, address: at(64), length: 8 }])
    assert.deepEqual(read(rkey, 0n, 8).bytes, b.bytes.slice(64, 72))
    assert.equal(configure(change(rkey, [4, region, ...words(at(100))], 4)), REQUEST)
    assert.deepEqual(read(rkey, 0n, 4).bytes, b.bytes.slice(100, 104))
    const empty = key(KLM, valid).rkey
    assert.equal(read(empty, 0n, 8).kind, REQUEST_ERROR)
  })

  it('reaches what a block says that repeats', () => {
    const { key, read, configure, region, at, b } = setUp()
    const { rkey } = key(KLM, FREE)
    const entry = (bytes: number, stride: number, offset: number) => [
      (stride << 16) | bytes,
      region,
      ...words(at(offset)),
    ]
    const block = [12, 0x400, 1000, 2, ...entry(8, 10, 0), ...entry(4, 20, 0x8000)]
    assert.equal(configure(change(rkey, block, 12_000)), REQUEST)
    const expected = Array.from({ length: 1000 }, (_, i) => [
      ...b.bytes.slice(10 * i, 10 * i + 8),
      ...b.bytes.slice(0x8000 + 20 * i, 0x8000 + 20 * i + 4),
    ])
    assert.deepEqual(read(rkey, 0n, 12_000).bytes, new Uint8Array(expected.flat()))
  })

  it('is refused what it has no room for, and other keys are not changed', () => {
    const ranges = (region: number, address: bigint, count: number) =>
      Array.from({ length: count }, () => [8, region, ...words(address)]).flat()
    for (const bad of ['long', 'many', 'region', 'fixed'] as const) {
      const { key, configure, region, at } = setUp()
      const { rkey } = key(KLM, FREE)
      const fixed = key(KLM, { len: 8n }, [{ key: region, address: at(0), length: 8 }]).rkey
      const list = ranges(region, at(0), bad === 'many' ? 8 : 2)
      const target = { long: rkey, many: rkey, region, fixed }[bad]
      const request = change(target, list, bad === 'long' ? 17 : 16, { count: bad === 'many' ? 8 : 4 })
      assert.equal(configure(request), REQUEST_ERROR, bad)
    }
  })
})
