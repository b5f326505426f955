/*
 * Opening nodes, with a client and a daemon of the test.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createContainment } from '../../../src/daemon/containment.ts'
import type { Client } from '../../../src/daemon/session/client.ts'
import { NodeOpening, type OpenParts } from '../../../src/daemon/session/open-nodes.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { MessageType } from '../../../src/spec/session.ts'
import { messageBuffer, newReply, newRequest, readReply } from '../../../src/uapi/session-codec.ts'

test('OPEN is answered EIO if the wait for earlier contexts of the user fails', async () => {
  const outgoing = messageBuffer()
  const reports: unknown[] = []
  const reply = newReply()
  let answered: Promise<void> | undefined
  const client = {
    request: { ...newRequest(), type: MessageType.OPEN },
    outgoing,
    account: { user: 0 },
    isClosed: false,
    answerLater(_header: unknown, answer: Promise<void>) {
      answered = answer
    },
    reply: (length: number) => assert.equal(readReply(outgoing, length, reply), undefined, 'the reply is malformed'),
  } as unknown as Client
  const daemon = {
    untilContextsDestroyed: () => Promise.reject(new Error('a fault of the test')),
    containment: createContainment((...words) => reports.push(words)),
  } as unknown as OpenParts
  new NodeOpening(client, daemon, () => {}).open()
  await answered
  assert.deepEqual([reply.type, reply.error], [MessageType.REPLY | MessageType.OPEN, Errno.EIO])
  assert.equal(reports.length, 1)
})
