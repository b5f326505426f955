/*
 * Directed routes (IBA 14.2.2): a datagram of subnet management has the output port of each hop, so it passes switches
 * that have no tables and ports that have no LIDs. On its way each switch writes down the input port, and the answer
 * returns by them.
 */
import { MAX_HOPS, PERMISSIVE_LID } from '../../spec/wire/subnet.ts'

/** Where fields are in the datagram. */
const [DIRECTION_AT, POINTER_AT, COUNT_AT, SLID_AT, DLID_AT, INITIAL_AT, RETURN_AT] = [4, 6, 7, 32, 34, 128, 192]
const RETURNING = 0x80

/**
 * What a node does with a datagram: takes it, passes it on by a port, or by a LID and its table; undefined: drops it.
 */
type DirectedStep = 'local' | { readonly port: number } | { readonly lid: number } | undefined

const isReturning = (mad: Uint8Array): boolean => (mad[DIRECTION_AT]! & RETURNING) !== 0

/** Turns a request, of which the node has made the response, around. */
export const turnAround = (mad: Uint8Array): void => {
  mad[DIRECTION_AT]! |= RETURNING
}

/**
 * One step at a node, which changes pointer and return path of `mad`. `inPort`: the port that it came in by; undefined:
 * the node itself sends it.
 */
export const directedStep = (mad: Uint8Array, inPort: number | undefined, isSwitch: boolean): DirectedStep => {
  const [count, pointer] = [mad[COUNT_AT]!, mad[POINTER_AT]!]
  if (count > MAX_HOPS || pointer > count + 1) return undefined
  const lidAt = (at: number): number => (mad[at]! << 8) | mad[at + 1]!
  const byPort = (port: number): DirectedStep => (port === 0 ? undefined : { port })
  /** Behind the directed part, a datagram may go on by LID. */
  const byLid = (lid: number): DirectedStep => {
    if (lid === PERMISSIVE_LID) return 'local'
    return isSwitch || inPort === undefined ? { lid } : undefined
  }
  if (isReturning(mad)) {
    if (count === 0) return 'local'
    if (pointer === count + 1) {
      mad[POINTER_AT] = count
      return byPort(mad[RETURN_AT + count]!)
    }
    if (pointer > 1) {
      if (!isSwitch) return undefined
      mad[POINTER_AT] = pointer - 1
      return byPort(mad[RETURN_AT + pointer - 1]!)
    }
    mad[POINTER_AT] = 0
    return pointer === 1 ? byLid(lidAt(SLID_AT)) : 'local'
  }
  if (pointer === count + 1 || count === 0) return 'local'
  if (pointer === 0) {
    mad[POINTER_AT] = 1
    return byPort(mad[INITIAL_AT + 1]!)
  }
  if (inPort === undefined) return undefined
  mad[RETURN_AT + pointer] = inPort
  mad[POINTER_AT] = pointer + 1
  if (pointer === count) return byLid(lidAt(DLID_AT))
  return isSwitch ? byPort(mad[INITIAL_AT + pointer + 1]!) : undefined
}
