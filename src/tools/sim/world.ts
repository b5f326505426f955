/*
 * A network in virtual time: one engine (src/transport/engine/) per host, connected by links
 * (src/transport/phy/links/). The engines are those of real devices. Payloads are not carried: memory accepts every
 * access and copies nothing, and links keep only headers, so that thousands of queue pairs fit. Nothing is allocated
 * per packet.
 *
 * A flow is a queue pair at each end, and WRITEs of one size, of which `depth` are outstanding. Each event is the
 * arrival of packets at a host, or a host's time: a timer of its engine, or room in front of its link. The host then
 * receives everything that has arrived, and its engine sends what it may.
 */

import type { EngineCounter } from '../../spec/counters.ts'
import { QpState } from '../../spec/enums.ts'
import { Service } from '../../spec/wire/services.ts'
import { SendFlags, WcStatus, WrOpcode } from '../../spec/work.ts'
import { bytesPerMicrosecond, dcqcnParameters } from '../../transport/engine/congestion/dcqcn.ts'
import { createEngine, type Engine } from '../../transport/engine/engine.ts'
import { PollResult } from '../../transport/engine/scheduling.ts'
import { createTimers, isTimerSet, nextDeadline, setTimer, takeExpired } from '../../transport/engine/timers.ts'
import { Access, Completion, type Environment, Send, Sge, type TransmitSink } from '../../transport/engine/types.ts'
import type { LinkTopology } from '../../transport/phy/links/graph.ts'
import { createLinks, FRAME_BYTES, type Links } from '../../transport/phy/links/links.ts'
import { plainArena } from '../../transport/wire/arena.ts'
import { bthDestQp } from '../../transport/wire/bth.ts'
import { ECN_CAPABLE, ECN_CE } from '../../transport/wire/flow.ts'
import { Distribution } from './statistics.ts'

/** How senders react to congestion. */
export const controls = {
  dcqcn: 'DCQCN: marks slow the sender',
  'go-back-n': 'no marks; a loss halves the window, as our devices do without dcqcn',
  none: 'no marks; a loss is repaired by go-back-N, and changes nothing',
} as const
export type Control = keyof typeof controls

export interface FlowSpec {
  readonly from: number
  readonly to: number
  /** Bytes of a message, a multiple of 4. */
  readonly bytes: number
  /** Number of messages; Infinity: until the end. */
  readonly messages: number
  /** Messages outstanding at once. */
  readonly depth: number
  /** When the first message is posted, µs. */
  readonly start: number
}

export interface WorldOptions {
  readonly topology: LinkTopology
  readonly flows: readonly FlowSpec[]
  readonly control: Control
  readonly seed: number
  /** Bytes of path MTU. */
  readonly mtu: number
  /** Window of a queue pair, bytes: payload plus 64 per packet. */
  readonly window: number
  /** Local ACK timeout code. */
  readonly timeout: number
  /**
   * Minimum time between two looks of a host at its packets and queue pairs, µs; 0: it acts at once. A large network
   * runs several times faster with 1 or 2, because an engine that is not in the processor's cache is slow to begin.
   */
  readonly granularity: number
}

export interface World {
  readonly links: Links
  readonly now: number
  /** By flow: payload bytes that have arrived in order, and completed messages, since `resetCounts`. */
  readonly received: Float64Array
  readonly completed: Float64Array
  /** Sum of `received`. */
  readonly receivedBytes: number
  /** By flow: 1 if its queue pair has failed. */
  readonly failed: Uint8Array
  /** Of messages that have completed since `resetCounts`, from post to completion, µs. */
  readonly latencies: Distribution
  /** Runs until virtual time `end`, µs, or until nothing happens any more. */
  run(end: number): void
  /** Whether all messages have completed. */
  isDone(): boolean
  /** The sum of a counter over all engines. */
  count(name: EngineCounter): number
  /** The rate to which a flow's sender is limited, bytes/µs; Infinity: none. */
  rateOf(flow: number): number
  /** Begins a measurement. */
  resetCounts(): void
}

/** Bytes of a packet that links keep: all headers of a WRITE, ACK or CNP, and with the link's words one cache line. */
const KEPT_BYTES = 32
/** Packets of a run: so many leave before the next queue pair's turn. */
const RUN_PACKETS = 4
/** Bytes of headers and ICRC that a packet has at most, rounded up. */
const HEADER_SPACE = 64
const RETRIES = 7
const ALL_ACCESS = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ
const KEY = 1

/** A uniform 32-bit hash, for the UDP source port that ECMP looks at. */
const hashOf = (flow: number): number => Math.imul(flow + 1, 0x9e37_79b1) >>> 0

