/*
 * A block of memory for packets (docs/decisions/engines-without-io.md). The data path refers to bytes by an arena and
 * an offset, so that no view is created per packet.
 */
export interface Arena {
  /** Address of byte 0 in this process, for native code; 0: native code cannot use the arena. */
  readonly address: number
  readonly bytes: Uint8Array
  readonly view: DataView
}

/** An arena of `size` bytes in an ordinary ArrayBuffer. */
export const plainArena = (size: number): Arena => {
  const buffer = new ArrayBuffer(size)
  return { address: 0, bytes: new Uint8Array(buffer), view: new DataView(buffer) }
}

/** An arena over existing bytes, with address 0. */
export const arenaOver = (bytes: Uint8Array): Arena => ({
  address: 0,
  bytes,
  view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength),
})
