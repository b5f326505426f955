/*
 * Compares the data, completions and final state of a replay with the recording. Faults are sentences.
 */
import {
  OP_ATOMIC,
  OP_ATOMIC_WRITE,
  OP_IMM,
  OP_INV,
  OP_READ,
  OP_SEND,
  OP_WRITE,
} from '../../../../src/spec/wire/opcodes.ts'
import { reliableService } from '../../../../src/spec/wire/services.ts'
import { WcFlags, WcOpcode, WcStatus } from '../../../../src/spec/work.ts'
import { type Conversation, headersOf, type Side } from './conversation.ts'
import type { Facts } from './facts.ts'
import { type LoggedCompletion, readLog } from './log.ts'
import { remoteOf, responseIndex } from './memory.ts'
import { type Message, takesReceive } from './messages.ts'
import { grhBytes, type PlayedQp, type PlayResult } from './play.ts'

type Cqe = PlayResult['node']['cqes'][number]

const { SUCCESS } = WcStatus.values
const { RECV, RECV_RDMA_WITH_IMM, BIND_MW } = WcOpcode.values
const { WITH_IMM } = WcFlags.values
/** The receive CQ of queue pairs of node.ts. */
const RECV_CQ = 2

/** Whether the recording has the packet that completes the message. */
const isComplete = ({ completeAt }: Message): boolean => completeAt !== Number.POSITIVE_INFINITY

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

export const outcomeFaults = (conversation: Conversation, side: Side, facts: Facts, played: PlayResult): string[] => {
  const { node, ends } = played
  const faults = ends.flatMap(end => {
    const cqes = node.cqes.filter(c => c.qpn === end.qpn)
    return [...receiveFaults(end, cqes, node.memory), ...sendFaults(conversation, end, cqes, node.memory)]
  })
  const { dropped, outOfSequence } = node.engine.counters
  const isReliable = ends.some(end => reliableService[(end.asRequester ?? end.asResponder)!.service] !== 0)
  if (!isReliable && dropped + outOfSequence > 0) faults.push(`${dropped + outOfSequence} packets were not accepted`)
  faults.push(...played.unexpected, ...writeFaults(played, facts))
  if (facts.hasLog === true && facts.destroyed?.side !== side) {
    const log = readLog(conversation.name, side)
    faults.push(...logFaults(log.completions, node.cqes))
    const states = ends.map(end => node.engine.query(end.row).state)
    if (log.state !== undefined && states.some(state => state !== log.state))
      faults.push(`the state is ${states.join()}, the program says ${log.state}`)
  }
  return faults
}

/** Compares a queue pair's receive completions, and the data in its buffers, with the peer's messages. */
const receiveFaults = (end: PlayedQp, cqes: readonly Cqe[], memory: Uint8Array): string[] => {
  const received = cqes.filter(c => c.cq === RECV_CQ && c.status === SUCCESS)
  const grh = grhBytes((end.asResponder ?? end.asRequester)!)
  const isReliable = reliableService[(end.asResponder ?? end.asRequester)!.service] !== 0
  const messages = end.incoming.filter(m => takesReceive(m) && (isReliable || m.isLossless))
  const expected = messages.filter(isComplete).length
  if (received.length < expected && !cqes.some(c => c.cq === RECV_CQ && c.status !== SUCCESS))
    return [`${received.length} messages were received, not ${expected}`]
  return received.flatMap((cqe, k) => {
    const message = messages[k]
    if (message === undefined) return [`receive ${k} completed without a message`]
    const isSend = (message.flags & OP_SEND) !== 0
    const faults: string[] = []
    if (cqe.id !== k) faults.push(`receive ${k}: id ${cqe.id}`)
    const length = message.length + grh
    if (cqe.bytes !== length) faults.push(`receive ${k}: ${cqe.bytes} bytes, not ${length}`)
    if (cqe.opcode !== (isSend ? RECV : RECV_RDMA_WITH_IMM)) faults.push(`receive ${k}: opcode ${cqe.opcode}`)
    if ((message.endFlags & (OP_IMM | OP_INV)) !== 0 && cqe.imm !== message.imm)
      faults.push(`receive ${k}: immediate ${cqe.imm}, not ${message.imm}`)
    if (cqe.solicited !== message.solicited) faults.push(`receive ${k}: solicited ${cqe.solicited}`)
    const { at } = end.receives[k]
    if (isSend && hex(memory.subarray(at + grh, at + length)) !== hex(message.payload))
      faults.push(`receive ${k}: its data differs from the message`)
    return faults
  })
}

