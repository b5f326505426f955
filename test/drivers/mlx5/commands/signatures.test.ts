/*
 * Keys with block signatures: requests set them as libmlx5 does (mlx5dv_wr_set_mkey_sig_block), and what arrives is
 * compared with a model, which is written anew from the man page: other peers see the wire, the program its memory.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { addFailureHandler } from '../../../../src/core/failures.ts'
import { closeContext } from '../../../../src/core/index.ts'
import { SignedSpace } from '../../../../src/drivers/mlx5/signature/signed-space.ts'
import { Pd } from '../../../../src/spec/classes/pd.ts'
import { Commands } from '../../../../src/spec/drivers/mlx5-firmware/commands.ts'
import { QpOption } from '../../../../src/spec/drivers/mlx5-firmware/queue-values.ts'
import { CompletionKind, Mlx5Opcode } from '../../../../src/spec/drivers/mlx5-queues.ts'
import { AsyncEventType, QpState } from '../../../../src/spec/enums.ts'
import { arenaOver } from '../../../../src/transport/wire/arena.ts'
import { inLongRun } from '../../../long-run.ts'
import { assertErrno, assertRefused, withCommands } from '../firmware.ts'
import {
  ATOMIC_FA,
  type Completion,
  type Element,
  machine,
  program,
  RDMA_READ,
  RDMA_WRITE,
  type Request,
  SEND,
  UMR,
} from '../machine.ts'

const { REQUEST, REQUEST_ERROR, RECEIVE, SIGNATURE_ERROR } = CompletionKind

// ---- the model ----

type Kind = 'crc32' | 'crc32c' | 'crc64' | 't10' | 't10sum'
interface DomainModel {
  readonly kind: Kind
  readonly block: number
  readonly hasSeed?: boolean
  readonly app?: number
  readonly ref?: number
  readonly increments?: boolean
  readonly skips?: number
}
interface Config {
  readonly mem?: DomainModel
  readonly wire?: DomainModel
  readonly check?: number
  readonly copy?: number
}

const bytesOf = ({ kind }: DomainModel): number => (kind === 'crc32' || kind === 'crc32c' ? 4 : 8)

/** A reflected CRC bit by bit, with all bits complemented at the end. */
const reflected = (bytes: Uint8Array, polynomial: bigint, width: bigint, seed: bigint): bigint => {
  let register = seed
  for (const byte of bytes) {
    register ^= BigInt(byte)
    for (let bit = 0; bit < 8; bit++) register = (register >> 1n) ^ ((register & 1n) === 1n ? polynomial : 0n)
  }
  return register ^ ((1n << width) - 1n)
}

const modelOf = (domain: DomainModel, data: Uint8Array, index: number): Uint8Array => {
  const { kind, hasSeed = true, app = 0xabcd, ref = 1000, increments = true } = domain
  const out = new DataView(new ArrayBuffer(bytesOf(domain)))
  const ones = (width: bigint): bigint => (hasSeed ? (1n << width) - 1n : 0n)
  if (kind === 'crc32') out.setUint32(0, Number(reflected(data, 0xedb8_8320n, 32n, ones(32n))), true)
  else if (kind === 'crc32c') out.setUint32(0, Number(reflected(data, 0x82f6_3b78n, 32n, ones(32n))), true)
  else if (kind === 'crc64') out.setBigUint64(0, reflected(data, 0x9a6c_9329_ac4b_c9b5n, 64n, ones(64n)), true)
  else {
    let guard = hasSeed ? 0xffff : 0
    if (kind === 't10')
      for (const byte of data) {
        guard ^= byte << 8
        for (let bit = 0; bit < 8; bit++) guard = ((guard << 1) ^ (guard & 0x8000 ? 0x8bb7 : 0)) & 0xffff
      }
    else {
      for (let i = 0; i < data.length; i += 2) {
        guard += data[i]! * 256 + data[i + 1]!
        guard = (guard & 0xffff) + (guard >>> 16)
      }
      guard = ~guard & 0xffff
    }
    out.setUint16(0, guard)
    out.setUint16(2, app)
    out.setUint32(4, increments ? ref + index : ref)
  }
  return new Uint8Array(out.buffer)
}

/** Data with their signatures. */
const signed = (domain: DomainModel | undefined, data: Uint8Array): Uint8Array => {
  if (domain === undefined) return data
  const parts: Uint8Array[] = []
  for (let at = 0, index = 0; at < data.length; at += domain.block, index++) {
    const block = data.subarray(at, at + domain.block)
    parts.push(block)
    if (block.length === domain.block) parts.push(modelOf(domain, block, index))
  }
  return new Uint8Array(Buffer.concat(parts))
}

// ---- requests ----

const selectors: Readonly<Record<number, number>> = { 512: 1, 520: 2, 4048: 6, 4096: 3, 4160: 4 }
const formats: Readonly<Record<string, number>> = { crc32: 0x20, crc32c: 0x40, crc64: 0x50 }

