/*
 * `serve`: several clients, back-pressure, exceptions of the program's functions, and the end.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import {
  connect,
  createNetwork,
  type Device,
  type MessageHandler,
  type MessageServer,
  type Messages,
  type MessagesOptions,
  RdmaError,
  type ServeOptions,
  serve,
} from '../../../../src/library/index.ts'
import { uncaughtDuring } from '../../../uncaught.ts'
import { eachCarrier, openTwoInProcess } from '../../verbs/endpoints.ts'
import { untyped } from '../../verbs/mistakes/mistakes.ts'

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString()
const bytes = (of: string): Uint8Array => Buffer.from(of)

interface Serving {
  readonly server: MessageServer
  client(options?: MessagesOptions): Promise<Messages>
  close(): Promise<void>
}

/** A server on the first device; clients on the second. */
const serving = async (
  [device, clients]: readonly [Device, Device],
  onMessage: MessageHandler,
  options: Partial<ServeOptions> = {},
): Promise<Serving> => {
  const server = await serve({ address: { host: '0.0.0.0', port: 0 }, device, ...options }, onMessage)
  const client = async (messagesOptions: MessagesOptions = {}): Promise<Messages> => {
    const connection = await connect({ host: device.address, port: server.port }, { device: clients })
    return connection.messages(messagesOptions)
  }
  const close = async (): Promise<void> => {
    await server.close({ signal: AbortSignal.abort() })
    await clients.close()
    await device.close()
  }
  return { server, client, close }
}

const ask = async (messages: Messages, question: string): Promise<string> => {
  await messages.send(bytes(question))
  return text(await messages.receive())
}

/** A promise, and the function that resolves it. */
const gate = () => {
  let open = (): void => {}
  const opened = new Promise<void>(resolve => {
    open = resolve
  })
  return { opened, open }
}

/** What ends the loop of a client: its `cause`, or undefined if it ends in order. */
const endOf = async (messages: Messages): Promise<{ code: string; reason: string } | undefined> => {
  try {
    for await (const _ of messages);
    return undefined
  } catch (error) {
    assert.equal((error as RdmaError).code, 'ERR_CLOSED')
    const { code, reason } = (error as RdmaError).cause as RdmaError
    return { code, reason }
  }
}

eachCarrier(openTwo => {
  test('each client gets the answers to its messages in order, and what the server sends besides', async () => {
    const { server, client, close } = await serving(
      await openTwo(),
      async (message, from) => {
        if (text(message) === 'twice') await from.send(bytes('first'))
        return text(message) === 'silence' ? undefined : bytes(text(message).toUpperCase())
      },
      { onClient: from => from.send(bytes('welcome')) },
    )
    const clients = await Promise.all([client(), client(), client()])
    for (const messages of clients) assert.equal(text(await messages.receive()), 'welcome')
    assert.equal(server.clients.size, 3)
    const answers = await Promise.all(
      clients.map(async (messages, i) => {
        const questions = Array.from({ length: 30 }, (_, n) => `call ${i} ${n}`)
        await messages.send(bytes('silence'))
        const received: string[] = []
        await Promise.all([
          (async () => {
            while (received.length < questions.length) received.push(text(await messages.receive()))
          })(),
          ...questions.map(question => messages.send(bytes(question))),
        ])
        return received
      }),
    )
    assert.deepEqual(
      answers,
      clients.map((_, i) => Array.from({ length: 30 }, (__, n) => `CALL ${i} ${n}`)),
    )
    const [one] = clients
    assert.equal(await ask(one, 'twice'), 'first')
    assert.equal(text(await one.receive()), 'TWICE')
    assert.equal(await ask(one, 'x'.repeat(100_000)), 'X'.repeat(100_000))
    for (const from of server.clients) await from.send(bytes('to all'))
    for (const messages of clients) assert.equal(text(await messages.receive()), 'to all')
    await one.end()
    assert.equal(await endOf(one), undefined, 'the server ends too')
    await one.closed
    while (server.clients.size > 2) await nextTurn()
    await close()
  })
})

