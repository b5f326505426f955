/*
 * Where a datagram goes or came from, as far as the engine compares it; whoever runs the engine has more in it.
 */

export interface MadPath {
  /** 16 bytes each. */
  readonly localGid: Uint8Array
  readonly remoteGid: Uint8Array
  /** Number of the peer's queue pair. */
  readonly qpn: number
}

export const isSameGid = (a: Uint8Array, b: Uint8Array): boolean => a.every((byte, i) => byte === b[i])