const bsfOf = ({ mem, wire, check = 0xff, copy }: Config, psvs: { mem: number; wire: number }): Uint8Array => {
  const bytes = new Uint8Array(64)
  const view = new DataView(bytes.buffer)
  view.setUint8(0, (2 << 6) | (copy === undefined ? 0 : 1 << 4))
  view.setUint8(1, check)
  view.setUint32(4, 0xffff_ffff)
  const put = (domain: DomainModel, psv: number, psvAt: number, sizeAt: number, inlineAt: number): void => {
    const { kind, hasSeed = true, app = 0xabcd, ref = 1000, increments = true, skips = 0 } = domain
    if (psvAt !== 8 || copy === undefined) view.setUint8(sizeAt, selectors[domain.block] ?? domain.block)
    const format = formats[kind]
    view.setUint32(psvAt, (format === undefined ? 0 : (format | 2 | (hasSeed ? 0 : 1)) * 2 ** 24) + psv)
    if (format !== undefined) return
    view.setUint16(inlineAt, 0xc000)
    view.setUint16(inlineAt + 2, app)
    view.setUint32(inlineAt + 4, ref)
    view.setUint8(inlineAt + 8, kind === 't10' ? 1 : 2)
    view.setUint8(inlineAt + 9, 0x80 | (hasSeed ? 8 : 0))
    view.setUint8(inlineAt + 13, (increments ? 0x40 : 0) | skips)
    view.setUint16(inlineAt + 14, 0xffff)
  }
  if (mem !== undefined) put(mem, psvs.mem, 12, 3, 48)
  if (wire !== undefined) put(wire, psvs.wire, 8, 2, 32)
  if (copy !== undefined) view.setUint8(2, copy)
  return bytes
}

/** Access rights of a key: LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE. */
const RIGHTS = 0x38
/** Of the flags of a request: it waits for those before it. */
const FENCED = 3 << 5

/** A request that configures a key. */
const configuration = (
  rkey: number,
  ranges: readonly Element[],
  bsf: Uint8Array | undefined,
  {
    hasBsf = bsf !== undefined,
    octowords = 4,
    flags = 0,
  }: { hasBsf?: boolean; octowords?: number; flags?: number } = {},
): Request => {
  const count = Math.ceil(ranges.length / 4) * 4
  const raw = new Uint8Array(112 + 16 * count + (bsf?.length ?? 0))
  const view = new DataView(raw.buffer)
  view.setUint8(0, 0x80)
  view.setUint16(4, count)
  view.setUint16(6, hasBsf ? octowords : 0)
  view.setBigUint64(8, 1n | (0xfn << 18n) | (1n << 29n) | (1n << 12n))
  view.setUint8(50, RIGHTS)
  view.setUint32(52, 0xffff_ff00)
  view.setUint32(60, hasBsf ? 1 << 30 : 0)
  view.setBigUint64(72, BigInt(ranges.reduce((sum, { length }) => sum + length, 0)))
  for (const [i, { address, length, lkey }] of ranges.entries()) {
    view.setUint32(112 + 16 * i, length)
    view.setUint32(116 + 16 * i, lkey)
    view.setBigUint64(120 + 16 * i, address)
  }
  if (bsf !== undefined) raw.set(bsf, 112 + 16 * count)
  return { opcode: UMR, imm: rkey, raw, flags }
}

const firstValue = ({ kind, hasSeed = true, app = 0xabcd, ref = 1000 }: DomainModel): readonly [number, number] => {
  if (kind === 'crc64') return hasSeed ? [0xffff_ffff, 0xffff_ffff] : [0, 0]
  if (kind === 'crc32' || kind === 'crc32c') return [hasSeed ? 0xffff_ffff : 0, 0]
  return [((hasSeed ? 0xffff : 0) << 16) | app, ref]
}

const setPsv = (psv: number, [hi, lo]: readonly [number, number], flags = 0): Request => {
  const raw = new Uint8Array(16)
  const view = new DataView(raw.buffer)
  view.setUint32(0, psv)
  view.setUint32(8, hi)
  view.setUint32(12, lo)
  return { opcode: Mlx5Opcode.SET_PSV, raw, flags }
}

