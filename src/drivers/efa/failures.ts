/*
 * Why requests of an EFA device fail (core/failures.ts), for logs and tools.
 */
import { findGid } from '../../core/devices/gids.ts'
import { explainKey } from '../../core/explain.ts'
import { forgetFailure, hasFailureHandlers, reportFailure } from '../../core/failures.ts'
import type { MemoryTable } from '../../core/memory/region-table.ts'
import type { Device } from '../../core/model.ts'
import { type Cause, createCause } from '../../spec/check/causes.ts'
import { EfaOperation, EfaStatus } from '../../spec/drivers/efa-queues.ts'
import { AccessFlags } from '../../spec/enums.ts'
import { joinWords } from '../../spec/memory.ts'
import { WcStatus } from '../../spec/work.ts'
import { addressText } from '../../transport/wire/address.ts'
import { wcStatusOf } from './completions.ts'
import type { EfaState } from './device-state.ts'
import { receives } from './engine-common.ts'
import { descriptorKey, idOf, NO_INLINE, wrOpcode } from './requests.ts'
import type { Element, QueuePair, Receive, Request } from './state.ts'

const { RDMA_READ } = EfaOperation
const { LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE } = AccessFlags.values

type EfaDevice = Device<EfaState>

/** The last removed key of the memory table with these 24 bits. */
const removedKey = ({ removed }: MemoryTable, written: number): number | undefined =>
  removed?.key.findLast(key => key !== 0 && descriptorKey(key) === written)

/** Why one of the elements cannot be accessed. */
const elementCause = (
  { memory }: EfaDevice,
  pd: number,
  elements: readonly Element[],
  count: number,
  access: number,
): Cause | undefined => {
  for (let i = 0; i < count; i++) {
    const { key, written, hi, lo, length } = elements[i]!
    const table = key === 0 ? (removedKey(memory, written) ?? 0) : key
    const cause = length === 0 ? undefined : explainKey(memory, pd, table, hi, lo, length, access, 0)
    // In the program's words, which know the key by its 24 bits.
    if (cause !== undefined) return { ...cause, args: { ...cause.args, key: written } }
  }
  return undefined
}

/** Whether the last access to memory on a device of this process failed because the memory's program has ended. */
const hasProgramEnded = (device: Device | undefined): boolean =>
  (device?.state as EfaState | undefined)?.memory?.hasProcessEnded() === true

/** The memory is registered, and is not there. */
const faultCause = (device: EfaDevice, [element]: readonly Element[], count: number): Cause => {
  if (hasProgramEnded(device as Device)) return createCause('LOCAL_ENDED', {})
  if (element === undefined || count === 0) return createCause('REFUSED', {})
  const { written: key, hi, lo, length } = element
  const accessStart = joinWords(hi, lo)
  return createCause('LOCAL_FAULT', { key, accessStart, accessEnd: accessStart + BigInt(length) })
}

/** The queue pair to which a send goes, if a device of this process has it: also if the packets do not go directly. */
const destinationOf = ({ core, driver }: EfaDevice, { peer, destQpn }: Request): QueuePair | undefined => {
  if (peer === undefined) return undefined
  for (const device of core.devices.values())
    if (device.driver === driver && findGid(device.ports[0].gids, peer.address) >= 0)
      return (device.state as EfaState).qps.get(destQpn)?.state
  return undefined
}

/** The range of a READ or WRITE at its destination in this process. */
const remoteCause = (destination: QueuePair, { operation, rkey, remoteHi, remoteLo, length }: Request) => {
  const memory = destination.object.context?.device.memory
  const access = operation === RDMA_READ ? REMOTE_READ : REMOTE_WRITE
  return memory && explainKey(memory, destination.pd, rkey, remoteHi, remoteLo, length, access, 0)
}

/** No queue pair receives the request. */
const unreceived = ({ qkey: packetQkey }: Request, destination: QueuePair | undefined): Cause =>
  destination?.isReliable && receives(destination.state) && destination.qkey !== packetQkey
    ? createCause('SRD_QKEY', { packetQkey, qkey: destination.qkey })
    : createCause('SRD_NO_QUEUE_PAIR', {})

/** The memory at the destination is registered, and is not there. */
const remoteFault = (destination: QueuePair, { rkey, remoteHi, remoteLo, length }: Request): Cause => {
  if (hasProgramEnded(destination.object.context?.device)) return createCause('REMOTE_ENDED', {})
  const accessStart = joinWords(remoteHi, remoteLo)
  return createCause('REMOTE_FAULT', { key: rkey, accessStart, accessEnd: accessStart + BigInt(length) })
}

