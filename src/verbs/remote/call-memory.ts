/*
 * Memory for the messages of calls (messages.ts): of this process, which the daemon reads and writes, or where the
 * kernel refuses it that, a memory file that the session passes to it (spec/session.ts). Either is one for all
 * contexts, as a call is answered before the next one is made. Pages cost memory when they are used.
 */
import { type Arena, createRingPool, mapArena } from '../../host/memory/mapping.ts'
import { addSeals, createMemfd, SEAL_GROW, SEAL_SHRINK } from '../../host/memory/memfd.ts'

/** Room for the message, and for one value that lies elsewhere; as many as a method has at most. */
export const MESSAGE = 1 << 16
export const ROOM = 1 << 20
export const ROOMS = 10

/** `address`: where the daemon finds it. */
export type CallMemory = Pick<Arena, 'address' | 'bytes' | 'view'>

const BYTES = MESSAGE + ROOMS * ROOM

let own: CallMemory | undefined
/** Of this process. */
export const ownMemory = (): CallMemory => {
  own ??= mapArena(BYTES)
  return own
}

let passed: { readonly fd: number; readonly memory: CallMemory } | undefined
/** The file and its bytes: addresses are offsets. The descriptor stays open, for more sessions. */
export const passedMemory = (): { readonly fd: number; readonly memory: CallMemory } => {
  if (passed === undefined) {
    const fd = createMemfd('userdma-calls', BYTES)
    addSeals(fd, SEAL_SHRINK | SEAL_GROW)
    const { bytes, view } = createRingPool().map(fd, 0, BYTES)
    passed = { fd, memory: { address: 0, bytes, view } }
  }
  return passed
}
