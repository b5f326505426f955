/*
 * The path of a datagram to or from a peer: the fields that the engine compares. The owner of the engine may add
 * others.
 */

export interface MadPath {
  /** 16 bytes each. */
  readonly localGid: Uint8Array
  readonly remoteGid: Uint8Array
  /** Number of the peer's queue pair. */
  readonly qpn: number
}