const inProcess = openTwoInProcess()

test('a client whose message is handled waits, and others do not', async () => {
  const { opened, open } = gate()
  const taken: string[] = []
  const { client, close } = await serving(await inProcess(), async message => {
    taken.push(text(message))
    if (text(message).startsWith('slow')) await opened
    return message
  })
  const [slow, fast] = await Promise.all([client(), client()])
  let sent = 0
  const sends = Array.from({ length: 100 }, (_, i) => slow.send(bytes(`slow ${i}`)).then(() => sent++))
  for (let i = 0; i < 50; i++) assert.equal(await ask(fast, `fast ${i}`), `fast ${i}`)
  assert.deepEqual(
    taken.filter(message => message.startsWith('slow')),
    ['slow 0'],
  )
  assert.ok(sent < 30, `as many as fit the receive buffers, and not ${sent}`)
  open()
  for (let i = 0; i < 100; i++) assert.equal(text(await slow.receive()), `slow ${i}`)
  await Promise.all(sends)
  await close()
})

test('a client that takes no answers is served no further, and others are', async () => {
  const taken: string[] = []
  const { client, close } = await serving(await inProcess(), message => {
    taken.push(text(message))
    return message
  })
  const [deaf, other] = await Promise.all([client(), client()])
  const sends = Array.from({ length: 200 }, (_, i) => deaf.send(bytes(`deaf ${i}`)).catch(() => {}))
  for (let i = 0; i < 50; i++) assert.equal(await ask(other, `other ${i}`), `other ${i}`)
  assert.ok(taken.filter(message => message.startsWith('deaf')).length < 100)
  await close()
  await Promise.all(sends)
})

const mistakes: Readonly<Record<string, readonly [handler: MessageHandler, reason: RegExp]>> = {
  'a thrown error': [
    () => {
      throw new Error('mine')
    },
    /mine/,
  ],
  'a rejected promise': [async () => Promise.reject(new TypeError('later')), /later/],
  'a result that is not bytes': [untyped<MessageHandler>(() => 'text'), /the result of onMessage: "text" is not/],
  'an answer that is too long for the client': [() => new Uint8Array(2000), /2000 bytes/],
}

for (const [name, [mistake, reason]] of Object.entries(mistakes))
  test(`${name} disconnects the client, which is told why; others are served`, async () => {
    const errors: [unknown, string][] = []
    const { server, client, close } = await serving(
      await inProcess(),
      (message, from) => (text(message) === 'fail' ? mistake(message, from) : message),
      { onError: (error, from) => errors.push([error, from?.connection.remoteAddress ?? '']) },
    )
    const [one, other] = await Promise.all([client({ maxMessageBytes: 1000 }), client()])
    const { remoteAddress } = [...server.clients][0]!.connection
    await one.send(bytes('fail'))
    const end = await endOf(one)
    assert.equal(end?.code, 'ECONNABORTED')
    assert.match(end?.reason ?? '', reason)
    assert.equal(errors.length, 1)
    const [error, from] = errors[0]!
    assert.match(String(error), reason)
    assert.equal(from, remoteAddress)
    assert.equal(await ask(other, 'hello'), 'hello')
    await close()
  })

test('an exception of onClient disconnects the client, one of onError is uncaught; without onError there is a warning', async () => {
  const first = await serving(await inProcess(), message => message, {
    onClient: () => {
      throw new Error('not you')
    },
    onError: () => {
      throw new Error('of onError')
    },
  })
  const uncaught = await uncaughtDuring(async () => {
    assert.equal((await endOf(await first.client()))?.reason.includes('not you'), true)
  })
  assert.deepEqual(uncaught, ['of onError'])
  await first.close()

  const warnings: Error[] = []
  const onWarning = (warning: Error): void => void warnings.push(warning)
  process.on('warning', onWarning)
  const second = await serving(await inProcess(), () => {
    throw new Error('mine')
  })
  const client = await second.client()
  await client.send(bytes('x'))
  await endOf(client)
  while (warnings.length === 0) await nextTurn()
  process.off('warning', onWarning)
  assert.match(warnings[0]!.message, /^serve: client 127\.0\.0\.\d+:\d+ was disconnected: Error: mine$/)
  await second.close()
})

