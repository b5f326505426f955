/*
 * The registered memory that a thread reads in a loop, and who may write there: what it waits for may come from a peer.
 */
import { counted } from '../../../base/text.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { SendKind, sendOperations } from '../../../spec/work.ts'
import { requestText } from '../buffers.ts'
import { hasReachedRtr } from '../connection.ts'
import type { DetectorServices } from '../detector.ts'
import { LATEST } from '../latest-requests.ts'
import type { KnownObject } from '../objects.ts'

/** Peers that are named. */
const MAX_WRITERS = 3

/** A WRITE that ends or begins at most this far from an address may have been meant for it. Bytes. */
const NEAR = 8

type Services = Pick<DetectorServices, 'objects' | 'peerOf' | 'targetDeviceOf' | 'ask'>

export interface MemoryInSentence {
  /** `offset 16 of MR 0x7f of 4096 bytes, where QP 0x12 of process 7 (server) may write`. */
  readonly text: string
  /** Why nobody writes there any more; undefined: somebody may. */
  readonly reason?: string
}

const writes = ({ opcode }: WorkRequest): boolean => {
  const kind = sendOperations[opcode]?.kind
  return kind === SendKind.WRITE || kind === SendKind.ATOMIC || kind === SendKind.ATOMIC_WRITE
}

/**
 * The last of the requests that wrote an address of a region, else the last that ended right before it or began right
 * behind.
 */
const writerOf = (services: Services, region: KnownObject, address: number): string => {
  const ended = services.ask(LATEST)?.() ?? []
  const at = address - (region.start ?? 0) + (region.iova ?? 0)
  let near = ''
  for (let i = ended.length - 1; i >= 0; i--) {
    const request = ended[i]!
    const { remote } = request
    if (remote === undefined || remote.rkey !== region.rkey || !writes(request)) continue
    const owner = services.objects.find(request.owner)
    if (owner === undefined || services.targetDeviceOf(request, owner) !== region.device) continue
    const { address: start, length } = remote
    const name = `${requestText(request)} of ${owner.name}, ${counted(length, 'byte')},`
    if (start <= at && at < start + length) return `; ${name} has written there last`
    const before = at - start - length
    const behind = start - at - 1
    if (near !== '') continue
    if (before >= 0 && before < NEAR)
      near = `; ${name} ended ${before === 0 ? 'right' : counted(before, 'byte')} before it`
    else if (behind >= 0 && behind < NEAR)
      near = `; ${name} began ${behind === 0 ? 'right' : counted(behind, 'byte')} behind it`
  }
  return near
}

/**
 * `contexts`: of the process. Undefined: the address is in no region of it.
 */
export const memoryAt = (
  services: Services,
  contexts: readonly number[],
  address: number,
): MemoryInSentence | undefined => {
  const regions = contexts
    .flatMap(context => services.objects.existingIn(context))
    .filter(
      ({ class: name, start = address + 1, size = 0 }) => name === 'mr' && start <= address && address < start + size,
    )
  const region = regions.find(({ isRemoteWritable }) => isRemoteWritable) ?? regions[0]
  if (region === undefined) return undefined
  const place = `offset ${address - region.start!} of ${region.name}`
  if (!region.isRemoteWritable) return { text: `${place}, where no peer may write` }
  const queues = [...(region.uses.get('pd')?.users ?? [])].filter(user => user.isQp && hasReachedRtr(user))
  const peers = [...new Set(queues.flatMap(qp => services.peerOf(qp) ?? []))]
  const left = peers.filter(({ destruction }) => destruction === undefined)
  const writer = writerOf(services, region, address)
  if (left.length === 0)
    return {
      text: `${place}, where peers may write${writer}`,
      ...(peers.length > 0 && queues.length === peers.length && { reason: 'no peer that could write there is left' }),
    }
  const more = left.length > MAX_WRITERS ? ` and ${left.length - MAX_WRITERS} more` : ''
  const names = left.slice(0, MAX_WRITERS).map(({ nameWithProgram }) => nameWithProgram)
  return { text: `${place}, where ${names.join(', ')}${more} may write${writer}` }
}
