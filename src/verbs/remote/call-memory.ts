/*
 * Memory for call messages (messages.ts): memory of this process, which the daemon accesses, or, where the kernel
 * refuses that, a memory file that the session passes to it (spec/session.ts). All contexts share one message, since a
 * call is answered before the next call is made. Untouched pages take no memory.
 */
import { type Arena, createRingPool, mapArena } from '../../host/memory/mapping.ts'
import { addSeals, createMemfd, SEAL_GROW, SEAL_SHRINK } from '../../host/memory/memfd.ts'

/** Bytes of the message, bytes of one indirect value, and the maximum number of indirect values of a call. */
export const MESSAGE = 1 << 16
export const ROOM = 1 << 20
export const ROOMS = 10

/** `address`: the daemon's address for it. */
export type CallMemory = Pick<Arena, 'address' | 'bytes' | 'view'>

const BYTES = MESSAGE + ROOMS * ROOM

let own: CallMemory | undefined
/** Memory of this process. */
export const ownMemory = (): CallMemory => {
  own ??= mapArena(BYTES)
  return own
}

let passed: { readonly fd: number; readonly memory: CallMemory } | undefined
/** The file and its bytes; addresses are offsets. The descriptor stays open for further sessions. */
export const passedMemory = (): { readonly fd: number; readonly memory: CallMemory } => {
  if (passed === undefined) {
    const fd = createMemfd('userdma-calls', BYTES)
    addSeals(fd, SEAL_SHRINK | SEAL_GROW)
    const { bytes, view } = createRingPool().map(fd, 0, BYTES)
    passed = { fd, memory: { address: 0, bytes, view } }
  }
  return passed
}
