/*
 * The simulation of the model test: engines on a hostile network, pairs of queue pairs, and random events. A seed
 * determines it completely. checks.ts has the invariants.
 */
import assert from 'node:assert/strict'
import { QpState } from '../../../src/spec/enums.ts'
import { Service } from '../../../src/spec/wire/services.ts'
import {
  checkEnd,
  checkFinished,
  createStatistics,
  onAtomic,
  onBound,
  onEvent,
  onInvalidated,
  onReceiveCompleted,
  onSendCompleted,
  onWrote,
} from './checks.ts'
import { attack, canBeAttacked } from './exact.ts'
import { forge, qpnOf, whyUnpredictable } from './forge.ts'
import { createLink, type Link, qualities } from './link.ts'
import { createNode, type ModelNode } from './node.ts'
import { chooseKind, post, postReceive } from './operations.ts'
import {
  beginLife,
  canReceive,
  canSend,
  connect,
  createEnd,
  createPair,
  END_BYTES,
  type End,
  FIRST_RECEIVE_ID,
  forgetSent,
  isFinished,
  isReliable,
  outstanding,
  type Pair,
  SOURCE_BYTES,
  serviceOf,
} from './pair.ts'
import { createRandomSource } from './random.ts'

const { RESET, RTS, SQD, SQE, ERR } = QpState.values

export interface SimulationOptions {
  readonly seed: number
  readonly nodes: number
  /** Number of pairs of queue pairs. */
  readonly pairs: number
  /** See `NodeOptions`. */
  readonly windowBytes?: number
  readonly boundReads?: boolean
  readonly pacingInterval?: number
  readonly sharedWindowBytes?: number
  readonly maxPackets?: number
  readonly maxBytes?: number
}

/** A service that stands twice is chosen twice as often. */
const SERVICES = [Service.RC, Service.RC, Service.UC, Service.UD, Service.XRC_INI]

/** Requests in flight per end. */
const MAX_OUTSTANDING = 24
const MAX_LOG_LINES = 60
/** Maximum delay of a late step: longer than ACK timeouts, 1 to 4 ms. */
const MAX_SLEEP_US = 10_000
/** Turns until the network's quality changes. */
const QUALITY_TURNS = 400
/** Turns until a pair with an expected failure is reset, at most. */
const FAILED_TURNS = 2000
/** The same after all requests of the pair have ended. */
const FINISHED_TURNS = 10

