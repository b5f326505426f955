/*
 * Memory for call messages (messages.ts). The daemon accesses memory of this process. If the kernel refuses the access,
 * the session passes a memory file to the daemon. All contexts share the memory, because calls are synchronous.
 *
 * The memory has MESSAGE_BYTES for the message, then MAX_BUFFERS buffers of BUFFER_BYTES for long values.
 */
import { type Arena, createRingPool, mapArena } from '../../../host/memory/mapping.ts'
import { addSeals, createMemfd, SEAL_GROW, SEAL_SHRINK } from '../../../host/memory/memfd.ts'
import { MAD_RECEIVED_BYTES } from '../../../spec/classes/mad/mad_channel.ts'

export const MESSAGE_BYTES = 1 << 16
export const BUFFER_BYTES = MAD_RECEIVED_BYTES
export const MAX_BUFFERS = 10

/** `address`: address of the memory for the daemon. */
export type CallMemory = Pick<Arena, 'address' | 'bytes' | 'view'>

const TOTAL_BYTES = MESSAGE_BYTES + MAX_BUFFERS * BUFFER_BYTES

let processMemory: CallMemory | undefined
/** Memory of this process; created at the first call. */
export const callMemory = (): CallMemory => {
  processMemory ??= mapArena(TOTAL_BYTES)
  return processMemory
}

let passedFile: { readonly fd: number; readonly memory: CallMemory } | undefined
/** The memory file and its mapping. Addresses are offsets in the file. Later sessions use the same file. */
export const passedMemory = (): { readonly fd: number; readonly memory: CallMemory } => {
  if (passedFile === undefined) {
    const fd = createMemfd('userdma-calls', TOTAL_BYTES)
    addSeals(fd, SEAL_SHRINK | SEAL_GROW)
    const { bytes, view } = createRingPool().map(fd, 0, TOTAL_BYTES)
    passedFile = { fd, memory: { address: 0, bytes, view } }
  }
  return passedFile
}
