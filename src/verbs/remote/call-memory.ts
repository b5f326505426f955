/*
 * Memory for call messages (messages.ts): memory of this process, which the daemon accesses, or, where the kernel
 * refuses that, a memory file that the session passes to the daemon (spec/session.ts). All contexts use the same
 * memory, since a call is answered before the next one is made.
 *
 * It has MESSAGE_BYTES for the message, then MAX_BUFFERS buffers of BUFFER_BYTES each for long values outside the
 * message. Pages that are never used take no memory.
 */
import { type Arena, createRingPool, mapArena } from '../../host/memory/mapping.ts'
import { addSeals, createMemfd, SEAL_GROW, SEAL_SHRINK } from '../../host/memory/memfd.ts'

export const MESSAGE_BYTES = 1 << 16
export const BUFFER_BYTES = 1 << 20
export const MAX_BUFFERS = 10

/** `address`: by which the daemon accesses the memory. */
export type CallMemory = Pick<Arena, 'address' | 'bytes' | 'view'>

const TOTAL_BYTES = MESSAGE_BYTES + MAX_BUFFERS * BUFFER_BYTES

let processMemory: CallMemory | undefined
/** Memory of this process; created at the first call. */
export const callMemory = (): CallMemory => {
  processMemory ??= mapArena(TOTAL_BYTES)
  return processMemory
}

let passedFile: { readonly fd: number; readonly memory: CallMemory } | undefined
/**
 * The memory file and its mapping; addresses are offsets in the file. The descriptor stays open for further sessions.
 */
export const passedMemory = (): { readonly fd: number; readonly memory: CallMemory } => {
  if (passedFile === undefined) {
    const fd = createMemfd('userdma-calls', TOTAL_BYTES)
    addSeals(fd, SEAL_SHRINK | SEAL_GROW)
    const { bytes, view } = createRingPool().map(fd, 0, TOTAL_BYTES)
    passedFile = { fd, memory: { address: 0, bytes, view } }
  }
  return passedFile
}