const sendCause = (device: EfaDevice, request: Request, status: number, mtu: number): Cause => {
  const { qp, operation, inlineLength, elements, count, length, rnrTries } = request
  switch (status) {
    case EfaStatus.UNSUPPORTED_OPERATION:
      return createCause('BAD_OPCODE', { opcode: wrOpcode(request) })
    case EfaStatus.INVALID_AH:
      return createCause('NO_ADDRESS_HANDLE', {})
    case EfaStatus.LOCAL_LENGTH:
      return createCause('SRD_LENGTH', { length, mtu })
    case EfaStatus.INVALID_LKEY: {
      const access = operation === RDMA_READ ? LOCAL_WRITE : 0
      const cause = inlineLength === NO_INLINE ? elementCause(device, qp.pd, elements, count, access) : undefined
      return cause ?? faultCause(device, elements, count)
    }
    case EfaStatus.NOT_READY:
      return createCause('RNR_EXCEEDED', { rnrNaks: rnrTries, rnrRetry: qp.rnrRetry })
    case EfaStatus.BAD_DESTINATION:
      return unreceived(request, destinationOf(device, request))
    case EfaStatus.REMOTE_LENGTH:
      return createCause('NAK_INVALID_REQUEST', {})
    case EfaStatus.BAD_ADDRESS: {
      const destination = destinationOf(device, request)
      if (destination === undefined) return createCause('NAK_REMOTE_ACCESS', {})
      return remoteCause(destination, request) ?? remoteFault(destination, request)
    }
    case EfaStatus.UNKNOWN_PEER:
      return createCause('SRD_UNKNOWN', {})
    case EfaStatus.UNRESPONSIVE:
    case EfaStatus.UNREACHABLE:
      return createCause('SRD_NO_ANSWER', {})
    case EfaStatus.BAD_STATUS:
      return createCause('BAD_RESPONSE', { opcode: wrOpcode(request) })
    default:
      return createCause('REFUSED', {})
  }
}

/** A send has failed with `status` (`EfaStatus`). `injected`: by a fault rule. */
export const reportSend = (
  device: EfaDevice,
  request: Request,
  status: number,
  injected: Cause | undefined,
  mtu: number,
): void => {
  const { qp, peer, destQpn } = request
  const cause = injected ?? sendCause(device, request, status, mtu)
  const isCauseAtPeer =
    status === EfaStatus.BAD_ADDRESS && (cause.id.startsWith('RKEY_') || cause.id.startsWith('REMOTE_'))
  reportFailure(
    {
      kind: 'send',
      device: device.name,
      qpn: qp.qpn,
      opcode: wrOpcode(request),
      wrId: idOf(request),
      status: wcStatusOf(status),
      cause,
      // the record of a send without a destination has that of an earlier one
      ...(peer !== undefined &&
        status !== EfaStatus.INVALID_AH && { peer: { qpn: destQpn, address: addressText(peer.address) } }),
      ...(isCauseAtPeer && { isCauseAtPeer }),
    },
    device,
    qp.object.context,
  )
}

/** A receive has failed with `status` (`EfaStatus`), for a message of `length` bytes. */
export const reportReceive = (
  device: EfaDevice,
  qp: QueuePair,
  { id, elements, count, length: bufferBytes }: Receive,
  status: number,
  length: number,
  injected: Cause | undefined,
): void => {
  const found =
    status === EfaStatus.LOCAL_LENGTH
      ? createCause('RECEIVE_TOO_SHORT', { bufferBytes, length })
      : elementCause(device, qp.pd, elements, count, LOCAL_WRITE)
  const cause = injected ?? found ?? faultCause(device, elements, count)
  const failure = { kind: 'receive', device: device.name, qpn: qp.qpn, wrId: BigInt(id), cause } as const
  reportFailure({ ...failure, status: wcStatusOf(status) }, device, qp.object.context)
}

/** `count` requests of a queue were flushed, since the queue pair is in ERR. */
export const reportFlush = (device: EfaDevice, qp: QueuePair, queue: 'send' | 'receive', count: number): void => {
  if (count === 0 || !hasFailureHandlers(device.core)) return
  const cause = createCause('MODIFIED', {})
  const failure = { kind: 'flush', device: device.name, qpn: qp.qpn, queue, count, cause } as const
  reportFailure({ ...failure, status: WcStatus.values.WR_FLUSH_ERR }, device, qp.object.context)
}

/** The queue pair was reset or destroyed. */
export const forgetQueuePair = (device: EfaDevice, { qpn }: QueuePair): void => forgetFailure(device as Device, qpn)