/** Two connected programs; `b` has a key with signatures. */
const setUp = ({ drains = false, fault = '' } = {}) => {
  const m = machine(2, fault)
  const [a, b] = [program(m, 0), program(m, 1)]
  const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
  qa.connect(qb, 1)
  const firmware = withCommands(b)
  const opt_param_mask = QpOption.DRAIN_SIGERR
  qb.connect(qa, 0, 7, () => {
    if (drains)
      firmware.about(Commands.INIT2INIT_QP, qb.object, { qpn: qb.qpn, opt_param_mask, qpc: { drain_sigerr: 1 } })
  })
  const pd = (b.context.handles.slots[b.pd]!.state as { number: number }).number
  const psv = (domain = pd) => {
    const { handle, out } = firmware.create(Commands.CREATE_PSV, { num_psv: 1, pd: domain })
    return { handle, number: out.psv0_index }
  }
  const key = (context: object = {}) => {
    const changeable = { free: 1, umr_en: 1, bsf_en: 1, bsf_octword_size: 4, translations_octword_size: 2048 }
    const { handle, out } = firmware.create(Commands.CREATE_MKEY, {
      memory_key_mkey_entry: { access_mode_1_0: 2, pd, qpn: 0xff_ffff, ...changeable, ...context },
    })
    return { handle, rkey: (out.mkey_index << 8) >>> 0 }
  }
  const psvs = { mem: psv(), wire: psv() }
  const numbers = { mem: psvs.mem.number, wire: psvs.wire.number }
  const { rkey, handle } = key()
  /** All completions of `program` until one of a request or receive. */
  const until = (owner: typeof a): Completion[] => {
    const seen: Completion[] = []
    m.runUntil(() => {
      seen.push(...owner.poll())
      return seen.some(({ kind }) => kind !== SIGNATURE_ERROR)
    })
    return seen
  }
  const run = (owner: typeof a, queue: typeof qa, request: Request): Completion[] => {
    queue.post({ ...request, flags: (request.flags ?? 0) | 8 })
    return until(owner)
  }
  const kindOf = (completions: readonly Completion[]): number => completions.at(-1)!.kind
  /** Configures the key over `ranges` of `b`, by default one from byte 0. */
  const configure = (config: Config, ranges: readonly Element[]): void => {
    qb.post(configuration(rkey, ranges, bsfOf(config, numbers)))
    if (config.mem !== undefined) qb.post(setPsv(numbers.mem, firstValue(config.mem)))
    if (config.wire !== undefined) qb.post(setPsv(numbers.wire, firstValue(config.wire)))
    assert.equal(kindOf(run(b, qb, { opcode: Mlx5Opcode.NOP })), REQUEST)
  }
  return { m, a, b, qa, qb, firmware, pd, key, psv, psvs, numbers, rkey, handle, until, run, kindOf, configure }
}

/** A PSV of another program on the device of `b`. */
const psvOfAnother = (m: ReturnType<typeof machine>): number => {
  const other = program(m, 1)
  const pd = (other.context.handles.slots[other.pd]!.state as { number: number }).number
  return withCommands(other).create(Commands.CREATE_PSV, { num_psv: 1, pd }).out.psv0_index
}

const bytesAt = (seed: number, length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => Math.imul(i + seed, 0x9e37_79b1) >>> 24)

const faultOf = (completions: readonly Completion[]) => {
  const entry = completions.find(({ kind }) => kind === SIGNATURE_ERROR)?.entry
  if (entry === undefined) return undefined
  const view = new DataView(entry.buffer)
  return {
    syndrome: view.getUint16(32),
    isWire: view.getUint8(35) === 0,
    key: view.getUint32(36),
    offset: view.getBigUint64(40),
    expected: [view.getUint32(16), view.getUint32(24)],
    actual: [view.getUint32(20), view.getUint32(28)],
  }
}
const GUARD = 1 << 13
const APP = 1 << 12
const REF = 1 << 11

const domains = fc.record({
  kind: fc.constantFrom<Kind>('crc32', 'crc32c', 'crc64', 't10', 't10sum'),
  block: fc.constantFrom(512, 520, 4048, 4096, 4160),
  hasSeed: fc.boolean(),
  increments: fc.boolean(),
  ref: fc.integer({ min: 0, max: 0xffff_0000 }),
})

describe('what peers read and write through a key with signatures', () => {
  it('has those of the wire, and memory has its own', () => {
    const cases = fc.record({
      mem: fc.option(domains, { nil: undefined }),
      wire: fc.option(domains, { nil: undefined }),
      data: fc.integer({ min: 1, max: 20_000 }),
      from: fc.double({ min: 0, max: 1, noNaN: true }),
      to: fc.double({ min: 0, max: 1, noNaN: true }),
      split: fc.integer({ min: 1, max: 5000 }),
    })
    const { a, b, qa, qb, rkey, run, kindOf, configure } = setUp()
    fc.assert(
      fc.property(cases, ({ mem, wire, data: length, from, to, split }) => {
        const config = { ...(mem && { mem }), ...(wire && { wire }) }
        const data = bytesAt(length, length)
        const memory = signed(mem, data)
        const image = signed(wire, data)
        b.bytes.fill(0, 0, 60_000)
        b.bytes.set(memory)
        const ranges = [b.element(0, Math.min(split, memory.length))]
        if (memory.length > split) ranges.push(b.element(split, memory.length - split))
        configure(config, ranges)
        const [start, end] = [from, to].map(part => Math.floor(part * image.length)).sort((x, y) => x - y)
        const size = end! - start!
        const remote = { address: BigInt(start!), rkey }
        const read = run(a, qa, { opcode: RDMA_READ, data: [a.element(0, size)], remote })
        assert.deepEqual([kindOf(read), faultOf(read)], [REQUEST, undefined])
        assert.deepEqual(a.bytes.subarray(0, size), image.subarray(start, end))
        // the whole, written from the beginning to the end
        b.bytes.fill(0, 0, memory.length)
        a.bytes.set(image)
        const half = { address: 0n, rkey }
        const rest = { address: BigInt(start!), rkey }
        for (const [place, part] of [
          [half, a.element(0, start!)],
          [rest, a.element(start!, image.length - start!)],
        ] as const)
          assert.equal(kindOf(run(a, qa, { opcode: RDMA_WRITE, data: [part], remote: place })), REQUEST)
        assert.deepEqual(b.bytes.subarray(0, memory.length), memory)
        assert.equal(faultOf(run(b, qb, { opcode: Mlx5Opcode.NOP })), undefined)
      }),
      { numRuns: inLongRun(400, 40) },
    )
  })

  it('is copied if the blocks are the same, as far as the masks say', () => {
    const { a, b, qa, rkey, run, configure } = setUp()
    const mem = { kind: 't10', block: 512, app: 1 } as const
    const wire = { kind: 't10', block: 512, app: 2 } as const
    configure({ mem, wire, copy: 0xcf, check: 0 }, [b.element(0, 1040)])
    const memory = bytesAt(5, 1040)
    b.bytes.set(memory)
    run(a, qa, { opcode: RDMA_READ, data: [a.element(0, 1040)], remote: { address: 0n, rkey } })
    // guard and reference tag are those of memory, wrong as they are
    assert.deepEqual([...a.bytes.subarray(512, 520)], [memory[512], memory[513], 0, 2, ...memory.subarray(516, 520)])
    a.bytes.set(bytesAt(6, 1040))
    run(a, qa, { opcode: RDMA_WRITE, data: [a.element(0, 1040)], remote: { address: 0n, rkey } })
    const image = a.bytes
    assert.deepEqual([...b.bytes.subarray(512, 520)], [image[512], image[513], 0, 1, ...image.subarray(516, 520)])
  })
})

