/*
 * A send that waits for a receive of its peer, on a checked device: the finding comes after a second, whether or not
 * the peer is checked. In virtual time.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { connect, createNetwork, type Finding, listen, open } from '../../../src/library/index.ts'
import { lineOf, markedLines } from './marks.ts'

/** Two connected ends, and the findings about each, with the milliseconds at which they came. */
const ends = async (checksPeer = false) => {
  const network = createNetwork({ clock: 'virtual', seed: 1 })
  const told: { ms: number; finding: Finding }[] = []
  const check = {
    notes: true,
    onFinding: (finding: Finding) => void (finding.id !== 'leak' && told.push({ ms: network.now(), finding })),
  }
  const sender = await open({ network, check })
  const receiver = await open({ network, ...(checksPeer && { check }) })
  const [pd, peerPd] = [sender.pd(), receiver.pd()]
  const [qp, peer] = [pd.rcQp(), peerPd.rcQp()]
  qp.connect(peer.endpoint)
  peer.connect(qp.endpoint)
  const receive = () => peer.receive(peerPd.register(new Uint8Array(8)).slice())
  const close = async (): Promise<void> => {
    await sender.close()
    await receiver.close()
  }
  return { network, told, sender, receiver, qp, peer, receive, close }
}

for (const checksPeer of [false, true])
  test(`a send without a receive is told once, after a second: the peer is ${checksPeer ? '' : 'not '}checked`, async () => {
    const { network, told, qp, peer, receive, close } = await ends(checksPeer)
    const sent = qp.send(Uint8Array.of(1)) // FAULT stall
    await network.sleep(5000)
    const about = told.map(({ ms, finding: { id, severity } }) => [Math.round(ms / 100), id, severity])
    assert.deepEqual(about, [[10, 'endless-rnr', 'warning']])
    const { text, moments } = told[0]!.finding
    assert.equal(
      text,
      `QP 0x${qp.qpn.toString(16)}: SEND wr_id 1 waits without limit for a receive (rnr_retry 7): the peer, QP 0x${peer.qpn.toString(16)}, has posted 0 receives, and 0 messages came for them`,
    )
    assert.deepEqual([lineOf(moments[0]?.stack[0])], markedLines('stalls.test.ts', '// FAULT stall'))
    const received = receive()
    await Promise.all([sent, received])
    await close()
  })

test('a later message that waits is told too, and none that waits for less than a second', async () => {
  const { network, told, qp, receive, close } = await ends()
  const received = receive()
  await Promise.all([qp.send(Uint8Array.of(1)), received])
  const second = qp.send(Uint8Array.of(2))
  await network.sleep(900)
  await Promise.all([second, receive()])
  assert.deepEqual(told, [])
  const third = qp.send(Uint8Array.of(3))
  await network.sleep(1100)
  assert.deepEqual(
    told.map(({ finding: { id, text } }) => [id, /posted 2 receives, and 2 messages/.test(text)]),
    [['endless-rnr', true]],
  )
  await Promise.all([third, receive()])
  await close()
})

test('a peer that takes messages of a connection later is no mistake', async () => {
  const { network, told, sender, receiver, close } = await ends()
  const server = await listen({ host: '0.0.0.0', port: 0 }, { device: receiver })
  const accepted = server.wait().then(() => server.poll()?.accept())
  const connection = await connect({ host: receiver.address, port: server.port }, { device: sender })
  const peer = await accepted
  const sending = connection.messages().then(messages => messages.send(Uint8Array.of(1)))
  await network.sleep(3000)
  const messages = await peer!.messages()
  for await (const message of messages) {
    assert.deepEqual([...message], [1])
    break
  }
  await sending
  assert.deepEqual(told, [])
  await close()
})
