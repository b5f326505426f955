/*
 * 200 killed programs of rdma_cm, and 5,000 requests that end at the same time.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { isEmpty, lacking, startDaemon } from '../programs.ts'
import { killInEveryState } from './killed-rdmacm.ts'
import { UCMA_PROGRAM, UcmaProgram } from './ucma.ts'

const PORT = 7471
const REQUESTS = 5000
/** killed-rdmacm.ts has five states. */
const ROUNDS = 40

describe('killed programs', { skip: lacking(UCMA_PROGRAM) }, () => {
  it('leave nothing: 200 killed in several states', async t => {
    await killInEveryState(t, await startDaemon(t), ROUNDS)
  })

  it('reject their requests that are not accepted: 5,000', async t => {
    const daemon = await startDaemon(t)
    const [server, client] = [await UcmaProgram.start(t, daemon), await UcmaProgram.start(t, daemon)]
    const listener = await server.create()
    await server.bind(listener, PORT)
    await server.listen(listener, REQUESTS)
    const FIRST_QPN = 0x1000
    for (let qpn = FIRST_QPN; qpn < FIRST_QPN + REQUESTS; qpn++) {
      const id = await client.create()
      await client.resolve(id, PORT)
      await client.until('ROUTE_RESOLVED')
      assert.ok((await client.connect(id, qpn)) >= 0)
      await server.until('CONNECT_REQUEST')
    }
    // Two of each connection, and the listener.
    assert.equal((await daemon.stat()).connections.identifiers, 2 * REQUESTS + 1)
    server.running.child.kill('SIGKILL')
    for (let i = 0; i < REQUESTS; i++) await client.until('REJECTED')
    client.running.child.kill('SIGKILL')
    await daemon.settled(stat => isEmpty(stat) && stat.connections.connections === 0)
  })
})
