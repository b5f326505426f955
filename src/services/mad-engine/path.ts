/*
 * The path of a datagram to or from a peer: the fields that the engine compares. The engine's owner may add fields.
 */
import { isSameAddress } from '../../transport/wire/address.ts'

export interface MadPath {
  /** 16 bytes each. */
  readonly localGid: Uint8Array
  readonly remoteGid: Uint8Array
  /** Of an InfiniBand port, whose datagrams have GIDs only with a GRH. */
  readonly lids?: { readonly remote: number } | undefined
  /** The peer's QPN. */
  readonly qpn: number
}

type Peer = Pick<MadPath, 'remoteGid' | 'lids'>

/** Whether two paths are of one peer: by LID, or by GID. */
export const isSamePeer = (a: Peer, b: Peer): boolean =>
  a.lids === undefined || b.lids === undefined
    ? isSameAddress(a.remoteGid, b.remoteGid)
    : a.lids.remote === b.lids.remote

/** A peer as text. */
export const peerOf = ({ remoteGid, lids }: Peer): string =>
  lids === undefined ? remoteGid.join() : `LID ${lids.remote}`