describe("a program's own requests", () => {
  it('count data where the signatures are only on the wire', () => {
    const { a, b, qa, qb, rkey, until, run, configure } = setUp()
    const wire = { kind: 't10', block: 512 } as const
    configure({ wire }, [b.element(0, 2048)])
    b.bytes.set(bytesAt(1, 2048))
    const image = signed(wire, b.bytes.slice(0, 2048))
    qa.receive(a.element(0, 4096))
    qb.post({ opcode: SEND, data: [{ address: 0n, length: 2048, lkey: rkey }] })
    assert.deepEqual(
      until(a).map(({ kind, bytes }) => [kind, bytes]),
      [[RECEIVE, 2080]],
    )
    assert.deepEqual(a.bytes.slice(0, 2080), image)
    until(b)
    // a receive takes them off
    b.bytes.fill(0, 0, 2048)
    qb.receive({ address: 0n, length: 2048, lkey: rkey })
    run(a, qa, { opcode: SEND, data: [a.element(0, 2080)] })
    const received = until(b)
    assert.deepEqual([received.length, received[0]!.kind, faultOf(received)], [1, RECEIVE, undefined])
    assert.deepEqual(b.bytes.slice(0, 2048), bytesAt(1, 2048))
    // READ and WRITE too
    a.bytes.set(image)
    const remote = { address: a.address, rkey: a.region.rkey }
    b.bytes.fill(0, 0, 2048)
    const data = [{ address: 512n, length: 1024, lkey: rkey }]
    run(b, qb, { opcode: RDMA_READ, data, remote: { ...remote, address: a.address + 520n } })
    assert.deepEqual(b.bytes.slice(512, 1536), bytesAt(1, 2048).slice(512, 1536))
    run(b, qb, { opcode: RDMA_WRITE, data, remote: { ...remote, address: a.address + 0x8000n } })
    assert.deepEqual(a.bytes.slice(0x8000, 0x8000 + 1040), image.slice(520, 1560))
  })

  it('copy no blocks from or to a key with signatures only on the wire, whose lengths differ', () => {
    const { b, qb, rkey, run, kindOf, configure } = setUp()
    const copy = (source: Element, target: Element): number => {
      const raw = new Uint8Array(48)
      const view = new DataView(raw.buffer)
      for (const [i, { address, length, lkey }] of [source, target].entries()) {
        view.setUint32(16 + 16 * i, length)
        view.setUint32(20 + 16 * i, lkey)
        view.setBigUint64(24 + 16 * i, address)
      }
      return kindOf(run(b, qb, { opcode: Mlx5Opcode.MMO, modifier: 1, raw }))
    }
    configure({ wire: { kind: 't10', block: 512 } }, [b.element(0, 70_000)])
    const key = (length: number) => ({ address: 0n, length, lkey: rkey })
    b.bytes.set(bytesAt(3, 70_000))
    assert.equal(copy(key(100), b.element(100_000, 100)), REQUEST)
    assert.deepEqual(b.bytes.slice(100_000, 100_100), bytesAt(3, 100))
    const before = b.bytes.slice()
    assert.equal(copy(key(70_000), b.element(100_000, 70_000)), REQUEST_ERROR)
    assert.deepEqual(b.bytes, before)
  })

  it('of atomics have no keys with signatures', () => {
    const { a, b, qa, rkey, run, kindOf, configure } = setUp()
    configure({ mem: { kind: 'crc32', block: 512 } }, [b.element(0, 516)])
    const atomic = { swapAdd: 1n, compare: 0n }
    const request = { opcode: ATOMIC_FA, atomic, data: [a.element(0, 8)], remote: { address: 0n, rkey } }
    assert.equal(kindOf(run(a, qa, request)), REQUEST_ERROR)
  })
})

