/*
 * What the nodes of tests (node.ts, and test/random/model/node.ts) have in common: words of requests, elements and
 * completions, and packets of a run.
 */
import type { EngineOptions } from '../../../src/transport/engine/engine.ts'
import { Completion, Send, Sge } from '../../../src/transport/engine/types.ts'
import type { Arena } from '../../../src/transport/wire/arena.ts'

/** The low and the high half of 64 bits. */
export const halvesOf = (value: bigint): readonly [number, number] => [
  Number(value & 0xffff_ffffn),
  Number((value >> 32n) & 0xffff_ffffn),
]

export interface ElementWords {
  /** `halvesOf` it. */
  readonly address: readonly [number, number]
  readonly length: number
  readonly key: number
}

/** Writes elements, and returns their length in total. */
export const putElements = (elements: readonly ElementWords[], into: Uint32Array, at: number): number => {
  let total = 0
  elements.forEach(({ address, length, key }, i) => {
    const word = at + i * Sge.WORDS
    into[word + Sge.LO] = address[0]
    into[word + Sge.HI] = address[1]
    into[word + Sge.LENGTH] = length
    into[word + Sge.LKEY] = key
    total += length
  })
  return total
}

interface SendWords {
  readonly opcode: number
  readonly flags: number
  readonly id: number
  readonly idHigh: number
  readonly elements: readonly ElementWords[]
  readonly inline: Uint8Array | undefined
  readonly imm: number
  readonly rkey: number
  readonly remote: readonly [number, number]
  readonly compare: bigint
  readonly swap: bigint
  readonly inlineAt: number
  readonly refused: number
  readonly to: { readonly qpn: number; readonly qkey: number; readonly flow: number } | undefined
}

/** Writes a send request. */
export const putSend = (send: SendWords, into: Uint32Array, at: number): void => {
  into.fill(0, at, at + Send.SGE)
  into[at + Send.OPCODE] = send.opcode
  into[at + Send.FLAGS] = send.flags
  into[at + Send.ID_LO] = send.id
  into[at + Send.ID_HI] = send.idHigh
  into[at + Send.SGES] = send.elements.length
  const length = putElements(send.elements, into, at + Send.SGE)
  into[at + Send.LENGTH] = send.inline?.length ?? length
  into[at + Send.IMM] = send.imm
  into[at + Send.RKEY] = send.rkey
  into[at + Send.REMOTE_LO] = send.remote[0]
  into[at + Send.REMOTE_HI] = send.remote[1]
  const [compare, swap] = [halvesOf(send.compare), halvesOf(send.swap)]
  into[at + Send.COMPARE_LO] = compare[0]
  into[at + Send.COMPARE_HI] = compare[1]
  into[at + Send.SWAP_LO] = swap[0]
  into[at + Send.SWAP_HI] = swap[1]
  into[at + Send.INLINE_AT] = send.inlineAt
  into[at + Send.REFUSED] = send.refused
  if (send.to === undefined) return
  into[at + Send.DEST_QPN] = send.to.qpn
  into[at + Send.QKEY] = send.to.qkey
  into[at + Send.FLOW] = send.to.flow
}

/** Copies `total` inline bytes from `from` on, in chunks as in `WorkSource.copyInline`. */
export const copyInlineData = (
  data: Uint8Array | undefined,
  from: number,
  to: Arena,
  at: number,
  chunk: number,
  stride: number,
  total: number,
): void => {
  if (data === undefined) throw new Error('inline data of a request that was retired')
  for (let done = 0, offset = at; done < total; done += chunk, offset += stride)
    to.bytes.set(data.subarray(from + done, from + done + Math.min(chunk, total - done)), offset)
}

export const completionOf = (words: Uint32Array) => ({
  id: words[Completion.ID_LO],
  status: words[Completion.STATUS],
  opcode: words[Completion.OPCODE],
  bytes: words[Completion.BYTES],
  imm: words[Completion.IMM],
  flags: words[Completion.FLAGS],
  qpn: words[Completion.QPN],
})

/** Copies of the packets of a run. */
export const packetsOf = (
  arena: Arena,
  offset: number,
  packetBytes: number,
  count: number,
  lastBytes: number,
): readonly Uint8Array[] =>
  Array.from({ length: count }, (_, i) => {
    const at = offset + i * packetBytes
    return arena.bytes.slice(at, at + (i === count - 1 ? lastBytes : packetBytes))
  })

/** The options of an engine that are present. */
export const engineOptions = (
  options: {
    readonly [K in 'windowBytes' | 'sharedWindowBytes' | 'boundReads' | 'pacingInterval']?: EngineOptions[K] | undefined
  },
) => {
  const { windowBytes, sharedWindowBytes, boundReads, pacingInterval } = options
  return {
    ...(windowBytes !== undefined && { windowBytes }),
    ...(sharedWindowBytes !== undefined && { sharedWindowBytes }),
    ...(boundReads !== undefined && { boundReads }),
    ...(pacingInterval !== undefined && { pacingInterval }),
  }
}
