/*
 * Reads what programs send and write, and the private data of their connections, for what it says of their memory
 * (tools/check/lends/messages.ts): messages up to EDGE bytes wholly, of longer ones the beginning and the end. Nothing
 * is read before the program has a region that peers may access, or to which it may bind windows.
 */
import type { QueuePairObject } from '../../../core/driver-contract.ts'
import type { MemoryTable } from '../../../core/memory/region-table.ts'
import type { Context } from '../../../core/model.ts'
import type { Program } from '../../../spec/check/finding.ts'
import type { ProgramEvent } from '../../../spec/check/program-events.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { MULTICAST_QPN } from '../../../spec/wire/headers.ts'
import { SendKind, sendOperations } from '../../../spec/work.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import type { AdvertisedKeys } from '../../check/lends/messages.ts'
import type { ProgramStream } from '../../events/stream.ts'
import type { MessageWatch } from '../requests/feed.ts'
import { AdvertisedRegions, type Region } from './advertised-regions.ts'
import type { WatchedDevices } from './watched-devices.ts'

const EDGE = 4096
/** Bytes of the shortest message with a key, an address and a length. */
const LEAST = 16
/**
 * After BARREN WRITEs, and messages above EDGE, that told nothing, a queue pair's further ones are read one in SAMPLE,
 * until one tells: each costs another system call.
 */
const BARREN = 64
const SAMPLE = 16

/** Queue pairs of one peer, and those whose requests name their receiver. */
const CONNECTED: ReadonlySet<string> = new Set(['rc_qp', 'uc_qp', 'xrc_ini_qp'])
const DATAGRAMS: ReadonlySet<string> = new Set(['ud_qp', 'driver_qp'])

/** The functions of librdmacm whose private data a peer gets, by method of `cm_id`. */
const cmFunctions: Readonly<Record<string, string>> = { connect: 'rdma_connect', accept: 'rdma_accept' }

interface Advertisements {
  /** A call of a program on a region or an identifier of rdma_cm has ended. */
  called(call: ProgramEvent<'called'>): void
  /** The window of a row of a device's table was bound or unbound. */
  windowChanged(device: number, table: MemoryTable, row: number): void
  readonly watch: MessageWatch
  /** Whether any region may be told of. */
  readonly isOfUse: boolean
}

type Told = Pick<ProgramEvent<'advertised'>, 'time' | 'message' | 'to'>

export const createAdvertisements = (
  stream: ProgramStream,
  scratch: Arena,
  programOf: (context: Context) => Program | undefined,
  devices: Pick<WatchedDevices, 'queuePair'>,
): Advertisements => {
  const regions = new AdvertisedRegions()
  /** WRITEs and long messages in a row that told nothing, of each queue pair. */
  const barren = new WeakMap<QueuePairObject, number>()

  const isSampled = ({ length, opcode }: WorkRequest): boolean =>
    length > EDGE || sendOperations[opcode]?.kind === SendKind.WRITE

  const isSkipped = (qp: QueuePairObject, request: WorkRequest): boolean => {
    if (!isSampled(request)) return false
    const count = barren.get(qp) ?? 0
    barren.set(qp, count + 1)
    return count >= BARREN && count % SAMPLE !== 0
  }

  /** Tells what `bytes` bytes in the scratch buffer say. False: nothing. */
  const tell = (
    ofProgram: AdvertisedKeys<Region>,
    bytes: number,
    qpOf: (device: number) => number | undefined,
    by: Told,
  ) => {
    const told: ProgramEvent<'advertised'>[] = []
    ofProgram.find(
      scratch,
      bytes,
      ({ region: { device, pid, rkey, start: first, isReadable }, offset, length: size }) => {
        const start = first + offset
        const qp = qpOf(device)
        if (qp !== undefined)
          told.push({ event: 'advertised', pid, start, end: start + size, device, rkey, qp, isReadable, ...by })
      },
    )
    // Not before: who gets it may use the scratch buffer.
    for (const event of told) stream.event(event)
    return told.length > 0
  }

  const read = (
    qp: QueuePairObject,
    request: WorkRequest,
    ofProgram: AdvertisedKeys<Region>,
    copy: Parameters<MessageWatch>[2],
  ): void => {
    const { length, opcode, queue, number, wrId, postIndex, numbered, time, destination, destQpn } = request
    const message = {
      opcode,
      queue,
      number,
      wrId,
      ...(postIndex !== undefined && { postIndex }),
      ...(numbered && { numbered }),
    }
    const to = destination && destQpn !== undefined && { gid: destination.gid, qpn: destQpn }
    const look = (from: number, bytes: number): boolean =>
      copy(from, bytes) && tell(ofProgram, bytes, () => qp.id, { time, message, ...(to && { to }) })
    const hasTold = look(0, Math.min(length, EDGE))
    const hasToldMore = length > EDGE && look(Math.max(EDGE, length - EDGE), Math.min(EDGE, length - EDGE))
    if (hasTold || hasToldMore) barren.delete(qp)
  }

  const calledCm = ({ method, refused, args, program, time, stack }: ProgramEvent<'called'>): void => {
    const call = cmFunctions[method]
    const ofProgram = regions.keysOf(program?.pid)
    const { qpNum, privateData, privateDataLength } = (args.parameters ?? {}) as Readonly<Record<string, unknown>>
    if (call === undefined || ofProgram === undefined || refused !== undefined) return
    if (!(privateData instanceof Uint8Array) || typeof qpNum !== 'number' || typeof privateDataLength !== 'number')
      return
    const bytes = Math.min(privateDataLength, privateData.length)
    if (bytes < LEAST) return
    scratch.bytes.set(privateData.subarray(0, bytes))
    tell(ofProgram, bytes, device => devices.queuePair(device, qpNum), { time, message: { call, stack } })
  }

  return {
    get isOfUse() {
      return regions.areAny
    },
    called(call) {
      if (call.class === 'cm_id') calledCm(call)
      else regions.called(call)
    },
    windowChanged: (...row) => regions.windowChanged(...row),
    watch(qp, request, copy) {
      const { length, destination, destQpn } = request
      const { name } = qp.class
      if (length < LEAST || qp.context === undefined) return
      const hasReceiver = DATAGRAMS.has(name) && destination !== undefined && destQpn !== MULTICAST_QPN
      if (!CONNECTED.has(name) && !hasReceiver) return
      const ofProgram = regions.keysOf(programOf(qp.context)?.pid)
      if (ofProgram !== undefined && !isSkipped(qp, request)) read(qp, request, ofProgram, copy)
    },
  }
}