describe('an error of a signature', () => {
  it('is reported once, in the queue of the request, until the PSV is set again', () => {
    const { a, b, qa, qb, rkey, numbers, run, until, configure } = setUp()
    const mem = { kind: 'crc32c', block: 520 } as const
    configure({ mem }, [b.element(0, 524 * 4)])
    b.bytes.set(signed(mem, bytesAt(3, 2080)))
    b.bytes[524 * 2]! ^= 1
    b.bytes[524 * 3]! ^= 1
    const remote = { address: a.address, rkey: a.region.rkey }
    const write = { opcode: RDMA_WRITE, data: [{ address: 0n, length: 2080, lkey: rkey }], remote }
    const fault = faultOf(run(b, qb, write))!
    assert.deepEqual([fault.syndrome, fault.isWire, fault.key, fault.offset], [GUARD, false, rkey, 1048n])
    const right = new DataView(modelOf(mem, bytesAt(3, 2080).subarray(1040, 1560), 2).buffer).getUint32(0, true)
    assert.equal(fault.expected[0], right)
    assert.notEqual(fault.actual[0], right)
    assert.equal(faultOf(run(b, qb, write)), undefined)
    run(b, qb, setPsv(numbers.mem, firstValue(mem)))
    assert.equal(faultOf(run(b, qb, write))?.offset, 1048n)
    // a peer's READ: in the queue of receives, here the same one, before the next receive
    run(b, qb, setPsv(numbers.mem, firstValue(mem)))
    run(a, qa, { opcode: RDMA_READ, data: [a.element(0, 2080)], remote: { address: 0n, rkey } })
    qb.receive(b.element(0x8000, 8))
    run(a, qa, { opcode: SEND, data: [a.element(0, 8)] })
    const seen = until(b)
    assert.deepEqual(
      seen.map(({ kind }) => kind),
      [SIGNATURE_ERROR, RECEIVE],
    )
  })

  it('is none if something else reads the memory, such as the checker', () => {
    const { b, qb, rkey, run, configure } = setUp()
    configure({ mem: { kind: 'crc32', block: 512 } }, [b.element(0, 516)])
    const { memory } = b.device
    const space = memory.spaces.find(candidate => candidate instanceof SignedSpace)!
    assert.equal(space.read(0, 0, arenaOver(new Uint8Array(512)), 0, 512, 512, 512), 0)
    const remote = { address: b.address, rkey: b.region.rkey }
    const write = { opcode: RDMA_WRITE, data: [{ address: 0n, length: 512, lkey: rkey }], remote }
    assert.equal(faultOf(run(b, qb, write))?.syndrome, GUARD)
  })

  it('of an access by DC is in the queue of the target', () => {
    const { a, b, rkey, until, configure, kindOf } = setUp()
    configure({ mem: { kind: 'crc32', block: 512 } }, [b.element(0, 516)])
    const { destination } = b.target(b.sharedReceives(16, 1).object, 77n)
    const dci = a.queuePair('dci')
    dci.start()
    dci.post({ opcode: RDMA_READ, destination, data: [a.element(0, 512)], remote: { address: 0n, rkey } })
    assert.equal(kindOf(until(a)), REQUEST)
    assert.equal(faultOf(b.poll())?.syndrome, GUARD)
  })

  it('is of the guard, the application tag or the reference tag, in this order', () => {
    const wire = { kind: 't10', block: 512 } as const
    for (const [bytes, syndrome] of [
      [[513, 515, 519], GUARD],
      [[515, 519], APP],
      [[519], REF],
    ] as const) {
      const { a, b, qa, qb, rkey, run, configure } = setUp()
      configure({ wire }, [b.element(0, 1024)])
      a.bytes.set(signed(wire, bytesAt(9, 1024)))
      for (const at of bytes) a.bytes[520 + at]! ^= 0x10
      run(a, qa, { opcode: RDMA_WRITE, data: [a.element(0, 1040)], remote: { address: 0n, rkey } })
      const fault = faultOf(run(b, qb, { opcode: Mlx5Opcode.NOP }))!
      assert.deepEqual([fault.syndrome, fault.isWire, fault.offset], [syndrome, true, 520n])
      // the data are there
      assert.deepEqual(b.bytes.slice(0, 1024), bytesAt(9, 1024))
    }
  })

  it('is none where the masks and escapes say so', () => {
    const kind = 't10'
    for (const [rule, tag, ref, check, isFault] of [
      [0, 0xffff, 0xffff_ffff, 0xff, true],
      [1, 0xffff, 5, 0xff, false],
      [1, 0xfffe, 5, 0xff, true],
      [2, 0xffff, 5, 0xff, true],
      [2, 0xffff, 0xffff_ffff, 0xff, false],
      [0, 0x1234, 5, 0x00, false],
      [0, 0xabcd, 1000, 0x3f, false],
      [0, 0xab00, 1000, 0x2f, false],
      [0, 0xab00, 1000, 0x1f, true],
    ] as const) {
      const { a, b, qa, qb, rkey, run, configure } = setUp()
      configure({ mem: { kind, block: 512, skips: rule }, check }, [b.element(0, 520)])
      const view = new DataView(b.bytes.buffer)
      view.setUint16(512, 0x1111)
      view.setUint16(514, tag)
      view.setUint32(516, ref)
      run(a, qa, { opcode: RDMA_READ, data: [a.element(0, 512)], remote: { address: 0n, rkey } })
      const fault = faultOf(run(b, qb, { opcode: Mlx5Opcode.NOP }))
      assert.equal(fault !== undefined, isFault, `escape ${rule}, tag ${tag}, ref ${ref}, check ${check}`)
    }
  })

  it('stops a queue that drains before the next request with a fence', () => {
    const mem = { kind: 'crc32', block: 512 } as const
    for (const isRead of [false, true]) {
      const { a, b, qa, qb, m, firmware, rkey, until, configure } = setUp({ drains: true })
      configure(isRead ? { wire: mem } : { mem }, [b.element(0, isRead ? 512 : 516)])
      const remote = { address: a.address, rkey: a.region.rkey }
      const data = [{ address: 0n, length: 512, lkey: rkey }]
      qa.receive(a.element(0x8000, 64))
      qb.post({ opcode: isRead ? RDMA_READ : RDMA_WRITE, data, remote, flags: 0 })
      const answer = { opcode: SEND, data: [b.element(0x1000, 16)], flags: FENCED | 8 }
      const block = qb.post(answer)
      const next = qb.post({ ...answer, data: [b.element(0x1000, 32)], flags: 8 })
      const events: number[] = []
      m.runUntil(() => {
        events.push(...b.asyncEvents())
        return events.length > 0
      })
      assert.deepEqual(events, [AsyncEventType.values.SQ_DRAINED])
      const early = b.poll()
      assert.deepEqual(
        early.map(({ kind }) => kind),
        [SIGNATURE_ERROR],
      )
      assert.equal(faultOf(early)?.syndrome, GUARD)
      assert.deepEqual(a.poll(), [])
      const { qpc } = firmware.about(Commands.QUERY_QP, qb.object, { qpn: qb.qpn })
      assert.deepEqual([qpc.state, qpc.hw_sq_wqebb_counter, qpc.drain_sigerr], [5, block, 1])
      // mlx5dv_qp_cancel_posted_send_wrs
      b.pages.bytes[qb.sendsAt + block * 64 + 3] = Mlx5Opcode.NOP
      qb.modify({ state: QpState.values.RTS, curState: QpState.values.SQD })
      assert.equal(until(a)[0]!.bytes, 32)
      const done: Completion[] = []
      m.runUntil(() => {
        done.push(...b.poll())
        return done.length === 2
      })
      assert.deepEqual(
        done.map(({ kind, counter }) => [kind, counter]),
        [
          [REQUEST, block],
          [REQUEST, next],
        ],
      )
    }
  })

  it('does not stop other queues, nor one that was reset, nor those of other services', () => {
    const { a, b, qb, firmware, rkey, run, configure } = setUp()
    configure({ mem: { kind: 'crc32', block: 512 } }, [b.element(0, 516)])
    const remote = { address: a.address, rkey: a.region.rkey }
    qb.post({ opcode: RDMA_WRITE, data: [{ address: 0n, length: 512, lkey: rkey }], remote, flags: 0 })
    assert.equal(run(b, qb, { opcode: Mlx5Opcode.NOP, flags: FENCED }).at(-1)!.kind, REQUEST)
    const drained = setUp({ drains: true })
    drained.qb.reset()
    const { qpc } = drained.firmware.about(Commands.QUERY_QP, drained.qb.object, { qpn: drained.qb.qpn })
    assert.equal(qpc.drain_sigerr, 0)
    const dci = b.queuePair('dci')
    dci.modify({ state: QpState.values.INIT, pkeyIndex: 0, port: 1 })
    const drain = { qpn: dci.qpn, opt_param_mask: QpOption.DRAIN_SIGERR, qpc: { drain_sigerr: 1 } }
    assertRefused(() => firmware.about(Commands.INIT2INIT_QP, dci.object, drain), 'unsupportedFeature', /only RC/)
    assert.equal(firmware.about(Commands.QUERY_QP, qb.object, { qpn: qb.qpn }).qpc.state, 3)
  })
})

