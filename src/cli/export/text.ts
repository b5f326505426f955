/*
 * Events of a session as lines of text, and as JSON.
 */

import { hexBytes } from '../../base/text.ts'
import type { Stack } from '../../spec/check/finding.ts'
import { frameText } from '../../spec/check/frames.ts'
import { nameIn } from '../../spec/enums.ts'
import type { PacketsEvent, SessionEvent, SymbolEvent } from '../../spec/session-events.ts'
import { WcStatus, WrOpcode } from '../../spec/work.ts'
import { lendEvent } from '../../tools/record/lends.ts'
import { callersLine, type SessionSymbols } from '../../tools/record/symbols.ts'
import { programEndText } from '../../tools/record/waits.ts'
import { callJson, callLine, failureLine, tormentLine } from '../../tools/trace/calls.ts'
import { packetText } from '../../tools/trace/packets.ts'
import { accessLine, lendLine } from './lent.ts'
import { paddedPacket } from './packets.ts'

const hex = (value: number): string => `0x${value.toString(16)}`

const packetsText = (event: PacketsEvent): string => {
  const { bytes, packetBytes, lastBytes, count, direction, outcome, device } = event
  const text = packetText(paddedPacket(bytes, count === 1 ? lastBytes : packetBytes))
  const more = count === 1 ? '' : `, and ${count - 1} more with ascending PSNs`
  return `device ${device} ${direction} ${outcome === 'passed' ? '' : `(${outcome}) `}${text}${more}`
}

const CHECKERS = 'what the checker knew'

/** ` from main (a.c:9)`; empty: no stack. */
const fromText = (stack: Stack, symbols: SessionSymbols): string => {
  const callers = callersLine(symbols, stack)
  return callers && ` from ${callers}`
}

const symbolText = ({ frame, frames }: SymbolEvent): string => {
  const source = frames.flatMap(({ line, source }) =>
    line === undefined || source === undefined ? [] : [`: ${(source.lines[line - source.first] ?? '').trim()}`],
  )
  return `${frame} is ${frames.map(frameText).join(', inlined in ')}${source[0] ?? ''}`
}

/** The event without its time. Texts of programs may have any characters. */
const eventText = (event: SessionEvent, symbols: SessionSymbols): string => {
  switch (event.kind) {
    case 'device':
      return `device ${event.device} ${event.change}: ${event.name} ${event.address}`
    case 'object': {
      const { object, change, class: name, handle, number, method, why, program, details } = event
      const owner = program === undefined ? '' : ` of process ${program.pid} (${program.command})`
      const values = Object.keys(details.values ?? {}).length === 0 ? '' : ` ${JSON.stringify(details.values)}`
      const reason = why === '' || why === 'call' ? '' : ` by ${why}`
      return `object ${object} ${change}${reason}: ${name} ${number === 0 ? handle : hex(number)}${owner}${method && ` ${method}`}${values}${fromText(event.stack, symbols)}`
    }
    case 'call':
      return `${callLine(event.call)}${fromText(event.stack, symbols)}`
    case 'posted': {
      const { id, owner, opcode, wrId, length } = event.request
      const name = opcode < 0 ? 'receive' : nameIn(WrOpcode.values, opcode)
      return `request ${id} posted to object ${owner}: ${name} wr_id ${wrId} ${length} B${fromText(event.stack, symbols)}`
    }
    case 'ended':
      return `request ${event.request} ended`
    case 'completed': {
      const { request, status, bytes, cq, message } = event
      const received = message === 0 ? '' : `, the message of request ${message}`
      return `request ${request} completed: ${nameIn(WcStatus.values, status)} ${bytes} B in CQ ${cq}${received}`
    }
    case 'receiveLost':
      return `request ${event.request} will not complete`
    case 'receiverNotReady':
      return `object ${event.qp} has no receive for a message`
    case 'polled':
      return `CQ ${event.cq}: ${event.count} completions polled`
    case 'queueReset':
      return `object ${event.owner} was reset`
    case 'packets':
      return packetsText(event)
    case 'failure':
      return failureLine(event.failure)
    case 'finding':
      return `finding ${event.finding.id} (${event.finding.severity}): ${event.finding.text}${fromText(event.finding.moments[0]?.stack ?? [], symbols)}`
    case 'torment':
      return tormentLine(event.torment)
    case 'counters':
      return `counters of ${event.object === 0 ? `device ${event.device}` : `object ${event.object}`}: ${Object.entries(
        event.values,
      )
        .map(([name, value]) => `${name} ${value}`)
        .join(', ')}`
    case 'lost':
      return `${event.count} events were lost here`
    case 'checkpoint':
      return 'checkpoint'
    case 'wait': {
      const { command, pid, device, text } = event.facts
      const state = { exists: 'waits', began: 'waits', over: 'no longer waits', closed: 'waited until it ended' }
      return `${command} (${pid}) ${state[event.change]}, ${device}: ${text}`
    }
    case 'link': {
      const { from, to, packets, bytes, marked, overflowed, lost, tooLong, maxQueue, classes = [] } = event
      const ofClasses = classes
        .filter(one => one.packets + one.lost + one.pausesSent + one.pausesReceived > 0)
        .map(
          one =>
            `; class ${one.name}: ${one.packets} packets, ${one.marked} marked, ${one.lost} lost${one.lossless ? `, paused ${one.pausesReceived} times for ${one.pausedTime.toFixed(3)} ms` : ''}`,
        )
      return `link ${from} to ${to}: ${packets} packets, ${bytes} bytes, ${marked} marked, ${overflowed + lost + tooLong} lost, up to ${Math.round(maxQueue)} bytes in its queue${ofClasses.join('')}`
    }
    case 'programEnd':
      return `${event.command} (${event.pid}) ${programEndText(event)}`
    case 'symbol':
      return symbolText(event)
    case 'program': {
      const line = lendLine(event)
      return line === undefined ? CHECKERS : `${line.text}${fromText(line.stack, symbols)}`
    }
    case 'accessed':
      return accessLine(event)
    case 'answer':
      return CHECKERS
    case 'end':
      return `end: ${event.reason}`
  }
}

/** Seconds of the recorder's clock, and the event. The caller makes it printable. */
export const eventLine = (event: SessionEvent, symbols: SessionSymbols): string =>
  `${(event.time / 1e6).toFixed(6)} ${eventText(event, symbols)}`

/** What a program says of its memory, without the checker's other fields. */
const plainLend = (event: SessionEvent): object => {
  const said = event.kind === 'program' ? lendEvent(event) : undefined
  return said === undefined ? event : { kind: 'lend', time: event.time, ...said }
}

/** An event for `JSON.stringify`: bytes are hexadecimal, 64-bit numbers decimal text, and calls are decoded. */
export const eventJson = (event: SessionEvent): Record<string, unknown> => {
  const plain = event.kind === 'call' ? { ...event, call: callJson(event.call) } : plainLend(event)
  return JSON.parse(
    JSON.stringify(plain, (_key, value) => {
      if (typeof value === 'bigint') return String(value)
      return value instanceof Uint8Array ? hexBytes(value) : value
    }),
  )
}
