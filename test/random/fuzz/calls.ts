/*
 * Fuzz targets for calls on a soft device: messages of each dialect, and chains. A refused call must have a reason, and
 * closing the context must release every object.
 */
import assert from 'node:assert/strict'
import { closeContext, invokeNow, openContext, stat } from '../../../src/core/index.ts'
import { ChainErrors, Interface } from '../../../src/spec/classes/device/interface.ts'
import { CallError } from '../../../src/spec/errno.ts'
import { RDMA_VERBS_IOCTL } from '../../../src/spec/linux/ioctl.ts'
import { ioctlRequest } from '../../../src/uapi/index.ts'
import { encodeChain } from '../../../src/uapi/object/chain.ts'
import { machine, program, register } from '../../drivers/rxe/machine.ts'
import { testRings } from '../../drivers/rxe/provider.ts'
import { createRandomSource } from '../model/random.ts'
import {
  BUFFERS_AT,
  clientStateOf,
  createHostileClient,
  type DialectName,
  linuxMessage,
  type Message,
  objectMessage,
  runOne,
  splitChain,
} from '../objects/hostile/hostile-client.ts'
import { plausibleChain } from '../objects/plausible.ts'
import type { Target } from './fuzzer.ts'

// ---- programs as bytes ----

/**
 * Bytes of a record's header: {u8 descriptor, u8 number of the ioctl, u16 message bytes, u16 area bytes, u16 0},
 * little-endian. The message and the contents of the client's memory area follow. A program is a sequence of records.
 */
export const HEADER_BYTES = 8
const MAX_MESSAGES = 16

/** A record without an area; the first two bytes of the header are given. */
export const record = (first: number, message: Uint8Array, second = 0): Uint8Array => {
  const bytes = new Uint8Array(HEADER_BYTES + message.length)
  bytes.set([first, second])
  new DataView(bytes.buffer).setUint16(2, message.length, true)
  bytes.set(message, HEADER_BYTES)
  return bytes
}

/** The records of a program; the last may be shorter than its header says. */
export const splitProgram = (bytes: Uint8Array): Uint8Array[] => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const records: Uint8Array[] = []
  for (let offset = 0; offset < bytes.length; ) {
    const hasHeader = offset + HEADER_BYTES <= bytes.length
    const size = hasHeader ? view.getUint16(offset + 2, true) + view.getUint16(offset + 4, true) : 0
    records.push(bytes.subarray(offset, offset + HEADER_BYTES + size))
    offset += HEADER_BYTES + size
  }
  return records
}

/** The message of a record; undefined if the record is shorter than its header. */
const messageOf = (dialect: DialectName, from: Uint8Array): Message | undefined => {
  if (from.length < HEADER_BYTES) return undefined
  const view = new DataView(from.buffer, from.byteOffset, from.length)
  const length = view.getUint16(2, true)
  const request = dialect === 'object' ? ioctlRequest(from[1]) : RDMA_VERBS_IOCTL
  return {
    systemCall: dialect === 'write' ? 'write' : 'ioctl',
    request,
    bytes: from.subarray(HEADER_BYTES, HEADER_BYTES + length),
    memory: [{ address: BUFFERS_AT, bytes: from.subarray(HEADER_BYTES + length) }],
    title: dialect,
    ...(from[0] !== 0 && { fd: from[0] }),
  }
}

/** The inverse of `messageOf`. */
const recordOf = ({ request, bytes, memory, fd }: Message): Uint8Array => {
  const size = memory.reduce((end, one) => Math.max(end, Number(one.address - BUFFERS_AT) + one.bytes.length), 0)
  const withArea = new Uint8Array(HEADER_BYTES + bytes.length + size)
  withArea.set(record(fd ?? 0, bytes, request & 0xff))
  new DataView(withArea.buffer).setUint16(4, size, true)
  for (const one of memory) withArea.set(one.bytes, HEADER_BYTES + bytes.length + Number(one.address - BUFFERS_AT))
  return withArea
}

