/*
 * Writes a session file of connections that exchange 64-byte messages, as a recording of ibv_rc_pingpong: per message the
 * posts of both sides, the packet and its ACK, completions and polls. Of a hundred packets one is lost and sent again.
 */
import { closeSync, openSync, writeSync } from 'node:fs'
import type { RequestCompletion, WorkRequest } from '../../src/spec/check/requests.ts'
import { QpState } from '../../src/spec/enums.ts'
import { packetOutcomes } from '../../src/spec/faults.ts'
import type { ObjectEvent } from '../../src/spec/session-events.ts'
import { opcodeNumber } from '../../src/spec/wire/opcodes.ts'
import { WcOpcode, WrOpcode } from '../../src/spec/work.ts'
import { SessionWriter } from '../../src/tools/record/writer.ts'
import { BTH_MIGREQ, putBth } from '../../src/transport/wire/bth.ts'

const SIZE = 64
const SEND_BYTES = 12 + SIZE + 4
const ACK_BYTES = 12 + 4 + 4
const LOST_EVERY = 100
/** The syndrome of an ACK without credits. */
const ACK_SYNDROME = 0x1f
/** Microseconds between two events of a message, and until a lost packet is sent again. */
const STEP = 0.4
const TIMEOUT = 500

interface End {
  readonly qp: number
  readonly cq: number
  readonly qpn: number
  polled: number
}

interface Pair {
  readonly ends: readonly [End, End]
  readonly psn: [number, number]
}

const FLOW = {
  source: Uint8Array.from({ length: 16 }, (_, i) => i),
  destination: Uint8Array.from({ length: 16 }, (_, i) => 16 - i),
  sourcePort: 0xc000,
  trafficClass: 0,
  hopLimit: 64,
  flowLabel: 0,
}
const PASSED = packetOutcomes.indexOf('passed')
const DROPPED = packetOutcomes.indexOf('dropped')

/** Writes a file of at least `bytes` bytes. */
export const writeRecordedPairs = async (path: string, bytes: number, connections: number): Promise<void> => {
  const fd = openSync(path, 'w')
  let written = 0
  const writer = new SessionWriter(
    {
      write(position, block, done) {
        writeSync(fd, block, 0, block.length, position)
        written = Math.max(written, position + block.length)
        done()
      },
    },
    { application: 'bench', machine: 'none', origin: 0, payload: 0 },
  )
  let time = 0
  let request = 0
  const packet = new Uint8Array(SIZE * 2)
  const view = new DataView(packet.buffer)

  const object = (id: number, name: string, number: number, change: 'created' | 'changed', values = {}): void => {
    const facts: Omit<ObjectEvent, 'kind'> = {
      change,
      object: id,
      device: 0,
      context: 1,
      program: { pid: 1, command: 'ibv_rc_pingpong' },
      class: name,
      handle: id,
      number,
      method: change === 'created' ? 'create' : 'modify',
      why: 'call',
      stack: [],
      details: { uses: [], values },
    }
    writer.object(time, facts)
  }

  writer.device(time, { change: 'exists', device: 0, name: 'userdma0', address: '' })
  const pairs = Array.from({ length: connections }, (_, i): Pair => {
    const ends = [0, 1].map((side): End => {
      const id = 100 + 4 * i + 2 * side
      return { cq: id, qp: id + 1, qpn: 0x11 + 2 * i + side, polled: 0 }
    }) as unknown as [End, End]
    for (const [side, { cq, qp, qpn }] of ends.entries()) {
      object(cq, 'cq', 0, 'created')
      object(qp, 'rc_qp', qpn, 'created')
      object(qp, 'rc_qp', qpn, 'changed', { state: QpState.values.RTR, destQpn: ends[1 - side].qpn, rqPsn: 0 })
      object(qp, 'rc_qp', qpn, 'changed', { state: QpState.values.RTS, sqPsn: 0 })
    }
    return { ends, psn: [0, 0] }
  })

  const post = (end: End, opcode: number): WorkRequest => {
    const posted: WorkRequest = {
      id: ++request,
      time,
      owner: end.qp,
      queue: opcode < 0 ? 2 : 1,
      number: end.qpn,
      index: request,
      wrId: BigInt(opcode < 0 ? 1 : 2),
      opcode,
      flags: opcode < 0 ? 0 : 2,
      isSignaled: true,
      length: SIZE,
      elements: [{ address: 0x7f00_0000_1000, length: SIZE, lkey: 0x1234 }],
      remote: undefined,
      destQpn: undefined,
      destination: undefined,
    }
    writer.posted(time, posted, 'ibv_post_send\nmain\n__libc_start_main')
    time += STEP
    return posted
  }

  const carry = (
    opcode: 'RC_SEND_ONLY' | 'RC_ACKNOWLEDGE',
    destQpn: number,
    psn: number,
    outcome: number,
    direction = 0,
  ): void => {
    putBth(view, 0, opcodeNumber[opcode], BTH_MIGREQ, 0xffff, destQpn, psn)
    view.setUint32(12, ((ACK_SYNDROME << 24) | psn) >>> 0)
    const length = opcode === 'RC_SEND_ONLY' ? SEND_BYTES : ACK_BYTES
    writer.packets(
      time,
      { device: 0, direction, outcome, flow: FLOW, identification: 0 },
      packet,
      view,
      0,
      length,
      1,
      length,
    )
    time += STEP
  }

  const complete = (end: End, posted: WorkRequest, opcode: number, message: WorkRequest | undefined): void => {
    const completion: RequestCompletion = {
      qp: end.qp,
      cq: end.cq,
      cqPosition: ++end.polled,
      status: 0,
      opcode,
      bytes: SIZE,
      message,
      solicited: false,
    }
    writer.completed(time, posted, completion)
    time += STEP
    writer.polled(time, end.cq, end.polled)
    time += STEP
  }

  for (let i = 0; written < bytes; i++) {
    const { ends, psn } = pairs[i % connections]
    const side = Math.floor(i / connections) & 1
    const [from, to] = [ends[side], ends[1 - side]]
    const receive = post(to, -1)
    const send = post(from, WrOpcode.values.SEND)
    writer.counters(time, 0, from.qp, { window: 0x10000 + (i & 15) })
    carry('RC_SEND_ONLY', to.qpn, psn[side], PASSED)
    if (i % LOST_EVERY === LOST_EVERY - 1) {
      carry('RC_SEND_ONLY', to.qpn, psn[side], DROPPED, 1)
      time += TIMEOUT
      carry('RC_SEND_ONLY', to.qpn, psn[side], PASSED)
    }
    complete(to, receive, WcOpcode.values.RECV, send)
    carry('RC_ACKNOWLEDGE', from.qpn, psn[side], PASSED)
    writer.ended(time, send)
    complete(from, send, WcOpcode.values.SEND, undefined)
    psn[side] = (psn[side] + 1) & 0xff_ffff
  }
  await writer.end(time, 'done')
  closeSync(fd)
}