describe('requests that change keys and PSVs', () => {
  const mem = { kind: 'crc32', block: 512 } as const

  it('with a fence wait for READs before them, also for one whose request was lost', () => {
    for (const changesKey of [false, true]) {
      const { a, b, qb, rkey, numbers, run, kindOf, configure } = setUp({ fault: 'drop=1,count=1' })
      configure({ mem }, [b.element(0, 2064)])
      a.bytes.set(bytesAt(3, 2048))
      const remote = { address: a.address, rkey: a.region.rkey }
      qb.post({ opcode: RDMA_READ, data: [{ address: 0n, length: 2048, lkey: rkey }], remote, flags: 0 })
      const change = changesKey
        ? configuration(rkey, [b.element(4096, 4096)], undefined)
        : setPsv(numbers.mem, firstValue({ ...mem, hasSeed: false }))
      assert.equal(kindOf(run(b, qb, { ...change, flags: FENCED })), REQUEST)
      assert.deepEqual(b.bytes.slice(0, 2064), signed(mem, bytesAt(3, 2048)))
    }
  })

  it('do nothing if they are flushed', () => {
    for (const fails of [false, true]) {
      const { m, a, b, qb, rkey, numbers, configure, run, kindOf } = setUp()
      configure({ mem }, [b.element(0, 516)])
      const signedBytes = signed(mem, bytesAt(4, 512))
      b.bytes.set(signedBytes)
      const other = [a.queuePair('rc'), b.queuePair('rc')] as const
      other[0].connect(other[1], 1)
      other[1].connect(other[0], 0)
      if (fails)
        qb.post({ opcode: RDMA_WRITE, data: [{ address: 0n, length: 8, lkey: 5 }], remote: { address: 0n, rkey } })
      else qb.modify({ state: QpState.values.ERR })
      qb.post(setPsv(numbers.mem, [0, 0], 8))
      qb.post({ ...configuration(rkey, [b.element(4096, 4096)], undefined), flags: FENCED | 8 })
      const seen: Completion[] = []
      m.runUntil(() => seen.push(...b.poll()) >= (fails ? 3 : 2))
      assert.ok(seen.every(({ kind }) => kind === REQUEST_ERROR))
      const read = { opcode: RDMA_READ, data: [a.element(0, 512)], remote: { address: 0n, rkey } }
      assert.equal(kindOf(run(a, other[0], read)), REQUEST)
      assert.deepEqual(a.bytes.slice(0, 512), bytesAt(4, 512))
      assert.equal(faultOf(b.poll()), undefined)
    }
  })
})

