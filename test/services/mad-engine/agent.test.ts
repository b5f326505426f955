/*
 * Requests and responses of an agent (IBA 13.4.6.4; Linux's mad.c).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { MadClass, MadMethod } from '../../../src/spec/wire/management.ts'
import { madFields, respond, tidHigh } from '../../../src/transport/wire/mad/management.ts'
import { gid } from '../cm-engine/pair.ts'
import { Pair, plainMad, SECOND, TID_LOW } from './pair.ts'

const { PERFORMANCE, SUBNET_ADMINISTRATION } = MadClass
const { GET } = MadMethod
/** Status of a response. */
const SUCCESS = 0
/** Responses are not answered, so an agent waits for nothing after it has sent one. */
const [NO_TIMEOUT, NO_RETRIES] = [0, 0]
const request = (tid: number) => plainMad(PERFORMANCE, GET, tid)

describe('an agent', () => {
  it('matches a response to its request by the transaction id, whose upper half names the agent', () => {
    const pair = new Pair()
    pair.send(pair.a, request(7))
    pair.settle()
    const message = pair.b.received[0]!.message
    assert.equal(tidHigh(madFields(message).tid), pair.a.host)
    pair.send(pair.b, respond(message, SUCCESS), NO_TIMEOUT, NO_RETRIES, 'response')
    assert.deepEqual(pair.b.ended, [['response', 'sent']])
    pair.settle()
    assert.deepEqual(pair.a.ended, [['message', 'answered']])
    assert.equal(pair.a.received.length, 1)
    assert.equal(pair.a.engine.outstanding, 0)
    // The request is finished: a second response matches no request.
    pair.send(pair.b, respond(message, SUCCESS), NO_TIMEOUT)
    pair.settle()
    assert.equal(pair.a.received.length, 1)
  })

  it('drops responses with another transaction id, of another class, or to another local address', () => {
    const pair = new Pair()
    pair.send(pair.a, request(7))
    const { mad } = pair.wire.pop()!
    const response = respond(mad, SUCCESS)
    const otherTransaction = response.slice()
    otherTransaction[TID_LOW + 3] = 8
    const otherClass = response.slice()
    // MgmtClass
    otherClass[1] = SUBNET_ADMINISTRATION
    const path = pair.pathOf(pair.a)
    pair.a.engine.onMad(otherTransaction, path, 0)
    pair.a.engine.onMad(otherClass, path, 0)
    pair.a.engine.onMad(response, { ...path, localGid: gid(9) }, 0)
    assert.equal(pair.a.received.length, 0)
    // A response may come from another port than the request's destination.
    pair.a.engine.onMad(response, { ...path, remoteGid: gid(9) }, 0)
    assert.equal(pair.a.received.length, 1)
  })

  it('reports a timeout after the configured number of retries', () => {
    const pair = new Pair()
    const retries = 3
    pair.send(pair.a, request(7), SECOND, retries)
    const sentAt: number[] = []
    do {
      const lost = pair.wire.splice(0)
      if (lost.length === 1) sentAt.push(pair.now / SECOND)
    } while (pair.tick())
    assert.deepEqual(sentAt, [0, 1, 2, 3])
    assert.deepEqual(pair.a.ended, [['message', 'timeout']])
    assert.equal(pair.now, 4 * SECOND)
  })

  it('refuses a second request, or a second response, with the class and transaction id of a waiting one', () => {
    const pair = new Pair()
    assert.equal(pair.send(pair.a, request(7)), true)
    assert.equal(pair.send(pair.a, request(7)), false)
    assert.equal(pair.send(pair.a, request(8)), true)
    assert.equal(pair.send(pair.a, plainMad(SUBNET_ADMINISTRATION, GET, 7)), true)
    const response = respond(request(7), SUCCESS)
    assert.equal(pair.send(pair.a, response), true)
    assert.equal(pair.send(pair.a, response), false)
    // Requesters choose their transaction ids: responses to different peers may have the same one.
    const toAnother = { ...pair.pathOf(pair.a), remoteGid: gid(9) }
    const options = { timeout: SECOND, retries: 0, tag: 'message' }
    assert.equal(pair.a.engine.send(response.slice(), toAnother, options, 0), true)
  })

  it('aborts waiting requests when it is closed', () => {
    const pair = new Pair()
    pair.send(pair.a, request(7), SECOND, 3)
    pair.a.engine.close()
    assert.deepEqual(pair.a.ended, [['message', 'aborted']])
    pair.wire.length = 0
    pair.tick()
    assert.equal(pair.wire.length, 0, 'no retransmission')
  })
})
