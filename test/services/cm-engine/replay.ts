/*
 * Replays a capture with our connection manager in place of one side, in virtual time. Our engine gets the recorded
 * messages of the other side and the commands of the recorded consumer, and must send the recorded messages.
 * Retransmissions must occur without a command.
 */
import assert from 'node:assert/strict'
import { createRandom } from '../../../src/base/random.ts'
import type { CmConnection, CmPath } from '../../../src/services/cm-engine/connection.ts'
import { CmEngine } from '../../../src/services/cm-engine/engine.ts'
import type { CmEvent } from '../../../src/services/cm-engine/machine.ts'
import { GSI_QPN, rejReason } from '../../../src/spec/wire/mad.ts'
import { type CmMessage, emitCm, parseCm } from '../../../src/transport/wire/mad/mad.ts'
import { type Loss, readConversation, type Side } from '../../transport/engine/captures/conversation.ts'
import { factsOf } from '../../transport/engine/captures/facts.ts'

interface RecordedMessage {
  /** Packet number in its file. */
  readonly number: number
  /** µs since the first packet of the file. */
  readonly time: number
  readonly from: Side
  readonly message: CmMessage
  /** True if the message did not arrive. */
  readonly isLost: boolean
}

export const messagesIn = (capture: string): RecordedMessage[] => {
  const loss: Loss | undefined = factsOf[capture]?.loss
  return readConversation(capture, loss).entries.flatMap(({ number, time, from, packet, isLost }) => {
    const message = packet.BTH.destQp === GSI_QPN ? parseCm(packet.payload) : undefined
    return message === undefined ? [] : [{ number, time, from, message, isLost }]
  })
}

/** A difference between the recording and our engine. Field `packet`: a message that one side lacks (`-`). */
export interface Difference {
  /** Number of the recorded message; 0 if the message was not recorded. */
  readonly number: number
  readonly field: string
  readonly recorded: string
  readonly ours: string
}

type MessageOf<N extends CmMessage['name']> = Extract<CmMessage, { readonly name: N }>

/** Values of Linux 6.1, as exponents. */
const LIFE_TIME = 18
const ACK_DELAY = 15
/** Linux takes 4.096 µs × 2^8 as 1 ms, and rounds its timers up. */
const TIMER_TOLERANCE = 0.1
/** The format of times in permitted.ts. */
const seconds = (micros: number): string => `${(micros / 1e6).toFixed(1)} s`
const text = (value: unknown): string => (value instanceof Uint8Array ? Buffer.from(value).toString('hex') : `${value}`)

const CONNECTION_ID_FIELDS = ['localId', 'remoteId', 'requestId'] as const
/** Fields with random ids. */
const ID_FIELDS = ['tid', ...CONNECTION_ID_FIELDS] as const

/** Equal for a message and its retransmissions. */
const retransmissionKey = (message: CmMessage): string => {
  const { name, tid, localId, remoteId } = { localId: '', remoteId: '', ...message }
  return `${name} ${tid} ${localId} ${remoteId}`
}

class Replay {
  readonly differences: Difference[] = []
  readonly #side: Side
  readonly #all: readonly RecordedMessage[]
  readonly #engine: CmEngine
  /** Our transactions and ids, by the recorded ones. */
  readonly #ours = new Map<unknown, bigint | number>()
  /** By the recorded id of our side. */
  readonly #connections = new Map<number, CmConnection>()
  /** Received requests, by the peer's id. */
  readonly #requests = new Map<number, CmConnection>()
  /** By the recorded id of either side. */
  readonly #paths = new Map<number, CmPath>()
  /** Times, by `retransmissionKey`. */
  readonly #sentAt = new Map<string, { readonly recorded: number; readonly ours: number }>()
  /** Messages that our engine has sent, and that are not compared yet. */
  readonly #waiting: CmMessage[] = []
  #now = 0

