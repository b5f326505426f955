/*
 * Every message in every state, on the active and the passive side. The table is written by hand from Linux's cm.c and
 * the InfiniBand specification, not derived from services/cm-engine/cm-states.ts.
 */
import assert from 'node:assert/strict'
import { beforeEach, describe, test } from 'node:test'
import { type CmState, cmStates } from '../../../src/services/cm-engine/cm-states.ts'
import type { CmConnection } from '../../../src/services/cm-engine/connection.ts'
import { aprStatus, type CmMessageName, cmAnswered, cmMessages, rejReason } from '../../../src/spec/wire/mad.ts'
import { type CmDraft, emitCm } from '../../../src/transport/wire/mad/mad.ts'
import { enter, type Role, statesAndRoles } from './in-state.ts'
import { gid, type Host, Pair, parsed, pathTo, peerOf, SERVICE } from './pair.ts'
import { plainRequest } from './request.ts'

/**
 * A cell is the next state, or `/X` (answer X in the same state), or `.` (no effect). A REQ of an unknown connection is
 * rejected, because its service has no listener.
 */
const TABLE = `
                      REQ   MRA           REJ       REP       RTU          DREQ       DREP      SIDR_REQ   SIDR_REP  LAP   APR
IDLE active           /REJ  .             .         /REJ      .            /DREP      .         /SIDR_REP  .         /APR  .
REQ_SENT active       /REJ  MRA_REQ_RCVD  IDLE      REP_RCVD  .            /DREP      .         /SIDR_REP  .         /APR  .
MRA_REQ_RCVD active   /REJ  .             IDLE      REP_RCVD  .            /DREP      .         /SIDR_REP  .         /APR  .
REP_RCVD active       .     .             TIMEWAIT  .         .            .          .         /SIDR_REP  .         /APR  .
MRA_REP_SENT active   .     .             TIMEWAIT  /MRA      .            .          .         /SIDR_REP  .         /APR  .
ESTABLISHED active    .     .             TIMEWAIT  /RTU      .            DREQ_RCVD  .         /SIDR_REP  .         /APR  .
DREQ_SENT active      .     .             TIMEWAIT  .         .            DREQ_RCVD  TIMEWAIT  /SIDR_REP  .         /APR  .
DREQ_RCVD active      .     .             .         .         .            .          TIMEWAIT  /SIDR_REP  .         /APR  .
TIMEWAIT active       /REJ  .             .         .         .            /DREP      .         /SIDR_REP  .         /APR  .
REQ_RCVD passive      .     .             IDLE      .         .            .          .         /SIDR_REP  .         /APR  .
MRA_REQ_SENT passive  /MRA  .             IDLE      .         .            .          .         /SIDR_REP  .         /APR  .
REP_SENT passive      /REP  MRA_REP_RCVD  IDLE      .         ESTABLISHED  DREQ_RCVD  .         /SIDR_REP  .         /APR  .
MRA_REP_RCVD passive  .     .             IDLE      .         ESTABLISHED  DREQ_RCVD  .         /SIDR_REP  .         /APR  .
ESTABLISHED passive   .     .             TIMEWAIT  .         .            DREQ_RCVD  .         /SIDR_REP  .         /APR  .
DREQ_SENT passive     .     .             TIMEWAIT  .         .            DREQ_RCVD  TIMEWAIT  /SIDR_REP  .         /APR  .
DREQ_RCVD passive     .     .             .         .         .            .          TIMEWAIT  /SIDR_REP  .         /APR  .
TIMEWAIT passive      /REJ  .             .         .         .            /DREP      .         /SIDR_REP  .         /APR  .
SIDR_REQ_SENT active  /REJ  .             .         .         .            /DREP      .         /SIDR_REP  IDLE      /APR  .
SIDR_REQ_RCVD passive /REJ  .             .         /REJ      .            /DREP      .         .          .         /APR  .
`

const [columns = [], ...rows] = TABLE.trim()
  .split('\n')
  .map(line => line.trim().split(/\s+/))
const names = columns as CmMessageName[]
const cells = new Map(rows.map(([state, role, ...row]) => [`${state} ${role}`, row]))

/** A passive connection that has returned to IDLE has the row of the active side. */
const cellOf = (state: CmState, role: Role, name: CmMessageName): string =>
  (cells.get(`${state} ${role}`) ?? cells.get(`${state} active`))![names.indexOf(name)]!

let pair: Pair
beforeEach(() => {
  pair = new Pair()
  pair.b.engine.listen(SERVICE)
})

const STRANGER = 3

