/*
 * Sockets between the daemon and programs: messages with descriptors.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import {
  chmodSync,
  closeSync,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { watch } from '../../../src/host/event-loop/poll.ts'
import { nativeLibraryPath } from '../../../src/host/library.ts'
import { createMemfd, fileIdentity } from '../../../src/host/memory/memfd.ts'
import {
  accept,
  close,
  connect,
  listen,
  MAX_FDS,
  MAX_MESSAGE,
  outstandingBytes,
  peerCredentials,
  peerPidfd,
  recv,
  recvBytes,
  recvGuarded,
  send,
  sendBytes,
  setBuffers,
  setSendTimeout,
  shutdown,
  socketPair,
} from '../../../src/host/net/sockets.ts'
import { closesOnExec } from '../../tools.ts'
import { startPeer } from '../peer-control.ts'

const folder = mkdtempSync(join(tmpdir(), 'userdma-sockets-'))
after(() => rmSync(folder, { recursive: true }))

const EPERM = 1
const EBADF = 9
const EAGAIN = 11
const EPIPE = 32
const EMSGSIZE = 90
const ENOPROTOOPT = 92
const ENOBUFS = 105

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const buffer = new Uint8Array(MAX_MESSAGE)
const openFds = (): number => readdirSync('/proc/self/fd').length

const pair = (t: { after(fn: () => void): void }): [number, number] => {
  const sockets = socketPair()
  t.after(() => {
    for (const fd of sockets) close(fd)
  })
  return sockets
}

test('messages arrive whole, in order, with their bounds', t => {
  const [a, b] = pair(t)
  assert.equal(send(a, bytes('one')), 3)
  assert.equal(sendBytes(a, bytes('three')), 5)
  assert.equal(send(a, new Uint8Array(1000).fill(9)), 1000)
  assert.equal(recvBytes(b, buffer), 3)
  assert.deepEqual(buffer.slice(0, 3), bytes('one'))
  assert.deepEqual(recv(b, buffer), { length: 5, fds: [] })
  assert.deepEqual(buffer.slice(0, 5), bytes('three'))
  assert.equal(recv(b, buffer).length, 1000)
  assert.ok(buffer.subarray(0, 1000).every(byte => byte === 9))
  assert.equal(recv(b, buffer).length, -EAGAIN)
  assert.equal(recvBytes(b, buffer), -EAGAIN)
})

test('after the end of the stream the reader gets length 0, and the writer -EPIPE without a signal', t => {
  const [a, b] = pair(t)
  send(a, bytes('last'))
  assert.equal(shutdown(a, 'write'), 0)
  assert.equal(recv(b, buffer).length, 4)
  assert.equal(recv(b, buffer).length, 0)
  assert.equal(recvBytes(b, buffer), 0)
  assert.equal(send(a, bytes('more')), -EPIPE)
  assert.equal(sendBytes(a, bytes('more')), -EPIPE)
})

test('an empty message is refused', t => {
  const [a] = pair(t)
  assert.throws(() => send(a, new Uint8Array(0)), RangeError)
  assert.throws(() => sendBytes(a, new Uint8Array(0)), RangeError)
})

test('a full socket answers -EAGAIN and outstanding bytes fall as the peer reads', t => {
  const [a, b] = pair(t)
  setBuffers(a, { send: 16384 })
  const message = new Uint8Array(1000)
  let sent = 0
  while (send(a, message) > 0) sent++
  assert.ok(sent > 0 && sent < 100, `${sent} messages`)
  assert.equal(send(a, message), -EAGAIN)
  const full = outstandingBytes(a)
  assert.ok(full >= sent * message.length)
  recv(b, buffer)
  assert.ok(outstandingBytes(a) < full)
  while (recv(b, buffer).length > 0);
  assert.equal(outstandingBytes(a), 0)
})

test('the longest message passes, a longer one is -EMSGSIZE', t => {
  const [a, b] = pair(t)
  setBuffers(a, { send: 1 << 20 })
  const long = new Uint8Array(MAX_MESSAGE).map((_, i) => i * 7)
  const sent = send(a, long)
  if (sent === -EMSGSIZE) {
    t.skip('net.core.wmem_max is too small')
    return
  }
  assert.equal(sent, MAX_MESSAGE)
  assert.equal(recv(b, buffer).length, MAX_MESSAGE)
  assert.deepEqual(buffer, long)
  assert.equal(send(a, new Uint8Array(MAX_MESSAGE + 1)), -EMSGSIZE)
})

test('a message longer than the buffer is dropped as a whole', t => {
  const [a, b] = pair(t)
  const small = new Uint8Array(4)
  for (const receive of [() => recv(b, small).length, () => recvBytes(b, small)]) {
    send(a, bytes('too long'))
    send(a, bytes('fits'))
    assert.equal(receive(), -EMSGSIZE)
    assert.equal(receive(), 4)
    assert.deepEqual(small, bytes('fits'))
  }
})

test('descriptors arrive as duplicates that close on exec', t => {
  const [a, b] = pair(t)
  for (const count of [1, 2, 3, MAX_FDS]) {
    const file = createMemfd('passed', 4096)
    const identity = fileIdentity(file)
    assert.equal(send(a, bytes('fd'), new Array(count).fill(file)), 2)
    close(file)
    const { length, fds } = recv(b, buffer)
    assert.equal(length, 2)
    assert.equal(new Set(fds).size, count)
    for (const fd of fds) {
      assert.deepEqual(fileIdentity(fd), identity)
      assert.ok(closesOnExec(fd))
      closeSync(fd)
    }
  }
})

test('unclaimed descriptors are closed', t => {
  const [a, b] = pair(t)
  const file = createMemfd('passed', 4096)
  t.after(() => close(file))
  const before = openFds()
  send(a, bytes('too long for it'), [file, file])
  assert.deepEqual(recv(b, new Uint8Array(4)), { length: -EMSGSIZE, fds: [] })
  send(a, bytes('x'), [file])
  assert.equal(recvBytes(b, buffer), 1)
  assert.equal(openFds(), before)
})

test('a bad descriptor, or too many descriptors, are refused before anything is sent', t => {
  const [a, b] = pair(t)
  assert.equal(send(a, bytes('x'), [9999]), -EBADF)
  assert.throws(() => send(a, bytes('x'), new Array(MAX_FDS + 1).fill(1)), RangeError)
  assert.equal(recv(b, buffer).length, -EAGAIN)
})

test('a client connects to a listening socket, and the server accepts the connection', t => {
  const path = join(folder, 'plain')
  const server = listen(path, { setAccess: file => chmodSync(file, 0o666) })
  t.after(() => close(server))
  assert.equal(statSync(path).mode & 0o777, 0o666)
  assert.equal(accept(server), -EAGAIN)
  const client = connect(path)
  const served = accept(server)
  assert.ok(served > 0)
  assert.ok(fstatSync(served).isSocket())
  send(client, bytes('hello'))
  assert.equal(recvBytes(served, buffer), 5)
  assert.equal(close(client), 0)
  assert.equal(recvBytes(served, buffer), 0)
  assert.equal(close(served), 0)
  assert.equal(close(served), -EBADF)
})

test('listening at a path in use is EADDRINUSE, and the socket file of a dead server is replaced', () => {
  const path = join(folder, 'again')
  const first = listen(path)
  assert.throws(() => listen(path), { code: 'EADDRINUSE' })
  close(connect(path))
  close(first)
  assert.ok(existsSync(path))
  assert.throws(() => connect(path), { code: 'ECONNREFUSED' })
  const second = listen(path)
  close(connect(path))
  close(second)
})

test('a server whose backlog is full, or whose socket has another type, is not replaced', async t => {
  const path = join(folder, 'full')
  const server = listen(path, { backlog: 0 })
  const client = connect(path)
  t.after(() => [server, client].forEach(close))
  assert.throws(() => connect(path), { code: 'EAGAIN' })
  assert.throws(() => listen(path), { code: 'EADDRINUSE' })
  assert.ok(existsSync(path))
  const streamPath = join(folder, 'stream')
  const stream = createServer().listen(streamPath)
  t.after(() => stream.close())
  await once(stream, 'listening')
  assert.throws(() => connect(streamPath), { code: 'EPROTOTYPE' })
  assert.throws(() => listen(streamPath), { code: 'EADDRINUSE' })
  assert.ok(existsSync(streamPath))
})

test('failed calls leave no open descriptor', () => {
  const before = openFds()
  assert.throws(() => connect(join(folder, 'absent')), { code: 'ENOENT' })
  assert.throws(() => connect('x'.repeat(108)), /108 bytes; 1 to 107/)
  assert.throws(() => listen(join(folder, 'absent', 'sock')), { code: 'ENOENT' })
  writeFileSync(join(folder, 'file'), 'precious')
  assert.throws(() => listen(join(folder, 'file')), { code: 'EEXIST' })
  assert.throws(() => listen(join(folder, 'file', 'sock')), { code: 'ENOTDIR' })
  symlinkSync('nowhere', join(folder, 'dangling'))
  assert.throws(() => listen(join(folder, 'dangling')), { code: 'EEXIST' })
  assert.equal(statSync(join(folder, 'file')).size, 8, 'a file that is not a socket is not removed')
  assert.equal(openFds(), before)
})

test('the error of a send timeout has its seconds and microseconds', () => {
  const noDescriptor = -1
  assert.throws(() => setSendTimeout(noDescriptor, 0, 5), { code: 'EBADF', message: /timeout of 0 s and 5 µs/ })
})

test('a watched descriptor cannot be closed', t => {
  const [a, b] = socketPair()
  t.after(() => close(b))
  const watching = watch(a, { readable: true }, () => {})
  assert.throws(() => close(a), /stop the watch first/)
  watching.stop()
  assert.equal(close(a), 0)
})

test('the credentials, the message and the file of a process that connects arrive', async t => {
  const path = join(folder, 'peer')
  const server = listen(path)
  const peer = startPeer()
  t.after(async () => {
    await peer.kill()
    close(server)
  })
  const { sent, ino } = await peer.request('sendMessage', { path, text: 'hello there', withFile: true })
  assert.equal(sent, 11)
  const fd = accept(server)
  assert.deepEqual(peerCredentials(fd), { pid: peer.pid, uid: process.getuid?.(), gid: process.getgid?.() })
  const pidfd = peerPidfd(fd)
  if (pidfd < 0) assert.equal(pidfd, -ENOPROTOOPT, 'a kernel before 6.5')
  else close(pidfd)
  const { length, fds } = recv(fd, buffer)
  assert.equal(Buffer.from(buffer.subarray(0, length)).toString(), 'hello there')
  assert.equal(fds.length, 1)
  assert.equal(fileIdentity(fds[0]).ino, ino)
  const content = Buffer.alloc(11)
  readSync(fds[0], content, 0, 11, 0)
  assert.equal(content.toString(), 'hello there')
  closeSync(fds[0])
  await peer.kill()
  assert.equal(recv(fd, buffer).length, 0)
  close(fd)
})

/** The native library has the mover (host/memory/mover.ts), which checks descriptors. */
const skipWithoutMover =
  nativeLibraryPath() === undefined && 'the native library was not built: descriptors are received directly'