export const createSimulation = (options: SimulationOptions) => {
  const random = createRandomSource(options.seed)
  const statistics = createStatistics()
  const lines: string[] = []
  const log = (line: string): void => {
    if (lines.length >= MAX_LOG_LINES) lines.shift()
    lines.push(line)
  }
  const pairs: Pair[] = []
  const ends: End[] = []
  /** By protection domain; by queue pair number, for each node. */
  const byPd: End[] = []
  const byQpn: Map<number, End>[] = []
  let now = 0
  let nextQpn = 0x100
  let nextKey = 0x1000
  /** No region has had this key; keys are even. */
  const newKey = (): number => {
    nextKey += 2 + 2 * random.int(0x1000)
    return nextKey
  }

  const link: Link = createLink(
    options.nodes,
    {
      deliver(to, from, packets) {
        nodes[to].receive(packets, bytes => byQpn[to].get(qpnOf(bytes))?.row ?? -1, from, now)
      },
      forged(packet) {
        const end = byQpn[packet.to].get(qpnOf(packet.bytes))
        const reason = end === undefined ? undefined : whyUnpredictable(packet, end)
        if (end === undefined || reason === undefined || end.pair.unpredictableBecause !== undefined) return
        end.pair.unpredictableBecause = reason
        statistics.unpredictable++
        if (end.pair.turnsToEnd < 0) end.pair.turnsToEnd = 5 + random.int(30)
        log(`${end.name}: unpredictable from now on: ${reason}`)
      },
      forge: seen => forge(seen, { ends, nodes: options.nodes, find: (node, qpn) => byQpn[node].get(qpn) }, random),
    },
    random,
  )

  const createHost = (index: number): ModelNode => {
    const endOf = (pd: number): End => {
      const end = byPd[pd]
      assert.ok(end?.node === index, `node ${index}: a write to the memory of another queue pair`)
      return end
    }
    return createNode(
      {
        memoryBytes: SOURCE_BYTES + 0x1000 + (END_BYTES + 0x400) * 2 * options.pairs,
        windowBytes: options.windowBytes,
        pacingInterval: options.pacingInterval,
        sharedWindowBytes: options.sharedWindowBytes,
        boundReads: options.boundReads,
        maxPackets: options.maxPackets ?? 64,
        maxBytes: options.maxBytes ?? 0x1_1000,
      },
      {
        wrote: (region, at, length) => onWrote(endOf(region.pd), region, at, length),
        atomic: (region, at, before) => onAtomic(endOf(region.pd), region, at, before),
        bound: region => onBound(endOf(region.pd), region),
        invalidated: region => onInvalidated(endOf(region.pd), region),
        completed(cq, completion) {
          // End i has CQ 2i for sends and CQ 2i + 1 for receives.
          const end = ends[cq >> 1]
          const isSend = cq % 2 === 0
          const number = completion.id & ~FIRST_RECEIVE_ID
          log(`${end.name} ${isSend ? 'request' : 'receive'} ${number}: status ${completion.status}`)
          if (isSend) onSendCompleted(end, completion, statistics)
          else onReceiveCompleted(end, completion, statistics)
        },
        event(row, type) {
          const end = ends.find(one => one.node === index && one.row === row)!
          log(`${end.name}: event ${type}`)
          onEvent(end, type)
        },
        sent: (bytes, flow) => link.send(index, flow, bytes),
      },
      random,
    )
  }
  const nodes = Array.from({ length: options.nodes }, (_, i) => createHost(i))
  const sources = nodes.map((node, i) => {
    byQpn[i] = new Map()
    const at = node.memory.allocate(SOURCE_BYTES)
    random.fill(node.memory.bytes.subarray(at, at + SOURCE_BYTES))
    return at
  })

  const createQp = (end: End, maxSge: number, sqSigAll: boolean): void => {
    const index = ends.indexOf(end)
    end.qpn = nextQpn++
    end.srqn = end.qpn + 1
    const srqn = end.pair.hasSrq ? end.srqn : undefined
    end.row = end.host.create({
      service: serviceOf(end),
      qpn: end.qpn,
      pd: end.pd,
      sendCq: 2 * index,
      recvCq: 2 * index + 1,
      maxSge,
      sqSigAll,
      srqn,
    })
    byQpn[end.node].set(end.qpn, end)
  }
  const createQps = (pair: Pair): void => {
    pair.maxSge = 1 + random.int(6)
    pair.signalsAll = random.hits(0.2)
    pair.hasSrq = pair.service === Service.XRC_INI || random.hits(0.3)
    for (const end of pair.ends) createQp(end, pair.maxSge, pair.signalsAll)
  }

  for (let i = 0; i < options.pairs; i++) {
    const newEnds = [0, 1].map(side => {
      const node = random.int(options.nodes)
      const pd = ends.length + 1
      const end = createEnd(`${i}${'ab'[side]}`, node, nodes[node], pd, sources[node], newKey, ends)
      end.psn = random.u32() & 0xff_ffff
      byPd[pd] = end
      ends.push(end)
      return end
    })
    const pair = createPair(String(i), random.pick(SERVICES), newEnds[0], newEnds[1])
    pairs.push(pair)
    createQps(pair)
    connect(pair, random)
  }
  /** Memory of each node at the start; `checkUnwritable` updates the areas that may change. */
  const unwritable = nodes.map(node => node.memory.bytes.slice())
  const checkUnwritable = (): void => {
    nodes.forEach((node, i) => {
      const expected = unwritable[i]
      for (const end of ends)
        if (end.node === i)
          for (const { offset, length } of [end.target, end.local])
            expected.set(node.memory.bytes.subarray(offset, offset + length), offset)
      assert.ok(Buffer.compare(expected, node.memory.bytes) === 0, `node ${i}: memory outside all areas has changed`)
    })
  }

  // ---- events of a pair ----

  const stateOf = (end: End): number => end.host.engine.query(end.row).state
  const ringDoorbell = (end: End): void => end.host.engine.onDoorbell(end.row)

  const moveToError = (end: End): void => {
    end.isForcedToError = true
    end.pair.isFailing = true
    end.host.engine.modify(end.row, ERR, {})
  }
  /** Requests posted in the error state are flushed immediately. */
  const postInError = (end: End): void => {
    for (let count = canSend(end) ? random.int(3) : 0; count > 0; count--) {
      post(end, chooseKind(end, false, random), random)
      ringDoorbell(end)
    }
    if (canReceive(end) && random.hits(0.5) && postReceive(end, random)) end.host.engine.onReceiveScan(end.row)
  }

  /** Ends a life and starts the next. */
  const restart = (pair: Pair): void => {
    log(
      `pair ${pair.name}: life ${pair.life} ends${pair.unpredictableBecause === undefined ? '' : `, unpredictable: ${pair.unpredictableBecause}`}`,
    )
    statistics.lives++
    for (const end of pair.ends) {
      const isFlushed = stateOf(end) === ERR || random.hits(0.5)
      if (isFlushed) {
        moveToError(end)
        postInError(end)
      }
      nodes[end.node].transmit(now)
      checkEnd(end, isFlushed, statistics)
    }
    const isRecreated = random.hits(0.3)
    for (const end of pair.ends) {
      const { engine } = end.host
      if (isRecreated) {
        byQpn[end.node].delete(end.qpn)
        engine.destroy(end.row)
      } else {
        engine.modify(end.row, RESET, {})
        Object.assign(end.host.queues[end.row], { sends: [], first: 0, receives: [] })
      }
      beginLife(end)
    }
    if (isRecreated) createQps(pair)
    connect(pair, random)
  }

  const postRequests = (end: End): number => {
    let posted = 0
    for (let count = 1 + random.int(4); count > 0 && outstanding(end) < MAX_OUTSTANDING; count--) {
      const isFatal = end.pair.turnsToEnd < 0 && random.hits(0.006)
      const operation = post(end, chooseKind(end, isFatal, random), random)
      if (operation === undefined) continue
      posted++
      log(`${end.name} posts ${operation.request.id}: ${operation.kind}`)
      if (operation.fatal !== 'no') {
        if (isReliable(end.pair)) end.pair.turnsToEnd = FAILED_TURNS
        break
      }
    }
    if (posted > 0) ringDoorbell(end)
    return posted
  }

  /** Moves an end from SQE to RTS. All its requests must have ended. */
  const recover = (end: End): void => {
    log(`${end.name} recovers`)
    end.hasFailed = false
    end.fatalAt = Number.POSITIVE_INFINITY
    end.host.engine.modify(end.row, RTS, {})
  }

  /** A forged packet with a known effect. */
  const attackIdle = (pair: Pair): void => {
    const end = random.pick(pair.ends)
    if (!pair.ends.every(canBeAttacked)) return
    link.deliver()
    if (pair.unpredictableBecause !== undefined || !pair.ends.every(canBeAttacked)) return
    const { name, bytes, check } = attack(end, random)
    log(`${end.name} is attacked: ${name}`)
    pair.unpredictableBecause = name
    pair.turnsToEnd = 1 + random.int(3)
    statistics.attacks++
    link.inject({ from: end.peer.node, to: end.node, bytes, number: link.counts.sent }, 0)
    link.deliver()
    check()
  }

  /** Returns the number of requests posted. */
  const turn = (pair: Pair, { isPosting }: { readonly isPosting: boolean }): number => {
    let posted = 0
    if (isPosting && random.hits(0.004)) pair.isSettling = true
    for (const end of pair.ends) {
      let hasNewReceive = false
      while (canReceive(end) && random.hits(0.5) && postReceive(end, random)) hasNewReceive = true
      const state = stateOf(end)
      if (state === ERR && hasNewReceive) end.host.engine.onReceiveScan(end.row)
      if (state === SQE && outstanding(end) === 0 && random.hits(0.3)) recover(end)
      else if (state === SQD && !end.isDraining && random.hits(0.5)) end.host.engine.modify(end.row, RTS, {})
      else if (state === RTS && canSend(end) && isPosting && pair.turnsToEnd < 0 && random.hits(0.004)) {
        end.isDraining = true
        end.host.engine.modify(end.row, SQD, {})
      }
      const isPaused = pair.isSettling || (pair.turnsToEnd >= 0 && pair.unpredictableBecause === undefined)
      if (isPosting && canSend(end) && !isPaused && state !== ERR && random.hits(0.6)) posted += postRequests(end)
    }
    if (pair.turnsToEnd < 0 && pair.ends.some(end => stateOf(end) === ERR)) pair.turnsToEnd = FAILED_TURNS
    if (isFinished(pair)) {
      checkFinished(pair, statistics)
      const canAttack = pair.service === Service.RC && pair.unpredictableBecause === undefined && pair.turnsToEnd < 0
      if (isPosting && canAttack && pair.isSettling) attackIdle(pair)
      pair.isSettling = false
      if (pair.turnsToEnd > FINISHED_TURNS) pair.turnsToEnd = FINISHED_TURNS
    }
    if (pair.turnsToEnd > 0) pair.turnsToEnd--
    if (pair.turnsToEnd === 0) restart(pair)
    else if (isPosting && random.hits(0.0005)) {
      log(`pair ${pair.name}: ended at random`)
      if (random.hits(0.5)) moveToError(random.pick(pair.ends))
      else restart(pair)
    }
    return posted
  }

  /** Sends what may be sent, and moves time to the next event. */
  const step = (): void => {
    for (const node of nodes) node.transmit(now)
    let next = link.nextArrival()
    for (const { engine } of nodes) next = Math.min(next, engine.nextTimeout())
    if (next === Number.POSITIVE_INFINITY) return
    // A late step: timers expire before the packets that arrived meanwhile.
    now = Math.max(now, next) + (random.hits(0.003) ? random.int(MAX_SLEEP_US) : 0)
    link.now = now
    for (const { engine } of nodes) if (engine.nextTimeout() <= now) engine.onTimeout(now)
    link.deliver()
  }

  return {
    statistics,
    lines,
    get now() {
      return now
    },
    /** Posts at least `operations` requests on the hostile network, then lets all complete on a calm one. */
    run(operations: number): void {
      let remaining = operations
      for (let turns = 0; remaining > 0; turns++) {
        if (turns % QUALITY_TURNS === 0) {
          link.setQuality(random.weighted(qualities))
          log(`the network is ${link.quality.name}`)
          checkUnwritable()
          for (const end of ends) forgetSent(end, link.counts.sent, link.oldest())
        }
        remaining -= turn(random.pick(pairs), { isPosting: true })
        if (random.hits(0.7)) step()
      }
      link.setQuality(qualities[0])
      for (let turns = 0; !pairs.every(isFinished); turns++) {
        assert.ok(
          turns < 200_000,
          `these pairs do not finish: ${pairs.filter(pair => !isFinished(pair)).map(pair => pair.name)}`,
        )
        turn(random.pick(pairs), { isPosting: false })
        step()
      }
      for (const pair of pairs) checkFinished(pair, statistics)
      checkUnwritable()
      for (const end of ends) end.host.engine.modify(end.row, RESET, {})
      for (const { engine } of nodes) {
        const { queuePairs, poolWords } = engine.stat()
        const queuePairsOfNode = ends.filter(end => end.host.engine === engine).length
        assert.deepEqual(
          [queuePairs, poolWords, engine.nextTimeout()],
          [queuePairsOfNode, 0, Number.POSITIVE_INFINITY],
          'leaks',
        )
      }
      // A request fails only after eight losses in a row, which are rare: it is retried seven times.
      assert.ok(
        statistics.lost <= operations / 5000,
        `${statistics.lost} requests exceeded their retries, although the receiver existed`,
      )
    },
  }
}