/** The recorded result of a READ or atomic. If a response was repeated, the last copy counts. */
const responseData = ({ entries }: Conversation, end: PlayedQp, message: Message, mtu: number): Uint8Array => {
  const bytes = new Uint8Array(message.length)
  for (const entry of entries) {
    if (entry.isLost || end.asRequester === undefined) continue
    const index = responseIndex(entry, end.asRequester, message)
    if (index < 0) continue
    const { AtomicAckETH } = headersOf(entry.packet)
    if (AtomicAckETH === undefined) bytes.set(entry.packet.payload, index * mtu)
    else new DataView(bytes.buffer).setBigUint64(0, BigInt(AtomicAckETH.origRemDt), true)
  }
  return bytes
}

/** Compares a queue pair's send completions, and the data of READs and atomics, with the recorded responses. */
const sendFaults = (conversation: Conversation, end: PlayedQp, cqes: readonly Cqe[], memory: Uint8Array): string[] =>
  end.posted.flatMap(({ message, dataAt, signaled }, k) => {
    const completions = cqes.filter(c => c.cq !== RECV_CQ && c.id === k)
    const isMessageComplete = isComplete(message)
    if (isMessageComplete && signaled && completions.length !== 1)
      return [`request ${k}: ${completions.length} completions`]
    if (!isMessageComplete && completions.some(c => c.status === SUCCESS))
      return [`request ${k}: complete without an acknowledgement`]
    const hasData = (message.flags & (OP_READ | OP_ATOMIC)) !== 0
    if (!isMessageComplete || completions[0]?.status !== SUCCESS || !hasData) return []
    const expected = responseData(conversation, end, message, end.asRequester!.mtu)
    if (hex(memory.subarray(dataAt, dataAt + message.length)) === hex(expected)) return []
    return [`request ${k}: its data differs from the responses`]
  })

/** Compares completions with the program's output (log.ts). Binds are left out, because `play` does not post them. */
const logFaults = (logged: readonly LoggedCompletion[], cqes: readonly Cqe[]): string[] => {
  const expected = logged.filter(c => c.opcode !== BIND_MW)
  if (expected.length !== cqes.length) return [`${cqes.length} completions, the program had ${expected.length}`]
  return expected.flatMap((c, i) => {
    const ours = cqes[i]
    if (c.status !== ours.status) return [`completion ${i}: status ${ours.status}, the program had ${c.status}`]
    if (c.status !== SUCCESS) return []
    const faults: string[] = []
    if (c.opcode !== ours.opcode) faults.push(`completion ${i}: opcode ${ours.opcode}, the program had ${c.opcode}`)
    const isReceive = c.opcode >= RECV
    if (isReceive && c.bytes !== ours.bytes)
      faults.push(`completion ${i}: ${ours.bytes} bytes, the program had ${c.bytes}`)
    if (isReceive && (c.flags & WITH_IMM) !== 0 && c.imm !== ours.imm)
      faults.push(`completion ${i}: immediate ${ours.imm}, the program had ${c.imm}`)
    return faults
  })
}

/** Checks that the peer's WRITEs are in memory; no check if atomics or the program also changed memory. */
const writeFaults = ({ node, memory, ends }: PlayResult, facts: Facts): string[] => {
  const { space, content } = memory
  const image = content.slice()
  const written = ends
    .flatMap(end => end.incoming)
    .filter(m => (m.flags & (OP_WRITE | OP_ATOMIC_WRITE)) !== 0 && m.length > 0)
  const faults: string[] = []
  if (facts.programWrites === true || ends.some(end => end.incoming.some(m => (m.flags & OP_ATOMIC) !== 0))) return []
  for (const message of written)
    if (isComplete(message)) image.set(message.payload, space.locate(remoteOf(message)!.address))
  for (const [k, message] of written.entries()) {
    const at = space.locate(remoteOf(message)!.address)
    const end = at + message.length
    if (isComplete(message) && hex(image.subarray(at, end)) !== hex(node.memory.subarray(at, end)))
      faults.push(`WRITE ${k}: its data is not in memory`)
  }
  return faults
}
