/*
 * Queue pair 1 of soft devices in this process (IBA 13.5).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { GRH_BYTES, GSI_QKEY } from '../../../../src/library/index.ts'
import { closeAll, completionText, nextCompletion, openTwoInProcess, resourcesOn } from '../endpoints.ts'

test('queue pairs of the general services exchange datagrams', async () => {
  const [one, two] = await openTwoInProcess()()
  const [a, b] = [resourcesOn(one), resourcesOn(two)]
  const sender = a.pd.gsiQp({ sendCq: a.cq, active: true })
  const receiver = b.pd.gsiQp({ sendCq: b.cq })
  receiver.activate()
  assert.deepEqual([sender.qpn, receiver.qpn, receiver.state, receiver.query().qkey], [1, 1, 'RTS', GSI_QKEY])
  // A port has only one GSI queue pair.
  assert.throws(() => b.pd.gsiQp({ sendCq: b.cq }), { code: 'EINVAL', call: 'pd.gsiQp' })

  receiver.receive(b.mr.slice(), 3)
  const ah = a.pd.addressHandle({ gid: two.address })
  sender.send(Uint8Array.of(7), { ah, qpn: receiver.qpn, qkey: GSI_QKEY }, { id: 2 })
  assert.equal(await completionText(a.cq), '2 SEND')
  const { id, bytes, sourceQpn } = await nextCompletion(b.cq)
  assert.deepEqual([id, bytes, sourceQpn, b.buffer[GRH_BYTES]], [3, GRH_BYTES + 1, 1, 7])
  await closeAll(a, b)
})
