/*
 * The path of a datagram to or from a peer: the fields that the engine compares. The engine's owner may add fields.
 */

export interface MadPath {
  /** 16 bytes each. */
  readonly localGid: Uint8Array
  readonly remoteGid: Uint8Array
  /** The peer's QPN. */
  readonly qpn: number
}