/** The peer's message for the connection. A peer without a known id has the id 0x77. */
const messageFor = ({ number }: Host, connection: CmConnection, name: CmMessageName): CmDraft => {
  const peer = peerOf(number)
  const { localId } = connection
  const remoteId = connection.remoteId || 0x77
  const isUnanswered = connection.state === 'REQ_SENT' || connection.state === 'MRA_REQ_RCVD'
  // A DREQ has a new transaction id, except in TIMEWAIT, where it repeats the first DREQ.
  const tid = name === 'DREQ' && connection.state !== 'TIMEWAIT' ? 0x99n : connection.tid || 0x99n
  const ids = { tid, localId: remoteId, remoteId: localId }
  const senderFields = { caGuid: BigInt(0x100 + peer), qpn: 0x55, startingPsn: 9 }
  switch (name) {
    case 'REQ': {
      const gids = { localGid: gid(peer), remoteGid: gid(number) }
      return { ...plainRequest, name, tid, localId: remoteId, ...senderFields, ...gids, serviceId: SERVICE + 1n }
    }
    case 'REP':
      return { name, ...ids, ...senderFields }
    case 'MRA':
      return { name, ...ids, message: isUnanswered ? cmAnswered.REQ : cmAnswered.REP, serviceTimeout: 20 }
    case 'REJ': {
      const message = isUnanswered ? cmAnswered.REQ : cmAnswered.OTHER
      return { name, ...ids, message, reason: rejReason.CONSUMER_DEFINED }
    }
    case 'DREQ':
      return { name, ...ids, remoteQpn: connection.agreed.localQpn }
    case 'SIDR_REQ':
      return { name, tid, requestId: remoteId, pkey: 0xffff, serviceId: SERVICE + 1n }
    case 'SIDR_REP':
      return { name, tid, requestId: localId, qpn: 0x55 }
    default:
      return { name, ...ids }
  }
}

test('the table has every state in every role, and every message', () => {
  assert.deepEqual(names.toSorted(), Object.keys(cmMessages).sort())
  assert.deepEqual([...cells.keys()].sort(), statesAndRoles.map(both => both.join(' ')).sort())
  assert.deepEqual([...new Set(statesAndRoles.map(([state]) => state))].sort(), Object.keys(cmStates).sort())
  for (const [row, { length }] of cells) assert.equal(length, names.length, row)
})

for (const [state, role] of statesAndRoles)
  describe(`in ${state}, ${role}`, () => {
    for (const name of names) {
      test(`${name} has the effect of its cell (${cellOf(state, role, name)}); its repetition has that of the new state's cell`, () => {
        const [host, connection] = enter(pair, state, role)
        const draft = messageFor(host, connection, name)
        for (const turn of ['first', 'again']) {
          const before = connection.state
          const cell = cellOf(before, role, name)
          pair.lose()
          host.events()
          host.engine.onMad(emitCm(draft), pathTo(host.number, peerOf(host.number)), pair.now)
          const changesState = !cell.startsWith('/') && cell !== '.'
          assert.equal(connection.state, changesState ? cell : before, turn)
          assert.deepEqual(
            host.events().map(event => [event.name, event.connection]),
            changesState ? [[`${name}_RECEIVED`, connection]] : [],
            turn,
          )
          const answers = parsed(pair.collect())
          assert.deepEqual(
            answers.map(answer => answer.name),
            cell.startsWith('/') ? [cell.slice(1)] : [],
            turn,
          )
          for (const answer of answers) {
            assert.equal(answer.tid, draft.tid, `${turn}: the answer repeats the transaction`)
            if (answer.name === 'REJ' && before === 'TIMEWAIT') assert.equal(answer.reason, rejReason.STALE_CONN)
            if (answer.name === 'APR') {
              const hasBothIds = connection.localId !== 0 && connection.remoteId !== 0
              assert.equal(answer.status, hasBothIds ? aprStatus.UNSUPPORTED : aprStatus.INVALID_COMM_ID)
            }
          }
        }
      })

      test(`${name} from an address that is not the peer's changes nothing`, () => {
        const [host, connection] = enter(pair, state, role)
        const mad = emitCm(messageFor(host, connection, name))
        pair.lose()
        host.events()
        const timer = host.engine.nextTimeout()
        host.engine.onMad(mad, pathTo(host.number, STRANGER), pair.now)
        assert.equal(connection.state, state)
        assert.equal(host.engine.nextTimeout(), timer)
        assert.deepEqual(host.events(), [])
        assert.ok(
          pair.collect().every(({ to }) => to === STRANGER),
          'only the stranger is answered',
        )
      })
    }
  })