describe('a key without signatures', () => {
  it('is as before, also one that had some', () => {
    const { a, b, qa, qb, rkey, numbers, run, kindOf, configure } = setUp()
    const atomic = { swapAdd: 1n, compare: 0n }
    const request = { opcode: ATOMIC_FA, atomic, data: [a.element(0, 8)], remote: { address: 0n, rkey } }
    for (const bsf of [new Uint8Array(), bsfOf({}, numbers)]) {
      configure({ mem: { kind: 'crc32', block: 512 } }, [b.element(0, 516)])
      const off = configuration(rkey, [b.element(0, 516)], bsf, { hasBsf: bsf.length > 0 })
      off.raw![50]! |= 0x40
      assert.equal(kindOf(run(b, qb, off)), REQUEST)
      assert.equal(kindOf(run(a, qa, request)), REQUEST)
      run(a, qa, { opcode: RDMA_READ, data: [a.element(0, 516)], remote: { address: 0n, rkey } })
      assert.deepEqual(a.bytes.slice(0, 516), b.bytes.slice(0, 516))
    }
  })
})

describe('hostile programs', () => {
  const mem = { kind: 'crc32', block: 512 } as const

  it('are told what was refused', () => {
    const causes: string[] = []
    for (const isKey of [false, true]) {
      const { m, b, qb, rkey, numbers, run } = setUp()
      addFailureHandler(m.core, ({ cause }) => causes.push(cause.id))
      const bsf = bsfOf({ mem }, numbers)
      bsf[0] = 0xff
      run(b, qb, isKey ? configuration(rkey, [b.element(0, 516)], bsf) : setPsv(0xff_ffff, [0, 0]))
    }
    assert.deepEqual(causes, ['KEY_CONFIGURATION', 'KEY_CONFIGURATION'])
  })

  it('have no PSVs of others, nor values of them', () => {
    for (const whose of ['program', 'domain', 'nobody'] as const) {
      const { m, a, b, qa, qb, psv, rkey, numbers, run, kindOf } = setUp()
      const domain = b.call(Pd, 'create', 0, {}).object
      const ofDomain = psv((b.context.handles.slots[domain]!.state as { number: number }).number).number
      const number = { program: psvOfAnother(m), domain: ofDomain, nobody: 0xff_ffff }[whose]
      qb.post(configuration(rkey, [b.element(0, 516)], bsfOf({ mem }, { ...numbers, mem: number })))
      const read = { opcode: RDMA_READ, data: [a.element(0, 8)], remote: { address: 0n, rkey } }
      assert.equal(kindOf(run(a, qa, read)), REQUEST_ERROR, whose)
      assert.equal(kindOf(run(b, qb, setPsv(number, [0, 0]))), REQUEST_ERROR, whose)
    }
  })

  it('get errors for PSVs and keys that end in the middle', () => {
    const { a, b, qa, m, firmware, psvs, rkey, configure } = setUp()
    configure({ mem }, [b.element(0, 516 * 64)])
    qa.post({ opcode: RDMA_READ, data: [a.element(0, 512 * 64)], remote: { address: 0n, rkey } })
    for (let turn = 0; turn < 3; turn++) for (const device of m.devices) device.poll(m.time.now)
    assert.deepEqual(a.poll(), [])
    firmware.destroy(psvs.mem.handle)
    const seen: Completion[] = []
    m.runUntil(() => {
      seen.push(...a.poll())
      return seen.length > 0
    })
    assert.equal(seen[0]!.kind, REQUEST_ERROR)
  })

  it('describe signatures that no device has: refused, and nothing else happens', () => {
    const bytes = fc.uint8Array({ minLength: 64, maxLength: 64 })
    const wild = fc.record({ bytes, isNear: fc.boolean(), at: fc.nat(63) })
    fc.assert(
      fc.property(wild, ({ bytes: random, isNear, at }) => {
        const { a, b, qa, qb, rkey, numbers, run, kindOf } = setUp()
        const bsf = isNear ? bsfOf({ mem, wire: { kind: 't10', block: 4096 } }, numbers) : random
        if (isNear) bsf[at] = random[0]!
        const configured = kindOf(run(b, qb, configuration(rkey, [b.element(0, 8192)], bsf)))
        assert.ok(configured === REQUEST || configured === REQUEST_ERROR)
        const remote = { address: 0n, rkey }
        run(a, qa, { opcode: RDMA_WRITE, data: [a.element(0, 4000)], remote })
      }),
      { numRuns: inLongRun(300, 10) },
    )
    for (const options of [{ octowords: 3 }, { octowords: 8 }] as const) {
      const { b, qb, rkey, numbers, run, kindOf } = setUp()
      const request = configuration(rkey, [b.element(0, 516)], bsfOf({ mem }, numbers), options)
      assert.equal(kindOf(run(b, qb, request)), REQUEST_ERROR)
    }
  })

  it('give signatures only to keys that are made for them', () => {
    const { b, qb, key, numbers, run, kindOf } = setUp()
    const plain = key({ bsf_en: 0, bsf_octword_size: 0 }).rkey
    assert.equal(kindOf(run(b, qb, configuration(plain, [b.element(0, 516)], bsfOf({ mem }, numbers)))), REQUEST_ERROR)
    const { key: make } = setUp()
    assertRefused(() => make({ bsf_octword_size: 8 }), 'unsupportedFeature', /bsf_octword_size 8/)
    assertRefused(() => make({ umr_en: 0, free: 0 }), 'unsupportedFeature', /umr_en 0/)
  })

  it('have no keys over keys with signatures', () => {
    const { a, b, qa, qb, key, rkey, run, kindOf, configure } = setUp()
    configure({ mem }, [b.element(0, 516)])
    const outer = key({ bsf_en: 0, bsf_octword_size: 0 }).rkey
    qb.post(configuration(outer, [{ address: 0n, length: 8, lkey: rkey }], undefined))
    const read = { opcode: RDMA_READ, data: [a.element(0, 8)], remote: { address: 0n, rkey: outer } }
    assert.equal(kindOf(run(a, qa, read)), REQUEST_ERROR)
  })

  it('do not keep others waiting by large messages, nor by many ranges of a block', () => {
    const { a, b, qa, qb, m, key, rkey, configure, run, kindOf, numbers } = setUp()
    configure({ mem }, [b.element(0, 516 * 128)])
    const other = [a.queuePair('rc'), b.queuePair('rc')] as const
    other[0].connect(other[1], 1)
    other[1].connect(other[0], 0)
    qa.post({ opcode: RDMA_READ, data: [a.element(0, 65_536)], remote: { address: 0n, rkey } })
    const remote = { address: b.address + 0x2_0000n, rkey: b.region.rkey }
    other[0].post({ opcode: RDMA_WRITE, data: [a.element(0, 8)], remote })
    const order: number[] = []
    m.runUntil(() => {
      order.push(...a.poll().map(({ qpn }) => qpn))
      return order.length === 2
    })
    assert.deepEqual(order, [other[0].qpn, qa.qpn])
    // 4160 ranges of one byte in a block, by a key over a key
    const plain = { bsf_en: 0, bsf_octword_size: 0 }
    const inner = key(plain).rkey
    // a block that repeats: one byte 8192 times
    const request = configuration(inner, [b.element(0, 8192)], undefined)
    const view = new DataView(request.raw!.buffer)
    for (const [i, word] of [1, 0x400, 8192, 1, (2 << 16) | 1, b.region.lkey].entries())
      view.setUint32(112 + 4 * i, word)
    view.setBigUint64(112 + 24, b.address)
    qb.post(request)
    const whole = { kind: 'crc32', block: 4160 } as const
    qb.post(configuration(rkey, [{ address: 0n, length: 4164, lkey: inner }], bsfOf({ mem: whole }, numbers)))
    const read = { opcode: RDMA_READ, data: [a.element(0, 4160)], remote: { address: 0n, rkey } }
    assert.equal(kindOf(run(a, qa, read)), REQUEST_ERROR)
  })

  it('with 10,000 PSVs leave none behind, and a domain ends after its PSVs', () => {
    const { b, m, psv, firmware, configure } = setUp()
    configure({ wire: { kind: 'crc32', block: 512 } }, [b.element(0, 512)])
    const made = Array.from({ length: 10_000 }, () => psv())
    assert.equal(new Set(made.map(({ number }) => number)).size, 10_000)
    assertErrno(() => b.call(Pd, 'destroy', b.pd, {}), 'EBUSY')
    for (const { handle } of made.slice(0, 5000)) firmware.destroy(handle)
    assertErrno(() => firmware.create(Commands.CREATE_PSV, { num_psv: 2, pd: 1 }), 'EINVAL')
    assertRefused(() => firmware.create(Commands.CREATE_PSV, { num_psv: 1, pd: 0x777 }), 'noSuchPd')
    closeContext(b.context)
    const { device } = m.devices[1]!
    assert.deepEqual([device.counts.devx_obj, device.counts.mr], [0, 0])
    const { signatures } = (device.state as { own: { signatures: { psvs: Map<number, unknown>; wireOnly: number } } })
      .own
    assert.deepEqual([signatures.psvs.size, signatures.wireOnly, device.memory.scattered.size], [0, 0, 0])
  })
})
