/*
 * A tool's session with a simulated daemon.
 */
import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { privateFolder, removeFolder } from '../../../src/cli/paths.ts'
import { NoDaemonError } from '../../../src/daemon/client/errors.ts'
import { openToolSession } from '../../../src/daemon/client/tool-session.ts'
import { type Watch, watch } from '../../../src/host/event-loop/poll.ts'
import { accept, close, listen, recv, send } from '../../../src/host/net/sockets.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { Messages, MessageType, SESSION_VERSION } from '../../../src/spec/session.ts'
import {
  messageBuffer,
  newRequest,
  type Request,
  readRequest,
  writeHelloReply,
  writeToolReply,
  writeTrace,
} from '../../../src/uapi/session-codec.ts'

type Answer = (request: Request, send: (length: number) => void, hangUp: () => void) => void

describe('a tool’s session', () => {
  let folder: string
  let stop = (): void => {}
  const out = messageBuffer()

  const serve = (answer: Answer): string => {
    const socket = join(folder, 'sock')
    const listening = listen(socket)
    const sessions = new Map<number, Watch>()
    const hangUp = (fd: number): void => {
      sessions.get(fd)?.stop()
      if (sessions.delete(fd)) close(fd)
    }
    const listener = watch(listening, { readable: true }, () => {
      for (let fd = accept(listening); fd >= 0; fd = accept(listening)) {
        const session = fd
        const incoming = messageBuffer()
        const onReadable = (): void => {
          const { length, fds } = recv(session, incoming.bytes)
          for (const passed of fds) closeSync(passed)
          if (length <= 0) {
            hangUp(session)
            return
          }
          const request = newRequest()
          assert.equal(readRequest(incoming, length, request), undefined)
          answer(
            request,
            size => void send(session, out.bytes.subarray(0, size)),
            () => hangUp(session),
          )
        }
        sessions.set(session, watch(session, { readable: true }, onReadable))
      }
    })
    stop = () => {
      listener.stop()
      close(listening)
      for (const fd of [...sessions.keys()]) hangUp(fd)
    }
    return socket
  }

  const hello: Answer = (request, send) => send(writeHelloReply(out, request, { error: 0, root: '/r' }))
  const afterHello =
    (tool: Answer): Answer =>
    (request, send, hangUp) =>
      (request.type === MessageType.HELLO ? hello : tool)(request, send, hangUp)

  beforeEach(() => {
    folder = privateFolder()
  })
  afterEach(() => {
    stop()
    stop = () => {}
    removeFolder(folder)
  })

  it('reports the path of the socket if no daemon listens', async () => {
    await assert.rejects(openToolSession(join(folder, 'none')), error => {
      assert.ok(error instanceof NoDaemonError)
      assert.match(error.message, /^no daemon at .*none; start one with `userdma daemon --socket \/.*none`$/)
      return true
    })
  })

  it('treats a daemon that disconnects before it answers as absent', async () => {
    await assert.rejects(openToolSession(serve((_request, _send, hangUp) => hangUp())), NoDaemonError)
  })

  it('refuses a daemon of another version', async () => {
    const socket = serve((request, send) => {
      const length = writeHelloReply(out, request, { error: 0, root: '/r' })
      const versionOffset = Messages.header.size
      out.view.setUint32(versionOffset, 77, true)
      send(length)
    })
    const message = new RegExp(`has version 77 of the session protocol, this program ${SESSION_VERSION};`)
    await assert.rejects(openToolSession(socket), message)
  })

  it('reports why a daemon refuses', async () => {
    const refusing = (error: number): string =>
      serve((request, send) => send(writeHelloReply(out, request, { error, root: '' })))
    await assert.rejects(openToolSession(refusing(Errno.EPROTO)), /refused the session: EPROTO/)
    stop()
    const user = process.geteuid?.()
    await assert.rejects(openToolSession(refusing(Errno.EPERM)), {
      message: `the daemon at ${join(folder, 'sock')} does not serve user ${user}; root's daemon does if it is started with \`--allow-user ${user}\``,
    })
  })

  it('works although the daemon may not read the tool’s memory', async () => {
    const socket = serve((request, send) => send(writeHelloReply(out, request, { error: Errno.EACCES, root: '' })))
    const client = await openToolSession(socket)
    client.close()
  })

  it('refuses malformed messages', async () => {
    const socket = serve((_request, send) => send(20))
    await assert.rejects(openToolSession(socket), /sent an invalid message: /)
  })

  it('gets answers, refusals, and traced calls in order', async () => {
    const seen: number[] = []
    const record = (pid: number): string => JSON.stringify({ id: 1, change: { pid } })
    const client = await openToolSession(
      serve(
        afterHello((request, send) => {
          const { kind } = JSON.parse(request.text) as { kind: string }
          if (kind === 'subscribe') {
            send(writeToolReply(out, request, '{"subscribed":1}'))
            return
          }
          send(writeTrace(out, record(1)))
          send(writeTrace(out, record(2)))
          const text =
            kind === 'config' ? '{"config":{"devices":[],"fault":"","link":"memory"}}' : '{"error":"not today"}'
          send(writeToolReply(out, request, text))
          send(writeTrace(out, record(3)))
        }),
      ),
      { onTrace: ({ pid }) => seen.push(pid) },
    )
    await client.trace('')
    assert.deepEqual(await client.config(), { devices: [], fault: '', link: 'memory' })
    assert.deepEqual(seen.slice(0, 2), [1, 2])
    await assert.rejects(client.stat(), /refuses the request stat: not today/)
    assert.deepEqual(seen.slice(0, 5), [1, 2, 3, 1, 2])
    client.close()
    await client.ended
    await assert.rejects(client.stat(), NoDaemonError)
  })

  for (const [what, isBefore] of [
    ['an unread request', true],
    ['no request', false],
  ] as const)
    it(`gets the records that a daemon sent before it ended with ${what}`, async () => {
      const seen: number[] = []
      let end = (): void => {}
      const socket = serve(
        afterHello((request, send, hangUp) => {
          send(writeToolReply(out, request, '{"subscribed":1}'))
          end = () => {
            for (const pid of [1, 2]) send(writeTrace(out, JSON.stringify({ id: 1, change: { pid } })))
            hangUp()
          }
        }),
      )
      const client = await openToolSession(socket, { onTrace: ({ pid }) => seen.push(pid) })
      await client.trace('tag')
      if (!isBefore) end()
      const status = client.traceStatus()
      if (isBefore) end()
      await assert.rejects(status, NoDaemonError)
      assert.deepEqual(seen, [1, 2])
    })

  it('refuses a request that does not fit in a message, and continues', async () => {
    const socket = serve(afterHello((request, send) => send(writeToolReply(out, request, '{"faults":[]}'))))
    const client = await openToolSession(socket)
    await assert.rejects(client.faults('x'.repeat(70_000)), /^Error: the request to .* is longer than 65536 bytes$/)
    assert.deepEqual(await client.faults(), [])
    client.close()
  })

  it('fails outstanding requests and closes when the daemon ends', async () => {
    const client = await openToolSession(serve(afterHello((_request, _send, hangUp) => hangUp())))
    await assert.rejects(client.stat(), /\(process \d+\) ended/)
    await client.ended
  })
})
