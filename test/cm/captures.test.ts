/*
 * The captures of Linux's connection manager with our engine in the place of each side: given what the consumer there
 * gave, it sends the same bytes, but for ids and transactions, which are random, and the GUID, which is the device's.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import type { CmPath } from '../../src/cm/connection.ts'
import { CmEngine } from '../../src/cm/engine.ts'
import { ROCE_UDP_PORT } from '../../src/spec/wire/headers.ts'
import { GSI_QPN } from '../../src/spec/wire/mad.ts'
import { parseFrame } from '../../src/wire/frame.ts'
import { type CmMessage, emitCm, parseCm } from '../../src/wire/mad.ts'
import { parsePacket } from '../../src/wire/packet.ts'
import { readCapture } from '../../src/wire/pcap.ts'
import { fixture } from '../paths.ts'
import { randomFrom } from './pair.ts'

interface Seen {
  /** Whether the side that sent the first message sent it. */
  readonly active: boolean
  readonly message: CmMessage
}

const seenIn = (file: string): Seen[] => {
  let first: string | undefined
  return readCapture(readFileSync(fixture('wire', file))).flatMap(({ bytes }) => {
    const frame = parseFrame(bytes)
    if (frame.kind === 'opaque' || frame.destinationPort !== ROCE_UDP_PORT) return []
    const packet = parsePacket(frame.payload)
    if (packet.kind === 'opaque' || packet.BTH.destQp !== GSI_QPN) return []
    const message = parseCm(packet.payload)
    if (message === undefined) return []
    const source = String(frame.source)
    first ??= source
    return [{ active: source === first, message }]
  })
}

/** Linux 6.1: packet life time 18 and an ACK delay of 15. */
const LIFE_TIME = 18
const ACK_DELAY = 15

/** Our ids and transactions in the place of Linux's, for one side of one connection. */
class Side {
  readonly engine: CmEngine
  readonly path: CmPath
  readonly linux = new Map<string, unknown>()

  constructor(req: Extract<CmMessage, { name: 'REQ' }>, active: boolean) {
    this.engine = new CmEngine({
      random: randomFrom(5),
      caGuid: () => req.caGuid,
      ackDelay: () => ACK_DELAY,
      hasGid: () => true,
    })
    const { localGid, remoteGid, pkey, flowLabel, trafficClass, hopLimit, sl } = req
    const ends = active ? { localGid, remoteGid } : { localGid: remoteGid, remoteGid: localGid }
    const rest = { pkey, flowLabel, trafficClass, hopLimit, sl, mtu: req.pathMtu, packetLifeTime: LIFE_TIME }
    this.path = { device: 0, ...ends, ...rest }
  }

  sent(): CmMessage {
    const next = this.engine.pollTransmit()
    assert.ok(next, 'nothing was sent')
    return parseCm(next.mad)!
  }
}

/** All fields but those that are random or the device's own. */
const comparable = (message: CmMessage): Record<string, unknown> => {
  const { tid: _, ...fields } = message as CmMessage & Record<string, unknown>
  for (const own of ['localId', 'remoteId', 'requestId', 'caGuid']) delete fields[own]
  return fields
}

const find = <N extends CmMessage['name']>(seen: readonly Seen[], name: N): Extract<CmMessage, { name: N }> => {
  const found = seen.find(({ message }) => message.name === name)
  assert.ok(found, name)
  return found.message as Extract<CmMessage, { name: N }>
}

