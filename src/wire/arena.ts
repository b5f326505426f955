/*
 * A block of memory in which packets are built, sent, received and read (docs/decisions/engines-without-io.md).
 *
 * The data path refers to bytes by an arena and an offset, so that no view is created per packet. An arena for native
 * code has an address; an arena of a device without native code has address 0.
 */
export interface Arena {
  /** Address of byte 0 in this process, as a Number; 0 if the arena is an ordinary ArrayBuffer. */
  readonly address: number
  readonly bytes: Uint8Array
  readonly view: DataView
}

/** An arena of ordinary memory, for engines and links without native code. `size` in bytes. */
export const plainArena = (size: number): Arena => {
  const buffer = new ArrayBuffer(size)
  return { address: 0, bytes: new Uint8Array(buffer), view: new DataView(buffer) }
}

/** An arena over existing bytes, a captured packet for example; native code cannot use it. */
export const arenaOver = (bytes: Uint8Array): Arena => ({
  address: 0,
  bytes,
  view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength),
})
