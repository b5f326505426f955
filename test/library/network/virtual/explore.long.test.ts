/*
 * Virtual time at length: 1,000 seeds twice, and very many connections.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { connect, createNetwork, listen, open } from '../../../../src/library/index.ts'
import { startEcho, talk } from './echo.ts'

test('1,000 seeds give the same twice', async () => {
  const network = createNetwork({ clock: 'virtual' })
  const run = async (): Promise<unknown> => {
    const hash = createHash('sha256')
    const explored = await network.explore(
      async given => {
        const echo = await startEcho(given)
        await talk(echo, 10)
        hash.update(JSON.stringify([given.now(), echo.left.counters(), echo.right.counters()]))
        await echo.end()
      },
      { seeds: 1000 },
    )
    return { explored, hash: hash.digest('hex') }
  }
  const first = await run()
  assert.deepEqual(await run(), first)
})

test('2,000 connections are made, used and idle for a minute', async () => {
  const network = createNetwork({ clock: 'virtual', fault: 'drop=1%' })
  const [left, right] = [await open({ network }), await open({ network })]
  const server = await listen('rdma://0.0.0.0:7471', { device: left })
  const echo = async (request: Awaited<ReturnType<typeof server.poll>>): Promise<void> => {
    const messages = await (await request!.accept()).messages({ slotBytes: 64 })
    for await (const message of messages) await messages.send(message)
  }
  const serving = (async () => {
    for await (const request of server) echo(request).catch(() => {})
  })()
  const all = await Promise.all(
    Array.from({ length: 2000 }, async () => {
      const connection = await connect(`rdma://${left.address}:7471`, { device: right })
      return connection.messages({ slotBytes: 64 })
    }),
  )
  const answers = await Promise.all(
    all.map(async (messages, i) => {
      await messages.send(Uint8Array.of(i))
      return (await messages.receive())[0] === (i & 0xff)
    }),
  )
  assert.ok(answers.every(Boolean))
  await network.sleep(60_000)
  await server.close({ signal: AbortSignal.abort() })
  await left.close()
  await right.close()
  await serving
})