for (const file of ['ucmatose', 'ucmatose_tos', 'rping', 'rping_ipv6', 'rdma_server', 'cm_connect', 'send_bw_cm']) {
  const all = seenIn(`${file}.pcap`)
  const req = find(all, 'REQ')
  const rep = find(all, 'REP')
  const rtu = find(all, 'RTU')
  const dreq = all.find(
    ({ message }) => message.name === 'DREQ' && [req.localId, rep.localId].includes(message.localId),
  )
  assert.ok(dreq?.message.name === 'DREQ')

  describe(file, () => {
    test('as the active side', () => {
      const side = new Side(req, true)
      const { engine } = side
      const connection = engine.create(side.path)
      engine.connect(
        connection,
        {
          ...req,
          path: side.path,
          transport: 'RC',
          srq: req.srq,
          flowControl: req.flowControl,
        },
        0,
      )
      assert.deepEqual(comparable(side.sent()), comparable(req))
      engine.onMad(emitCm({ ...rep, remoteId: connection.localId }), side.path, 0)
      assert.equal(engine.pollEvent()?.name, 'REP_RECEIVED')
      engine.ready(connection, rtu.privateData)
      assert.deepEqual(comparable(side.sent()), comparable(rtu))
      const message = dreq.message as typeof dreq.message & { name: 'DREQ' }
      if (dreq.active) {
        engine.disconnect(connection, 0)
        assert.deepEqual(comparable(side.sent()), comparable(message))
      } else {
        engine.onMad(emitCm({ ...message, remoteId: connection.localId }), side.path, 0)
        assert.equal(engine.pollEvent()?.name, 'DREQ_RECEIVED')
      }
    })

    test('as the passive side', () => {
      const side = new Side(req, false)
      const { engine } = side
      engine.listen(req.serviceId)
      engine.onMad(emitCm(req), side.path, 0)
      const event = engine.pollEvent()
      assert.equal(event?.name, 'REQ_RECEIVED')
      const { connection } = event
      engine.reply(connection, rep, 0)
      assert.deepEqual(comparable(side.sent()), comparable(rep))
      engine.onMad(emitCm({ ...rtu, remoteId: connection.localId }), side.path, 0)
      assert.equal(engine.pollEvent()?.name, 'RTU_RECEIVED')
      const message = dreq.message as typeof dreq.message & { name: 'DREQ' }
      if (!dreq.active) {
        engine.disconnect(connection, 0)
        assert.deepEqual(comparable(side.sent()), comparable(message))
      } else {
        engine.onMad(emitCm({ ...message, remoteId: connection.localId }), side.path, 0)
        engine.confirmDisconnect(connection, 0)
        assert.equal(side.sent().name, 'DREP')
      }
    })
  })
}

test('a closed port is refused as Linux refuses it', () => {
  const all = seenIn('rping_reject.pcap')
  const req = find(all, 'REQ')
  const side = new Side(req, false)
  side.engine.onMad(emitCm(req), side.path, 0)
  assert.deepEqual(side.sent(), find(all, 'REJ'))
})

test('a refusal with private data', () => {
  const all = seenIn('cm_reject.pcap')
  const req = find(all, 'REQ')
  const rej = find(all, 'REJ')
  const side = new Side(req, false)
  side.engine.listen(req.serviceId)
  side.engine.onMad(emitCm(req), side.path, 0)
  const connection = side.engine.pollEvent()!.connection
  // rdma_cm has sent, or thought of, an MRA before: then the peer is told our id.
  side.engine.delay(connection, 24)
  side.sent()
  side.engine.reject(connection, { reason: rej.reason, privateData: rej.privateData }, 0)
  assert.deepEqual(comparable(side.sent()), comparable(rej))
})

for (const file of ['udaddy', 'udaddy_reject']) {
  test(`${file}: resolution of a service id, as the passive side`, () => {
    const all = seenIn(`${file}.pcap`)
    const sidr = find(all, 'SIDR_REQ')
    const rep = find(all, 'SIDR_REP')
    const req = find(seenIn('ucmatose.pcap'), 'REQ')
    const side = new Side(req, false)
    if (file === 'udaddy') side.engine.listen(sidr.serviceId)
    side.engine.onMad(emitCm(sidr), side.path, 0)
    const event = side.engine.pollEvent()
    const { status, qpn, qkey, privateData } = rep
    if (event) side.engine.resolved(event.connection, { status, qpn, qkey, privateData })
    assert.deepEqual(side.sent(), rep)
  })
}
