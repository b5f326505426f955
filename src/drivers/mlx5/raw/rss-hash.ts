/*
 * The Toeplitz hash of receive side scaling: the XOR of the 32 bits of the key at each 1 of the input. The input is the
 * chosen fields of the frame, in the order source address, destination address, source port, destination port.
 */
import { RxHash } from '../../../spec/drivers/mlx5.ts'
import { FlowHeader, FlowKey } from '../../../spec/wire/ethernet.ts'
import type { FrameKey } from '../../../transport/wire/flow-key.ts'

export interface RssKey {
  /** Bits of `RxHash`. */
  readonly fields: number
  /** 40 bytes. */
  readonly key: Uint8Array
}

/** The 32 bits of the key from bit `bit` on. */
const keyBits = (key: Uint8Array, bit: number): number => {
  const at = bit >> 3
  const word = ((key[at]! << 24) | (key[at + 1]! << 16) | (key[at + 2]! << 8) | key[at + 3]!) >>> 0
  const shift = bit & 7
  return shift === 0 ? word : ((word << shift) | (key[at + 4]! >> (8 - shift))) >>> 0
}

/**
 * The fields by the header that has them, in the order of the input: bit of `RxHash`, offset in the frame's key, bytes.
 */
const inputs: readonly (readonly [header: number, bit: number, at: number, bytes: number])[] = [
  [FlowHeader.IPV4, RxHash.SRC_IPV4, FlowKey.IPV4, 4],
  [FlowHeader.IPV4, RxHash.DST_IPV4, FlowKey.IPV4 + 4, 4],
  [FlowHeader.IPV6, RxHash.SRC_IPV6, FlowKey.IPV6, 16],
  [FlowHeader.IPV6, RxHash.DST_IPV6, FlowKey.IPV6 + 16, 16],
  // in a key, the destination's port is first
  [FlowHeader.TCP, RxHash.SRC_PORT_TCP, FlowKey.TCP + 2, 2],
  [FlowHeader.TCP, RxHash.DST_PORT_TCP, FlowKey.TCP, 2],
  [FlowHeader.UDP, RxHash.SRC_PORT_UDP, FlowKey.UDP + 2, 2],
  [FlowHeader.UDP, RxHash.DST_PORT_UDP, FlowKey.UDP, 2],
]

/** 0 for a frame without the fields. */
export const hashFrame = ({ fields, key }: RssKey, { bytes, view }: FrameKey): number => {
  const present = view.getUint32(FlowKey.PRESENT)
  let hash = 0
  let bit = 0
  for (let i = 0; i < inputs.length; i++) {
    const input = inputs[i]!
    if ((present & input[0]) === 0 || (fields & input[1]) === 0) continue
    for (let at = input[2]; at < input[2] + input[3]; at++)
      for (let mask = 0x80; mask !== 0; mask >>= 1, bit++) if ((bytes[at]! & mask) !== 0) hash ^= keyBits(key, bit)
  }
  return hash
}
