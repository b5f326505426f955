/*
 * Reads what connected queue pairs send and write for what it says of their program's memory (tools/check/lends/messages.ts):
 * messages up to EDGE bytes wholly, of longer ones the beginning and the end. Nothing is read before the program has a region
 * that peers may access.
 */
import type { QueuePairObject } from '../../../core/driver-contract.ts'
import type { Context } from '../../../core/model.ts'
import type { Program } from '../../../spec/check/finding.ts'
import type { ProgramEvent } from '../../../spec/check/program-events.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import type { ProgramStream } from '../../../spec/check/stream.ts'
import { AccessFlags, MrKind, REMOTE_RIGHTS } from '../../../spec/enums.ts'
import { SendKind, sendOperations } from '../../../spec/work.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import { AdvertisedKeys, type AdvertisedRegion } from '../../check/lends/messages.ts'
import type { MessageWatch } from '../requests/feed.ts'

const EDGE = 4096
/** Bytes of the shortest message with a key, an address and a length. */
const LEAST = 16
/**
 * After BARREN WRITEs, and messages above EDGE, that told nothing, a queue pair's further ones are read one in SAMPLE, until
 * one tells: each costs another system call.
 */
const BARREN = 64
const SAMPLE = 16

/** Those of one peer. */
const CONNECTED: ReadonlySet<string> = new Set(['rc_qp', 'uc_qp', 'xrc_ini_qp'])

interface Region extends AdvertisedRegion {
  readonly pid: number | undefined
  /** Of its first byte in the process. */
  readonly start: number
  readonly isReadable: boolean
}

interface Advertisements {
  /** A call of a program has ended. */
  called(call: ProgramEvent<'called'>): void
  readonly watch: MessageWatch
  /** Whether any region may be told of. */
  readonly isOfUse: boolean
}

export const createAdvertisements = (
  stream: ProgramStream,
  scratch: Arena,
  programOf: (context: Context) => Program | undefined,
): Advertisements => {
  const keys = new Map<number | undefined, AdvertisedKeys<Region>>()
  /** By `CoreObject.id` of regions. */
  const regions = new Map<number, Region>()
  /** WRITEs and long messages in a row that told nothing, of each queue pair. */
  const barren = new WeakMap<QueuePairObject, number>()

  const forget = (id: number): void => {
    const region = regions.get(id)
    if (region === undefined) return
    regions.delete(id)
    const ofProgram = keys.get(region.pid)
    ofProgram?.delete(region.device, region.rkey)
    if (ofProgram?.size === 0) keys.delete(region.pid)
  }

  const add = (id: number, region: Region): void => {
    let ofProgram = keys.get(region.pid)
    if (ofProgram === undefined) {
      ofProgram = new AdvertisedKeys()
      keys.set(region.pid, ofProgram)
    }
    regions.set(id, region)
    ofProgram.add(region)
  }

  const isSampled = ({ length, opcode }: WorkRequest): boolean =>
    length > EDGE || sendOperations[opcode]?.kind === SendKind.WRITE

  const isSkipped = (qp: QueuePairObject, request: WorkRequest): boolean => {
    if (!isSampled(request)) return false
    const count = barren.get(qp) ?? 0
    barren.set(qp, count + 1)
    return count >= BARREN && count % SAMPLE !== 0
  }

  const read = (
    qp: QueuePairObject,
    request: WorkRequest,
    ofProgram: AdvertisedKeys<Region>,
    copy: Parameters<MessageWatch>[2],
  ): void => {
    const { length, opcode, queue, number, wrId, postIndex, numbered, time } = request
    let hasTold = false
    const look = (from: number, bytes: number): void => {
      if (!copy(from, bytes)) return
      const told: ProgramEvent<'advertised'>[] = []
      ofProgram.find(scratch, bytes, ({ region, offset, length: size }) => {
        const start = region.start + offset
        told.push({
          event: 'advertised',
          time,
          pid: region.pid,
          start,
          end: start + size,
          device: region.device,
          rkey: region.rkey,
          qp: qp.id,
          message: {
            opcode,
            queue,
            number,
            wrId,
            ...(postIndex !== undefined && { postIndex }),
            ...(numbered && { numbered }),
          },
          isReadable: region.isReadable,
        })
      })
      // Not before: who gets it may use the scratch buffer.
      for (const event of told) stream.event(event)
      hasTold ||= told.length > 0
    }
    look(0, Math.min(length, EDGE))
    if (length > EDGE) look(Math.max(EDGE, length - EDGE), Math.min(EDGE, length - EDGE))
    if (hasTold) barren.delete(qp)
  }

  return {
    get isOfUse() {
      return regions.size > 0
    },
    called({ class: name, method, object, refused, args, out, program, deviceNumber }) {
      if (name !== 'mr' || object === undefined || refused !== undefined) return
      if (method === 'destroy' || method === 'modify') forget(object.id)
      const { start, length, iova, access, kind = MrKind.values.MEMORY } = args
      if (method !== 'create' || typeof access !== 'number' || (access & REMOTE_RIGHTS) === 0) return
      if (kind !== MrKind.values.MEMORY || typeof out.rkey !== 'number' || out.rkey === 0) return
      add(object.id, {
        device: deviceNumber,
        pid: program?.pid,
        rkey: out.rkey,
        start: Number(start),
        iova: (access & AccessFlags.values.ZERO_BASED) === 0 ? Number(iova) : 0,
        length: Number(length),
        isReadable: (access & AccessFlags.values.REMOTE_READ) !== 0,
      })
    },
    watch(qp, request, copy) {
      const { length } = request
      if (length < LEAST || !CONNECTED.has(qp.class.name) || qp.context === undefined) return
      const ofProgram = keys.get(programOf(qp.context)?.pid)
      if (ofProgram !== undefined && !isSkipped(qp, request)) read(qp, request, ofProgram, copy)
    },
  }
}