test('a client that leaves while its message is handled is no error', async () => {
  const { opened, open } = gate()
  const errors: unknown[] = []
  const { server, client, close } = await serving(await inProcess(), () => opened.then(() => bytes('late')), {
    onError: error => errors.push(error),
  })
  const leaving = await client()
  await leaving.send(bytes('x'))
  await leaving.close()
  open()
  while (server.clients.size > 0) await nextTurn()
  assert.deepEqual(errors, [])
  await close()
})

test('close: the answer in progress arrives, all clients end in order, no other client comes', async () => {
  const [taken, finished] = [gate(), gate()]
  const { server, client, close } = await serving(await inProcess(), async message => {
    taken.open()
    await finished.opened
    return message
  })
  const [busy, idle] = await Promise.all([client(), client()])
  await busy.send(bytes('last'))
  await taken.opened
  const closing = server.close()
  assert.equal(await endOf(idle), undefined)
  await assert.rejects(client(), { code: 'ECONNREFUSED' })
  finished.open()
  assert.equal(text(await busy.receive()), 'last')
  assert.equal(await endOf(busy), undefined)
  await closing
  assert.equal(server.clients.size, 0)
  await close()
})

test('close with a signal, and the end of a block, abort what is left, also a function that never returns', async () => {
  for (const isBlock of [false, true]) {
    const { server, client, close } = await serving(await inProcess(), () => new Promise(() => {}))
    const messages = await client()
    await messages.send(bytes('x'))
    while (server.clients.size === 0) await nextTurn()
    await nextTurn()
    if (isBlock) await server[Symbol.asyncDispose]()
    else {
      const controller = new AbortController()
      const closing = server.close({ signal: controller.signal })
      controller.abort()
      await closing
    }
    assert.deepEqual(await endOf(messages), {
      code: 'ECONNABORTED',
      reason: 'the server was closed',
    })
    await close()
  }
})

test('in virtual time: an idle server holds nothing up, and its clients may come after an hour', async () => {
  const network = createNetwork({ clock: 'virtual', seed: 1 })
  const { client, close } = await serving(await openTwoInProcess(network)(), message => message)
  await network.sleep(3_600_000)
  assert.equal(await ask(await client(), 'hello'), 'hello')
  await close()
})

test('wrong options are refused before anything listens', async () => {
  const [device, other] = await inProcess()
  const right = { address: 'rdma://0.0.0.0:0', device }
  const refused: readonly [unknown, unknown, RegExp][] = [
    [undefined, () => {}, /options undefined/],
    [{ device }, () => {}, /url/],
    [{ ...right, adress: 1 }, () => {}, /adress/],
    [right, undefined, /onMessage/],
    [{ ...right, onError: 3 }, () => {}, /onError/],
    [{ ...right, messages: { slotBytes: 1 } }, () => {}, /slotBytes 1/],
    [{ ...right, accept: { retryCount: 99 } }, () => {}, /retryCount 99/],
    [{ ...right, accept: { signal: AbortSignal.abort() } }, () => {}, /signal/],
  ]
  for (const [options, onMessage, reason] of refused)
    await assert.rejects(
      serve(untyped<ServeOptions>(options), untyped<MessageHandler>(onMessage)),
      (error: unknown) => error instanceof RdmaError && error.code === 'EINVAL' && reason.test(error.message),
      String(reason),
    )
  await device.close()
  await other.close()
})
