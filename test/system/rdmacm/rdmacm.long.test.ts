/*
 * Thousands of connections (R44): librdmacm's benchmark cmtime, and the TypeScript library in one process.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { type Connection, connect, createNetwork, listen, open } from '../../../src/library/index.ts'
import { isEmpty, lacking, startDaemon, suiteScope, type TestDaemon } from '../programs.ts'
import { assertGoodRdmacm, runRdmacm } from './rdmacm.ts'

describe('thousands of connections by librdmacm', { skip: lacking('cmtime') }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite)
  })

  for (const count of [1000, 5000])
    it(`cmtime makes ${count}`, async t => {
      const cmtime = {
        server: `cmtime -b SERVER -p PORT -c ${count}`,
        client: `cmtime -s SERVER -p PORT -c ${count}`,
        isServerEndless: true,
      } as const
      assertGoodRdmacm(cmtime, await runRdmacm(t, daemon, cmtime))
    })

  it('leave nothing behind', async () => {
    await daemon.settled(isEmpty)
  })
})

it('one process can have 10,000 connections of the TypeScript library', async () => {
  const network = createNetwork()
  const [serverDevice, clientDevice] = [await open({ network }), await open({ network })]
  const server = await listen('rdma://0.0.0.0:7471', { device: serverDevice })
  const accepted: Promise<Connection>[] = []
  const serving = (async () => {
    for await (const request of server) accepted.push(request.accept())
  })()
  const url = `rdma://${serverDevice.address}:${server.port}`
  const clientSide: Connection[] = []
  const connectHundred = async (): Promise<void> => {
    for (let i = 0; i < 100; i++) clientSide.push(await connect(url, { device: clientDevice }))
  }
  await Promise.all(Array.from({ length: 100 }, connectHundred))
  const serverSide = await Promise.all(accepted)
  assert.deepEqual([clientSide.length, serverSide.length], [10_000, 10_000])
  await clientSide[5000]!.qp.ping()
  const endings = serverSide.map(({ closed }) => closed)
  for (const connection of clientSide) await connection.close()
  assert.ok((await Promise.all(endings)).every(ending => ending === 'peer'))
  for (const connection of serverSide) await connection.close()
  await server.close()
  await serving
  await serverDevice.close()
  await clientDevice.close()
})