/** One machine for all inputs of a target. Each input has its own context. */
const createSetup = () => {
  const m = machine(1)
  const p = program(m)
  return { m, p, address: BigInt(register(p, 8192).address), before: stat(m.core).devices.rxe0 }
}
type Setup = ReturnType<typeof createSetup>

const createClient = ({ m, p, address }: Setup) => {
  const isOpened = true
  return createHostileClient(m, p, isOpened, address)
}

/** Creates the setup at the first call. */
const lazySetup = (): (() => Setup) => {
  let setup: Setup | undefined
  return () => {
    setup ??= createSetup()
    return setup
  }
}

/** Initial inputs of a target. */
const SEEDS = 24
/** Messages of an initial program. */
const SEED_MESSAGES = 10

const callTarget = (dialect: DialectName): Target => {
  const setup = lazySetup()
  return {
    name: `calls-${dialect}`,
    split: splitProgram,
    seeds: () =>
      Array.from({ length: SEEDS }, (_, seed) => {
        const random = createRandomSource(seed)
        const client = createClient(setup())
        const records: Uint8Array[] = []
        while (records.length < SEED_MESSAGES) {
          const state = clientStateOf(client, random)
          const message =
            dialect === 'object' ? objectMessage(state) : linuxMessage(state, dialect, client.context.device.schema)
          // only short messages; chains have their own target
          if (message === undefined || message.bytes.length > 300 || message.title.endsWith('.chain')) continue
          if (runOne(client, message).ret >= 0) records.push(recordOf(message))
        }
        closeContext(client.context)
        return new Uint8Array(Buffer.concat(records))
      }),
    run(bytes, feature) {
      const { m, before } = setup()
      const client = createClient(setup())
      for (const one of splitProgram(bytes).slice(0, MAX_MESSAGES)) {
        const message = messageOf(dialect, one)
        if (message === undefined || message.bytes.length === 0) continue
        const { ret } = runOne(client, message)
        // the errno, and the low byte of the class (object), the command (write) or the length (ioctl)
        feature(((ret < 0 ? -ret : 0) << 8) | (message.bytes[dialect === 'object' ? 2 : 0] ?? 0))
      }
      m.settle()
      closeContext(client.context)
      assert.deepEqual([stat(m.core).devices.rxe0, client.rings.live.size], [before, 0], 'objects are left')
      assert.equal(stat(m.core).faults, 0, 'a destroy handler threw')
    },
  }
}

const { STOP, UNDO } = ChainErrors.values

const chainTarget = (): Target => {
  const setup = lazySetup()
  return {
    name: 'chain',
    split: splitChain,
    seeds: () =>
      Array.from({ length: SEEDS }, (_, seed) => {
        const client = createClient(setup())
        const entries = plausibleChain(clientStateOf(client, createRandomSource(seed)))
        closeContext(client.context)
        return encodeChain(entries)
      }),
    run(bytes, feature) {
      const { m, p, before } = setup()
      for (const onError of [STOP, UNDO]) {
        const context = openContext(p.rxe.device, { isOpened: true })
        const rings = testRings()
        context.state = { rings }
        try {
          const { out } = invokeNow(context, Interface, 'chain', 0, { entries: bytes, onError }, p.caller)
          assert.equal(out.results.length, bytes.length)
          if (out.error !== 0) assert.ok((out.reason?.length ?? 0) > 10, 'no reason')
          if (out.error !== 0 && onError === UNDO)
            assert.deepEqual(
              [context.handles.count, context.descriptors.size, rings.live.size],
              [0, 0, 0],
              'not undone',
            )
          feature((out.error << 8) | out.done)
        } catch (error) {
          if (!(error instanceof CallError)) throw error
        }
        m.settle()
        closeContext(context)
        assert.deepEqual([stat(m.core).devices.rxe0, rings.live.size], [before, 0], 'objects are left')
      }
      assert.equal(stat(m.core).faults, 0, 'a destroy handler threw')
    },
  }
}

export const callTargets: readonly Target[] = [
  callTarget('object'),
  callTarget('write'),
  callTarget('ioctl'),
  chainTarget(),
]