  constructor(all: readonly RecordedMessage[], side: Side) {
    this.#side = side
    this.#all = all
    const withGuid = this.#all.find(({ from, message }) => from === side && 'caGuid' in message)
      ?.message as MessageOf<'REQ'>
    this.#engine = new CmEngine({
      random: createRandom(5),
      caGuid: () => withGuid?.caGuid ?? 0n,
      ackDelay: () => ACK_DELAY,
      hasGid: () => true,
    })
    for (const { from, message } of this.#all) if (from !== side && this.#isServed(message)) this.#listen(message)
  }

  run(): Difference[] {
    for (const entry of this.#all) {
      if (entry.from === this.#side) this.#expect(entry)
      else this.#receive(entry)
    }
    return this.differences
  }

  /** True if the recorded consumer listened on the service of the request. */
  #isServed(request: CmMessage): request is MessageOf<'REQ' | 'SIDR_REQ'> {
    if (request.name === 'SIDR_REQ')
      return this.#all.some(
        ({ message }) => message.name === 'SIDR_REP' && message.requestId === request.requestId && message.status === 0,
      )
    return (
      request.name === 'REQ' &&
      !this.#all.some(
        ({ message }) =>
          message.name === 'REJ' &&
          message.remoteId === request.localId &&
          message.reason === rejReason.INVALID_SERVICE_ID,
      )
    )
  }

  #listen({ serviceId }: MessageOf<'REQ' | 'SIDR_REQ'>): void {
    try {
      this.#engine.listen(serviceId)
    } catch (error) {
      // A listener has the service already.
      assert.match(String(error), /has a listener/)
    }
  }

  #pathOf(req: MessageOf<'REQ'>): CmPath {
    const { localGid, remoteGid, pkey, flowLabel, trafficClass, hopLimit, sl } = req
    const isActive = this.#all.some(({ from, message }) => from === this.#side && message === req)
    const gids = isActive ? { localGid, remoteGid } : { localGid: remoteGid, remoteGid: localGid }
    const fields = { pkey, flowLabel, trafficClass, hopLimit, sl, mtu: req.pathMtu, packetLifeTime: LIFE_TIME }
    return { device: 0, ...gids, ...fields }
  }

  /** Returns the path of a message's connection, and stores it by the message's id; any path for a SIDR message. */
  #storePath(message: CmMessage): CmPath {
    if (message.name === 'REQ') this.#paths.set(message.localId, this.#pathOf(message))
    const ids = CONNECTION_ID_FIELDS.flatMap(field =>
      field in message ? [(message as MessageOf<'RTU'>)[field as 'localId']] : [],
    )
    const known = ids.flatMap(id => this.#paths.get(id) ?? [])[0]
    if (known !== undefined && 'localId' in message) this.#paths.set(message.localId, known)
    const gid = new Uint8Array(16)
    const plain = {
      pkey: 0xffff,
      flowLabel: 1,
      trafficClass: 0,
      hopLimit: 64,
      sl: 0,
      mtu: 3,
      packetLifeTime: LIFE_TIME,
    }
    return known ?? { device: 0, localGid: gid, remoteGid: gid, ...plain }
  }

  /** A recorded message with our ids in place of the recorded ids. */
  #translated<M extends CmMessage>(message: M): M {
    const record: Record<string, unknown> = { ...message }
    for (const field of ID_FIELDS) if (field in record) record[field] = this.#ours.get(record[field]) ?? record[field]
    return record as unknown as M
  }

  #collect(): void {
    for (let sent = this.#engine.pollTransmit(); sent; sent = this.#engine.pollTransmit())
      this.#waiting.push(parseCm(sent.mad)!)
  }

  #receive({ number, message, isLost }: RecordedMessage): void {
    const path = this.#storePath(message)
    if (message.name === 'DREQ' || message.name === 'DREP') this.#sendCrossing(number, message)
    if (isLost) return
    this.#engine.onMad(emitCm(this.#translated(message)), path, this.#now)
    for (let event = this.#engine.pollEvent(); event; event = this.#engine.pollEvent()) this.#onEvent(event)
    this.#collect()
    // Our engine may answer with one message: the next recorded message of our side.
    const next = this.#all.find(entry => entry.number > number && entry.from === this.#side)
    for (const [i, { name }] of [...this.#waiting.entries()].reverse()) {
      const isRecorded = i === 0 && next?.message.name === name
      if (isRecorded) continue
      this.#addDifference(0, 'packet', '-', name)
      this.#waiting.splice(i, 1)
    }
  }

  #onEvent({ name, connection, message }: CmEvent): void {
    if (name === 'REQ_RECEIVED') this.#requests.set((message as MessageOf<'REQ'>).localId, connection)
    if (name === 'SIDR_REQ_RECEIVED') this.#requests.set((message as MessageOf<'SIDR_REQ'>).requestId, connection)
  }

  /** Sends our DREQ or DREP before the peer's is received, if the two crossed in the recording. */
  #sendCrossing(number: number, { name, remoteId }: MessageOf<'DREQ' | 'DREP'>): void {
    const ownMessage = this.#all.find(
      ({ from, message }) => from === this.#side && message.name === name && message.localId === remoteId,
    )
    const connection = this.#connections.get(remoteId)
    const isPossible = connection?.state === (name === 'DREQ' ? 'ESTABLISHED' : 'DREQ_RCVD')
    if (ownMessage === undefined || ownMessage.number < number || !isPossible) return
    this.#command(ownMessage.message)
    this.#collect()
  }

  #expect({ number, time, message }: RecordedMessage): void {
    this.#storePath(message)
    const key = retransmissionKey(message)
    const before = this.#sentAt.get(key)
    if (this.#waiting.length === 0 && before === undefined) {
      this.#command(message)
      this.#collect()
    }
    let hasWaited = false
    if (this.#waiting.length === 0 && this.#engine.nextTimeout() < Number.POSITIVE_INFINITY) {
      hasWaited = true
      this.#now = this.#engine.nextTimeout()
      this.#engine.onTimeout(this.#now)
      this.#collect()
    }
    const sent = this.#waiting.shift()
    if (sent === undefined) {
      this.#addDifference(number, 'packet', message.name, '-')
      return
    }
    this.#recordIds(message, sent)
    const expected = this.#translated(message) as unknown as Record<string, unknown>
    const ours = sent as unknown as Record<string, unknown>
    for (const field of new Set([...Object.keys(expected), ...Object.keys(ours)]))
      if (text(expected[field]) !== text(ours[field]))
        this.#addDifference(number, field, text(expected[field]), text(ours[field]))
    if (hasWaited && before) {
      const [recorded, waitedHere] = [time - before.recorded, this.#now - before.ours]
      if (Math.abs(waitedHere / recorded - 1) > TIMER_TOLERANCE)
        this.#addDifference(number, 'wait', seconds(recorded), seconds(waitedHere))
    }
    this.#sentAt.set(key, { recorded: time, ours: this.#now })
  }

  #addDifference(number: number, field: string, recorded: string, ours: string): void {
    this.differences.push({ number, field, recorded, ours })
  }

  /** Stores our ids for the recorded ids of our side. */
  #recordIds(recorded: CmMessage, sent: CmMessage): void {
    const isInPeerMessage = (id: unknown): boolean =>
      this.#all.some(
        ({ from, message }) => from !== this.#side && Object.values(message).some(value => value === id && value !== 0),
      )
    for (const field of ['tid', 'localId', 'requestId'] as const) {
      const [recordedId, ourId] = [recorded, sent].map(
        message => (message as unknown as Record<string, bigint | number>)[field],
      )
      const repeatsPeerId =
        field !== 'localId' && isInPeerMessage(recordedId) && !['REQ', 'DREQ', 'SIDR_REQ'].includes(recorded.name)
      if (recordedId && ourId !== undefined && !repeatsPeerId && !this.#ours.has(recordedId))
        this.#ours.set(recordedId, ourId)
    }
  }

  #connection(id: number): CmConnection {
    const found = this.#connections.get(id)
    assert.ok(found, `no connection ${id}`)
    return found
  }

  /** Acts as the recorded consumer. A REJ or SIDR_REP that the engine sends by itself has no action. */
  #command(message: CmMessage): void {
    const engine = this.#engine
    const now = this.#now
    switch (message.name) {
      case 'REQ': {
        const path = this.#paths.get(message.localId)!
        const connection = engine.create(path)
        this.#connections.set(message.localId, connection)
        const { remoteResponseTimeout, localResponseTimeout } = message
        engine.connect(
          connection,
          { ...message, path, transport: 'RC', remoteResponseTimeout, localResponseTimeout },
          now,
        )
        break
      }
      case 'REP': {
        const connection = this.#requests.get(message.remoteId)
        assert.ok(connection, `no request ${message.remoteId}`)
        this.#connections.set(message.localId, connection)
        engine.reply(connection, message, now)
        break
      }
      case 'RTU':
        engine.ready(this.#connection(message.localId), message.privateData)
        break
      case 'REJ': {
        const connection = this.#requests.get(message.remoteId)
        const { reason, privateData } = message
        if (connection !== undefined) engine.reject(connection, { reason, privateData }, now)
        break
      }
      case 'DREQ':
        engine.disconnect(this.#connection(message.localId), now)
        break
      case 'DREP': {
        const connection = this.#connections.get(message.localId)
        if (connection?.state === 'DREQ_RCVD') engine.confirmDisconnect(connection, now)
        break
      }
      case 'SIDR_REQ': {
        const connection = engine.create(this.#storePath(message))
        const { serviceId, privateData } = message
        engine.resolve(
          connection,
          { path: connection.path, serviceId, privateData, responseTimeout: 20, maxCmRetries: 15 },
          now,
        )
        break
      }
      case 'SIDR_REP': {
        const connection = this.#requests.get(message.requestId)
        const { status, qpn, qkey, privateData } = message
        if (connection !== undefined) engine.replyToResolve(connection, { status, qpn, qkey, privateData })
      }
    }
  }
}

/** The differences between the recorded messages of `side` and those of our engine. */
export const replay = (messages: readonly RecordedMessage[], side: Side): Difference[] =>
  new Replay(messages, side).run()