// biome-ignore lint/complexity/noExcessiveLinesPerFunction: one table of engines on links
export const createWorld = (options: WorldOptions): World => {
  const { topology, flows, control, seed, mtu, window, timeout, granularity } = options
  const { hosts } = topology
  const { INIT, RTR, RTS } = QpState.values
  const ecn = control === 'dcqcn' ? ECN_CAPABLE : 0
  let now = 0

  // ---- by flow; its queue pairs have the QPNs 2 × flow + 1 (sender) and 2 × flow + 2, which are also port flows ----
  const count = flows.length
  const posted = new Float64Array(count)
  const done = new Float64Array(count)
  const received = new Float64Array(count)
  const completed = new Float64Array(count)
  let receivedBytes = 0
  const failed = new Uint8Array(count)
  /** When each outstanding message was posted; a flow's begin at `startsAt`. */
  const startsAt = new Int32Array(count)
  let outstanding = 0
  flows.forEach(({ depth }, i) => {
    startsAt[i] = outstanding
    outstanding += depth
  })
  const starts = new Float64Array(outstanding)
  const rowOfQpn = new Int32Array(2 * count + 3)
  const targetOfQpn = new Int32Array(2 * count + 3)
  let unfinished = 0
  const latencies = new Distribution()

  // ---- by host ----
  /** When to poll each host next. */
  const timers = createTimers()
  const polledAt = new Float64Array(hosts).fill(Number.NEGATIVE_INFINITY)
  /** Queue pairs' rows with new messages, at the host that is being polled. */
  const doorbells: number[] = []
  /** By host: flow of a row; -1 for rows that receive. */
  const flowOfRow: number[][] = Array.from({ length: hosts }, () => [])
  /** Flows that have not begun, the last one first. */
  const waiting = flows.map((_, i) => i).sort((a, b) => flows[b].start - flows[a].start || b - a)

  const links = createLinks({
    topology,
    seed,
    keptBytes: KEPT_BYTES,
    arrived: host => wake(host, now),
    resumed: host => wake(host, now),
  })

  const post = (flow: number): void => {
    const { messages, depth } = flows[flow]
    while (posted[flow] < messages && posted[flow] - done[flow] < depth) {
      starts[startsAt[flow] + (posted[flow] % depth)] = now
      posted[flow]++
    }
  }

  let host = 0
  const work: Environment['work'] = {
    loadSend(row, index, into, at) {
      const flow = flowOfRow[host][row]
      if (flow < 0 || index >= posted[flow]) return false
      into.fill(0, at, at + Send.SGE)
      into[at + Send.OPCODE] = WrOpcode.values.RDMA_WRITE
      into[at + Send.FLAGS] = SendFlags.values.SIGNALED
      into[at + Send.ID_LO] = index
      into[at + Send.SGES] = 1
      into[at + Send.LENGTH] = flows[flow].bytes
      into[at + Send.RKEY] = KEY
      into[at + Send.SGE + Sge.LO] = 0
      into[at + Send.SGE + Sge.HI] = 0
      into[at + Send.SGE + Sge.LENGTH] = flows[flow].bytes
      into[at + Send.SGE + Sge.LKEY] = KEY
      return true
    },
    retireSend() {},
    copyInline() {},
    takeReceive: () => false,
  }
  const memory: Environment['memory'] = {
    // a queue pair's region is its flow
    resolve: (_pd, _key, _hi, _lo, _length, _access, qpn) => (qpn - 1) >> 1,
    grants: () => true,
    read: () => 0,
    write(region, _hi, _lo, _arena, _at, _chunk, _stride, total) {
      received[region] += total
      receivedBytes += total
      return 0
    },
    hasProcessEnded: () => false,
    compareSwap: () => 0,
    fetchAdd: () => 0,
    bindWindow: () => false,
    invalidate: () => 0,
  }
  const environment: Environment = {
    work,
    memory,
    completions: {
      push(flow, words) {
        if (words[Completion.STATUS] !== WcStatus.values.SUCCESS) {
          if (failed[flow] === 0) unfinished--
          failed[flow] = 1
          return
        }
        latencies.add(now - starts[startsAt[flow] + (done[flow] % flows[flow].depth)])
        done[flow]++
        completed[flow]++
        if (done[flow] === flows[flow].messages) unfinished--
        post(flow)
        doorbells.push(rowOfQpn[2 * flow + 1])
      },
    },
    events: { raise() {} },
  }

  const uplinkRates = new Float64Array(hosts)
  for (const { ends, rate } of topology.links)
    for (const end of ends) if (end < hosts) uplinkRates[end] = Math.max(uplinkRates[end], rate)
  const engines: Engine[] = Array.from({ length: hosts }, (_, i) =>
    createEngine(environment, {
      windowBytes: window,
      fixedWindow: control === 'none',
      rateControl: control === 'dcqcn' ? dcqcnParameters(bytesPerMicrosecond(uplinkRates[i]), granularity) : undefined,
    }),
  )

  const connect = (at: number, qpn: number, peerQpn: number, peer: number, flow: number): number => {
    const engine = engines[at]
    const row = engine.create({
      service: Service.RC,
      qpn,
      pd: 1,
      sendCq: flow,
      recvCq: flow,
      maxSendSge: 1,
      maxRecvSge: 1,
      sqSigAll: false,
    })
    rowOfQpn[qpn] = row
    targetOfQpn[qpn] = peer
    engine.modify(row, INIT, { pkeyIndex: 0, access: ALL_ACCESS })
    engine.modify(row, RTR, {
      destQpn: peerQpn,
      rqPsn: 0,
      pathMtu: mtu,
      minRnrTimer: 12,
      maxDestRdAtomic: 1,
      flow: qpn,
      peer,
    })
    engine.modify(row, RTS, { sqPsn: 0, timeout, retryCnt: RETRIES, rnrRetry: RETRIES, maxRdAtomic: 1 })
    return row
  }
  flows.forEach(({ from, to }, flow) => {
    flowOfRow[from][connect(from, 2 * flow + 1, 2 * flow + 2, to, flow)] = flow
    flowOfRow[to][connect(to, 2 * flow + 2, 2 * flow + 1, from, flow)] = -1
    unfinished++
  })

  // ---- the port of the host that is being polled ----
  const packetSpace = mtu + HEADER_SPACE
  const arena = plainArena(64 + RUN_PACKETS * packetSpace + 64)
  /** A host's port is full while its link has more than this to send, µs: one packet, or until the next look. */
  const roomTime = Float64Array.from(uplinkRates, rate =>
    Math.max(granularity, ((packetSpace + FRAME_BYTES) * 8e6) / rate),
  )
  const sink: TransmitSink = {
    arena,
    maxPackets: RUN_PACKETS,
    maxBytes: RUN_PACKETS * packetSpace,
    reserve: () => (links.busyUntil(host) - roomTime[host] > now ? -1 : 64),
    commit(offset, packetBytes, packets, lastBytes, qpn) {
      for (let i = 0; i < packets; i++) {
        const length = i === packets - 1 ? lastBytes : packetBytes
        links.send(host, targetOfQpn[qpn], hashOf(qpn), ecn, arena.bytes, offset + i * packetBytes, length, now)
      }
    },
  }

  const receiveAll = (): void => {
    const engine = engines[host]
    for (let packet = links.receive(host); packet >= 0; packet = links.receive(host)) {
      const at = links.offsetOf(packet)
      const source = links.sourceOf(packet)
      const packets = links.arena
      const row = rowOfQpn[bthDestQp(packets.view, at)]
      engine.onPacket(row, packets, at, links.lengthOf(packet), source, now)
      if (links.ecnOf(packet) === ECN_CE) engine.onMarked(row, packets, at, 1, source, now)
      links.release(packet)
    }
    engine.endBurst()
  }

  /** Has a host polled at time `at`, unless it is polled earlier anyway. */
  const wake = (woken: number, at: number): void => {
    const due = Math.max(at, polledAt[woken] + granularity)
    if (!isTimerSet(timers, woken) || due < timers.deadline[woken]) setTimer(timers, woken, due)
  }

  const poll = (): void => {
    const engine = engines[host]
    polledAt[host] = now
    receiveAll()
    if (engine.nextTimeout() <= now) engine.onTimeout(now)
    let result: number
    do {
      while (doorbells.length > 0) engine.onDoorbell(doorbells.pop() as number)
      result = engine.isIdle() ? PollResult.DONE : engine.pollTransmit(sink, now)
    } while (result === PollResult.MORE || doorbells.length > 0)
    const room = result === PollResult.FULL ? links.busyUntil(host) - roomTime[host] : Number.POSITIVE_INFINITY
    const next = Math.min(engine.nextTimeout(), room)
    if (next !== Number.POSITIVE_INFINITY) wake(host, next)
  }

  const nextStart = (): number => {
    const flow = waiting.at(-1)
    return flow === undefined ? Number.POSITIVE_INFINITY : flows[flow].start
  }

  return {
    links,
    get now() {
      return now
    },
    received,
    completed,
    get receivedBytes() {
      return receivedBytes
    },
    failed,
    latencies,
    run(end) {
      for (;;) {
        const next = Math.min(links.nextAt(), nextDeadline(timers), nextStart())
        if (next > end || next === Number.POSITIVE_INFINITY) break
        now = next
        if (links.nextAt() <= now) links.poll(now)
        while (nextStart() <= now) {
          const flow = waiting.pop() as number
          host = flows[flow].from
          post(flow)
          engines[host].onDoorbell(rowOfQpn[2 * flow + 1])
          wake(host, now)
        }
        for (host = takeExpired(timers, now); host >= 0; host = takeExpired(timers, now)) poll()
      }
      if (Number.isFinite(end)) now = end
    },
    isDone: () => unfinished === 0,
    count: name => engines.reduce((sum, { counters }) => sum + counters[name], 0),
    rateOf: flow => engines[flows[flow].from].rateOf(rowOfQpn[2 * flow + 1], now),
    resetCounts() {
      received.fill(0)
      receivedBytes = 0
      completed.fill(0)
      latencies.clear()
      links.resetStats(now)
    },
  }
}