test('from an untrusted peer, only a single descriptor of a memory file is received', {
  skip: skipWithoutMover,
}, t => {
  const [sender, receiver] = pair(t)
  const memory = createMemfd('userdma-test', 4096)
  const plain = openSync('/dev/null', 'r')
  t.after(() => {
    closeSync(memory)
    closeSync(plain)
  })
  assert.equal(recvGuarded(receiver, buffer).length, -EAGAIN)
  const before = openFds()
  send(sender, bytes('none'))
  assert.deepEqual(recvGuarded(receiver, buffer), { length: 4, fds: [] })
  for (const fds of [[plain], [memory, memory], [plain, memory], Array(MAX_FDS).fill(plain)]) {
    send(sender, bytes('more'), fds)
    assert.deepEqual(recvGuarded(receiver, buffer), { length: 4, fds: [-1] })
  }
  assert.equal(openFds(), before)
  send(sender, bytes('memory'), [memory])
  const { length, fds } = recvGuarded(receiver, buffer)
  assert.equal(length, 6)
  assert.deepEqual(buffer.slice(0, 6), bytes('memory'))
  assert.deepEqual(fds.map(fileIdentity), [fileIdentity(memory)])
  for (const fd of fds) closeSync(fd)
  send(sender, new Uint8Array(100), [memory])
  assert.equal(recvGuarded(receiver, new Uint8Array(10)).length, -EMSGSIZE)
  assert.equal(openFds(), before)
  shutdown(sender, 'write')
  assert.equal(recvGuarded(receiver, buffer).length, 0)
})

test('a message with descriptors is an error, not "nothing yet", if no mover can be started', {
  skip: skipWithoutMover,
}, async t => {
  const peer = startPeer()
  t.after(() => peer.kill())
  assert.deepEqual(await peer.request('receiveWithoutProcesses', {}), { length: -ENOBUFS, fds: [-1] })
})

test('the first end of a pair accepts no descriptors', t => {
  const [first, second] = pair(t)
  const plain = openSync('/dev/null', 'r')
  t.after(() => closeSync(plain))
  const sent = send(second, bytes('fd'), [plain])
  if (sent > 0) return t.skip('before Linux 6.16 that cannot be refused')
  assert.equal(sent, -EPERM)
  assert.equal(send(second, bytes('none')), 4)
  assert.equal(send(first, bytes('fd'), [plain]), 2)
})
