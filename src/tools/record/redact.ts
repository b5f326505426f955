/*
 * Removes from events what a session should not tell to others: paths, arguments of calls, payload, and addresses. Each
 * path and address has one pseudonym in a session, so that events still show what belongs together. Names of programs,
 * devices and functions, and numbers of processes and objects stay.
 */
import type { Moment, Stack } from '../../spec/check/finding.ts'
import { NATIVE_FRAME, V8_FRAME } from '../../spec/check/frames.ts'
import { reasonFrom } from '../../spec/reason.ts'
import type { FailureRecord } from '../../spec/records.ts'
import type { PacketsEvent, RecordedFinding, SessionEvent, SymbolFrame } from '../../spec/session-events.ts'
import type { PacketFlow } from '../../spec/wire/flow.ts'
import { headerAt } from '../../spec/wire/opcodes.ts'
import { addressText, lidOf } from '../../transport/wire/address.ts'
import { viewOf } from './decode.ts'

const PAGE = 4096
/** Numbers from here on are addresses rather than counts. */
const LEAST_ADDRESS = 2 ** 20
const TWO_32 = 2 ** 32
/** 10.0.0.0 as an IPv4-mapped address. */
const PSEUDONYM_ADDRESS = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10]

const PATH = /(?:file:\/\/)?(?:\/[^\s():+'"]+)+/g
/** IPv4 and IPv6 as `addressText` of transport/wire/address.ts writes them. */
const HOST = /\b\d{1,3}(?:\.\d{1,3}){3}\b|\b(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}\b/gi
const HEX = /0x[0-9a-f]{6,}/gi

/** Extension headers with a virtual address in their first eight bytes (IBA 9.3.1). */
const addressHeaders = [headerAt.RETH, headerAt.AtomicETH] as const

/** The last part of a path, behind a slash. */
const baseName = (path: string): string => `/${path.slice(path.lastIndexOf('/') + 1)}`

/** Returns a function that redacts the events of one session, in any order. */
export const createRedactor = (): ((event: SessionEvent) => SessionEvent) => {
  const pages = new Map<number, number>()
  const paths = new Map<string, string>()
  const hosts = new Map<string, number>()

  /** The same page has the same pseudonym, and offsets in pages stay. */
  const address = (value: number): number => {
    if (value < LEAST_ADDRESS) return value
    const page = Math.floor(value / PAGE)
    let pseudonym = pages.get(page)
    if (pseudonym === undefined) {
      pseudonym = LEAST_ADDRESS / PAGE + pages.size
      pages.set(page, pseudonym)
    }
    return pseudonym * PAGE + (value % PAGE)
  }
  const cookie = (value: bigint): bigint => {
    const number = Number(value)
    return number < LEAST_ADDRESS ? value : BigInt(address(number))
  }
  const path = (value: string): string => {
    const known = paths.get(value)
    if (known !== undefined) return known
    const pseudonym = `/file${paths.size + 1}`
    paths.set(value, pseudonym)
    return pseudonym
  }
  const hostNumber = (key: string): number => {
    const number = hosts.get(key) ?? hosts.size + 1
    hosts.set(key, number)
    return number
  }
  // LIDs stay: a subnet counts them anew, and they say nothing of a site.
  const hostText = (value: string): string => {
    if (value.startsWith('LID ')) return value
    const number = hostNumber(value)
    return `10.${(number >>> 16) & 255}.${(number >>> 8) & 255}.${number & 255}`
  }
  const host = (value: Uint8Array): Uint8Array => {
    if (lidOf(value) >= 0) return value
    const number = hostNumber(addressText(value))
    return Uint8Array.from([...PSEUDONYM_ADDRESS, (number >>> 16) & 255, (number >>> 8) & 255, number & 255])
  }
  const text = (value: string): string =>
    value
      .replace(PATH, path)
      .replace(HOST, hostText)
      .replace(HEX, found => {
        const number = Number.parseInt(found, 16)
        return number < TWO_32 ? found : `0x${address(number).toString(16)}`
      })
  /** Of a frame, the end of a path is known, whatever characters it has. */
  const frame = (value: string): string => {
    const [, object, offset] = NATIVE_FRAME.exec(value) ?? []
    if (object?.includes('/')) return `${path(object)}+${offset}${text(value.slice(`${object}+${offset}`.length))}`
    const [, , scheme = '', file] = V8_FRAME.exec(value) ?? []
    if (!file?.includes('/') || file.startsWith('node:')) return text(value)
    const at = value.lastIndexOf(`${scheme}${file}`)
    return `${text(value.slice(0, at))}${path(file)}${value.slice(at + scheme.length + file.length)}`
  }
  const stack = (frames: Stack): Stack => frames.map(frame)
  const moment = (one: Moment): Moment => ({ ...one, stack: stack(one.stack) })
  const flow = (one: PacketFlow): PacketFlow => ({
    ...one,
    source: host(one.source),
    destination: host(one.destination),
    ...(one.grh && { grh: { source: host(one.grh.source), destination: host(one.grh.destination) } }),
  })

  /** Functions, names of files, programs and libraries, and lines stay; folders and source do not. */
  const symbolFrame = ({ function: name, file, line, object }: SymbolFrame): SymbolFrame => ({
    function: frame(name),
    ...(file !== undefined && { file: baseName(file).slice(1), line }),
    ...(object !== undefined && { object: baseName(object) }),
  })

  const finding = (one: RecordedFinding): RecordedFinding => ({
    ...one,
    text: text(one.text),
    details: one.details.map(text),
    moments: one.moments.map(moment),
    objects: one.objects.map(({ name, history, ...rest }) => ({
      ...rest,
      name: text(name),
      history: history.map(moment),
    })),
    ...(one.story && {
      story: one.story.map(line => ({ ...line, text: text(line.text), stack: stack(line.stack) })),
    }),
  })

  const failure = (one: FailureRecord): FailureRecord => {
    const { peer, ...rest } = one.failure
    return {
      ...one,
      failure: {
        ...rest,
        args: {},
        text: text(rest.text),
        ...(peer && { peer: { ...peer, address: hostText(peer.address) } }),
      },
    }
  }

  const packets = (event: PacketsEvent): Uint8Array => {
    const bytes = event.bytes.slice(0, event.headerBytes)
    const view = viewOf(bytes)
    for (const offsets of addressHeaders) {
      const at = offsets[bytes[0] ?? 0] ?? 0
      if (at === 0 || at + 8 > bytes.length) continue
      const pseudonym = address(view.getUint32(at) * TWO_32 + view.getUint32(at + 4))
      view.setUint32(at, Math.floor(pseudonym / TWO_32))
      view.setUint32(at + 4, pseudonym % TWO_32)
    }
    return bytes
  }

  return event => {
    switch (event.kind) {
      case 'device':
        return { ...event, address: event.address === '' ? '' : hostText(event.address) }
      case 'object': {
        const { state, destQpn } = event.details.values ?? {}
        const values = { ...(state !== undefined && { state }), ...(destQpn !== undefined && { destQpn }) }
        return { ...event, stack: stack(event.stack), details: { ...event.details, values } }
      }
      case 'call': {
        const { call, raw: _raw, reason, ...rest } = event.call
        const ids = call && { classId: call.classId, call: call.call, message: '', answer: '' }
        const redacted = {
          ...rest,
          ...(ids && { call: ids }),
          ...(reason !== undefined && { reason: reasonFrom(reason)?.withTexts(text).toJSON() ?? '' }),
        }
        return { ...event, stack: stack(event.stack), call: redacted }
      }
      case 'posted': {
        const { elements, remote, destination, wrId, ...rest } = event.request
        const request = {
          ...rest,
          wrId: cookie(wrId),
          elements: elements.map(element => ({ ...element, address: address(element.address) })),
          remote: remote && { ...remote, address: address(remote.address) },
          destination: destination && { ...destination, gid: host(destination.gid) },
        }
        return { ...event, request, stack: stack(event.stack) }
      }
      case 'packets':
        return { ...event, flow: flow(event.flow), bytes: packets(event) }
      case 'failure':
        return { ...event, failure: failure(event.failure) }
      case 'finding':
        return { ...event, finding: finding(event.finding) }
      case 'torment': {
        const { torment } = event.torment
        const decision = { ...torment, id: text(torment.id), text: text(torment.text) }
        const { held } = torment
        return {
          ...event,
          torment: {
            ...event.torment,
            torment: held === undefined ? decision : { ...decision, held: { ...held, passed: held.passed.map(text) } },
          },
        }
      }
      case 'wait':
        return { ...event, facts: { ...event.facts, text: text(event.facts.text) } }
      case 'link':
        return { ...event, from: text(event.from), to: text(event.to) }
      case 'symbol':
        return { ...event, frame: frame(event.frame), frames: event.frames.map(symbolFrame) }
      case 'end':
        return { ...event, reason: text(event.reason) }
      default:
        return event
    }
  }
}
