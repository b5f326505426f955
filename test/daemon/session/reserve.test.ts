/*
 * Connections and calls while the daemon has no free descriptors, and calls that create too many. This process is both
 * daemon and client.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { startDaemon } from '../../../src/daemon/daemon.ts'
import { Interface } from '../../../src/spec/classes/device/interface.ts'
import { CompChannel } from '../../../src/spec/classes/events/comp_channel.ts'
import { Pd } from '../../../src/spec/classes/pd.ts'
import { Errno } from '../../../src/spec/errno.ts'
import type { TraceRecord } from '../../../src/spec/records.ts'
import { SessionLimits } from '../../../src/spec/session.ts'
import type { Call } from '../../../src/uapi/call.ts'
import { encodeChain } from '../../../src/uapi/object/chain.ts'
import { encodeCall } from '../../../src/uapi/object/client.ts'
import { ioctlRequest } from '../../../src/uapi/object/format.ts'
import { takeDescriptors } from '../../soft-limits.ts'
import { scratchFolder } from '../../tools.ts'
import { type Client, Command, CommandBytes, daemonOf, dial } from '../client.ts'

const folder = scratchFolder()

/** Takes all descriptors; the returned function releases them. */
const takeAll = (t: TestContext): (() => void) => {
  const { release } = takeDescriptors()
  t.after(release)
  return release
}

test('a connection without free descriptors is refused with EMFILE, a later connection is served', async t => {
  const lines: string[] = []
  const daemon = await startDaemon({
    socket: join(folder, 'sock'),
    config: { devices: [{ name: 'rxe0', address: '127.0.0.1' }], fault: '', link: 'memory' },
    endWithLastClient: false,
    parts: { log: (...words) => lines.push(words.join(' ')) },
  })
  t.after(() => daemon.close())
  // The daemon accepts these connections only after the descriptors are taken.
  const clients = [dial(t, daemon), dial(t, daemon), dial(t, daemon)]
  const release = takeAll(t)
  for (const client of clients) {
    assert.equal((await client.hello()).error, Errno.EMFILE)
    assert.equal(await client.next(), undefined, 'the connection is hung up')
  }
  // Only refusals 1, 2, 4, 8 … are logged.
  assert.deepEqual(
    lines.map(line => /no descriptors left.*EMFILE(, 2 so far)?; end some programs.*ulimit -n/.test(line)),
    [true, true],
  )
  release()
  const late = dial(t, daemon)
  assert.equal((await late.hello()).error, 0)
})

test('a call that gets no descriptor is traced as refused', async t => {
  const daemon = await daemonOf(t, folder)
  const tool = dial(t, daemon)
  await tool.hello()
  await tool.tool({ kind: 'subscribe', topic: 'trace', tag: '', pcap: false })
  const client = dial(t, daemon)
  await client.hello()
  // GET_CONTEXT creates the descriptor of asynchronous events.
  const context = await client.context()
  // The next message publishes the trace record of GET_CONTEXT.
  await client.refresh()
  const release = takeAll(t)
  assert.equal((await client.command(context, Command.CREATE_COMP_CHANNEL, [], 1)).ret, -Errno.EMFILE)
  release()
  await client.refresh()
  const traced: unknown[] = []
  while (traced.length < 2) {
    const { change } = JSON.parse((await tool.next())?.text ?? '') as { change: TraceRecord }
    const { call, ret, reason, descriptors } = change
    if (call !== undefined) traced.push([ret, reason !== undefined, descriptors?.map(({ fd }) => typeof fd)])
  }
  assert.deepEqual(traced, [
    [CommandBytes.GET_CONTEXT, false, ['number']],
    [-Errno.EMFILE, true, undefined],
  ])
})

/**
 * Sends a chain that creates a protection domain and `channels` completion channels; resolves with its return value.
 */
const createByChain = (client: Client, context: number, channels: number): Promise<number> => {
  const { memory } = client
  const [entriesAt, resultsAt, reasonAt] = [4096, 16384, 32768]
  const addressOf = (offset: number): bigint => BigInt(memory.address + offset)
  const pd: Call = { class: Pd, methodName: 'create', method: Pd.methods.create, object: 0, args: {} }
  const channel: Call = { ...pd, class: CompChannel, method: CompChannel.methods.create }
  const entries = encodeChain([{ call: pd }, ...Array.from({ length: channels }, () => ({ call: channel }))])
  const call: Call = {
    ...pd,
    class: Interface,
    methodName: 'chain',
    method: Interface.methods.chain,
    args: { entries, onError: 0 },
  }
  memory.bytes.set(entries, entriesAt)
  const message = encodeCall(call, {
    inputAddresses: { entries: addressOf(entriesAt) },
    outputBuffers: {
      results: { address: addressOf(resultsAt), length: 4096 },
      reason: { address: addressOf(reasonAt), length: 256 },
    },
  })
  memory.bytes.set(message, 0)
  return client.ioctl(context, ioctlRequest(call.method.call), addressOf(0))
}

test('a chain whose descriptors cannot be delivered is refused, and nothing of it remains', async t => {
  const client = dial(t, await daemonOf(t, folder))
  await client.hello()
  const context = await client.context()
  const objects = async () => (await client.stat()).devices[0]!.objects
  const before = await objects()
  assert.equal(await createByChain(client, context, SessionLimits.descriptors + 1), -Errno.EMFILE)
  assert.deepEqual(await objects(), before, 'too many for one reply')
  const release = takeAll(t)
  assert.equal(await createByChain(client, context, 1), -Errno.EMFILE)
  release()
  assert.deepEqual(await objects(), before, 'none is free')
  assert.equal(await createByChain(client, context, SessionLimits.descriptors), 0)
  assert.deepEqual(await objects(), { ...before, pd: 1, comp_channel: SessionLimits.descriptors })
})

test('GET_CONTEXT can be repeated after it got no descriptor', async t => {
  const client = dial(t, await daemonOf(t, folder))
  await client.hello()
  const { context, descriptors } = await client.open()
  client.keep(descriptors)
  const release = takeAll(t)
  assert.equal((await client.command(context, Command.GET_CONTEXT, [], 2)).ret, -Errno.EMFILE)
  release()
  const { ret, fds } = await client.command(context, Command.GET_CONTEXT, [], 2)
  client.keep(fds)
  assert.equal(ret, CommandBytes.GET_CONTEXT)
})
