/*
 * The registered memory that a thread reads in a loop, and who may write there: what it waits for may come from a peer.
 */
import { hasReachedRtr } from '../connection.ts'
import type { DetectorServices } from '../detector.ts'

/** Peers that are named. */
const MAX_WRITERS = 3

export interface MemoryInSentence {
  /** `offset 16 of MR 0x7f of 4096 bytes, where QP 0x12 of process 7 (server) may write`. */
  readonly text: string
  /** Why nobody writes there any more; undefined: somebody may. */
  readonly reason?: string
}

/** `contexts`: of the process. Undefined: the address is in no region of it. */
export const memoryAt = (
  services: Pick<DetectorServices, 'objects' | 'peerOf'>,
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
  if (left.length === 0)
    return {
      text: `${place}, where peers may write`,
      ...(peers.length > 0 && queues.length === peers.length && { reason: 'no peer that could write there is left' }),
    }
  const more = left.length > MAX_WRITERS ? ` and ${left.length - MAX_WRITERS} more` : ''
  const names = left.slice(0, MAX_WRITERS).map(({ nameWithProgram }) => nameWithProgram)
  return { text: `${place}, where ${names.join(', ')}${more} may write` }
}
