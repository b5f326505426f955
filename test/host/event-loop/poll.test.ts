import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { test } from 'node:test'
import { ECONNRESET } from '../../../src/host/errno.ts'
import { hasReadyEvents, isWatched, watch } from '../../../src/host/event-loop/poll.ts'
import { close, recvBytes, send, setBuffers, shutdown, socketPair } from '../../../src/host/net/sockets.ts'

const message = new Uint8Array([1])
const buffer = new Uint8Array(65536)

/** Resolves after the next poll phase of the event loop. */
const turn = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

const turns = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await turn()
}

const pair = (t: { after(fn: () => void): void }): [number, number] => {
  const sockets = socketPair()
  t.after(() => {
    for (const fd of sockets) if (!isWatched(fd)) close(fd)
  })
  return sockets
}

test('a readable descriptor calls back repeatedly until it is drained', async t => {
  const [a, b] = pair(t)
  let calls = 0
  const watching = watch(b, { readable: true }, (readable, writable) => {
    assert.deepEqual([readable, writable], [true, false])
    calls++
  })
  await turns(3)
  assert.equal(calls, 0)
  send(a, message)
  await turns(5)
  assert.ok(calls >= 2, `level-triggered: ${calls} calls`)
  assert.equal(recvBytes(b, buffer), 1)
  await turn()
  const drained = calls
  await turns(3)
  assert.equal(calls, drained)
  watching.stop()
})

test('hasReadyEvents is true in a callback while another watched descriptor is ready', async t => {
  const [a, b] = pair(t)
  const [c, d] = pair(t)
  const seen: boolean[] = []
  const first = watch(b, { readable: true }, () => {
    recvBytes(b, buffer)
    seen.push(hasReadyEvents())
    send(c, message)
    seen.push(hasReadyEvents())
  })
  const second = watch(d, { readable: true }, () => {
    recvBytes(d, buffer)
    seen.push(hasReadyEvents())
  })
  send(a, message)
  while (seen.length < 3) await turn()
  assert.deepEqual(seen, [false, true, false])
  first.stop()
  second.stop()
})

test('code that awaits a promise resolved by the callback continues in the same turn', async t => {
  const [a, b] = pair(t)
  const order: string[] = []
  const arrived = new Promise<void>(resolve => {
    const watching = watch(b, { readable: true }, () => {
      watching.stop()
      order.push('callback')
      setImmediate(() => order.push('immediate'))
      resolve()
    })
  })
  send(a, message)
  await arrived.then(() => order.push('promise'))
  await turns(2)
  assert.deepEqual(order, ['callback', 'promise', 'immediate'])
})

test('a watch may change the events that it waits for', async t => {
  const [a, b] = pair(t)
  // `a` is not writable while its buffer is full.
  setBuffers(a, { send: 16384 })
  while (send(a, new Uint8Array(1000)) > 0);
  let writables = 0
  let readables = 0
  const watching = watch(a, { writable: true }, (readable, writable) => {
    if (writable) writables++
    if (readable) readables++
  })
  await turns(3)
  assert.equal(writables, 0)
  while (recvBytes(b, buffer) > 0);
  await turns(2)
  assert.ok(writables > 0)
  watching.update({})
  const before = writables
  send(b, message)
  await turns(3)
  assert.deepEqual([writables, readables], [before, 0])
  watching.update({ readable: true })
  await turns(2)
  assert.equal(writables, before)
  assert.ok(readables > 0)
  watching.stop()
})

test('a stopped watch does not call back, even if it was stopped in the callback or data is unread', async t => {
  const [a, b] = pair(t)
  let calls = 0
  const watching = watch(b, { readable: true }, () => {
    calls++
    watching.stop()
    watching.stop()
  })
  send(a, message)
  await turns(5)
  assert.equal(calls, 1)
  watching.update({ readable: true })
  watching.ref()
  watching.unref()
  await turns(3)
  assert.equal(calls, 1)
  assert.equal(isWatched(b), false)
})

test('a descriptor can be watched again after stop', async t => {
  const [a, b] = pair(t)
  for (let round = 0; round < 3; round++) {
    send(a, message)
    await new Promise<void>(resolve => {
      const watching = watch(b, { readable: true }, () => {
        recvBytes(b, buffer)
        watching.stop()
        resolve()
      })
    })
  }
})

test('one callback may stop another that is ready in the same turn', async t => {
  const [a, b] = pair(t)
  const [c, d] = pair(t)
  let calls = 0
  const stopBoth = (): void => {
    calls++
    one.stop()
    two.stop()
    close(b)
    close(d)
  }
  const one = watch(b, { readable: true }, stopBoth)
  const two = watch(d, { readable: true }, stopBoth)
  send(a, message)
  send(c, message)
  await turns(4)
  assert.equal(calls, 1)
})

test('a hang-up is readable, and the read returns the end', async () => {
  const [a, b] = socketPair()
  let seen = -1
  await new Promise<void>(resolve => {
    const watching = watch(b, { readable: true }, () => {
      seen = recvBytes(b, buffer)
      watching.stop()
      resolve()
    })
    shutdown(a)
  })
  assert.equal(seen, 0)
  close(a)
  close(b)
})

test('an error is readable, the read returns the error, and the next read the end', async t => {
  // A peer that closes with our message unread resets the connection. libuv stops its handle after a POLLERR, so the
  // watch must start it again for the second callback.
  const [c, d] = pair(t)
  const results: number[] = []
  send(d, message)
  await new Promise<void>(resolve => {
    const watching = watch(d, { readable: true }, () => {
      results.push(recvBytes(d, buffer))
      if (results.length < 2) return
      watching.stop()
      resolve()
    })
    close(c)
  })
  assert.deepEqual(results, [-ECONNRESET, 0])
})

test('a watch of a watched descriptor, of a closed descriptor or of a file is refused', t => {
  const [a] = pair(t)
  const watching = watch(a, {}, () => {})
  assert.throws(() => watch(a, {}, () => {}), { code: 'EEXIST' })
  watching.stop()
  assert.throws(() => watch(9999, {}, () => {}), { code: 'EBADF' })
  const file = openSync('/proc/self/exe', 'r')
  t.after(() => closeSync(file))
  assert.throws(() => watch(file, {}, () => {}), { code: 'EPERM' })
})

/** Runs a program that imports the two modules as `poll` and `sockets`. */
const run = (program: string): { status: number | null; stdout: string; stderr: string } => {
  const modules = ['event-loop/poll', 'net/sockets'].map(path => {
    const url = new URL(`../../../src/host/${path}.js`, import.meta.url)
    return `import * as ${path.split('/')[1]} from ${JSON.stringify(url.href)}\n`
  })
  return spawnSync(process.execPath, ['--expose-gc', '--input-type=module', '-e', modules.join('') + program], {
    encoding: 'utf8',
  })
}

test('an exception in a callback is the process’s uncaughtException, and the watch continues', () => {
  const { stdout, status, stderr } = run(`
    const [a, b] = sockets.socketPair()
    process.on('uncaughtException', error => console.log('caught', error.message))
    let calls = 0
    const watching = poll.watch(b, { readable: true }, () => {
      if (++calls === 2) { console.log('again'); watching.stop() }
      throw new Error('number ' + calls)
    })
    sockets.send(a, new Uint8Array(1))`)
  assert.equal(stderr, '')
  assert.equal(stdout, 'caught number 1\nagain\ncaught number 2\n')
  assert.equal(status, 0)
})

test('a watch without references survives garbage collection, and keeps the process alive unless unref’ed', () => {
  const kept = run(`
    const [a, b] = sockets.socketPair()
    ;(() => { const w = poll.watch(b, { readable: true }, () => { console.log('ready'); w.stop() }) })()
    setImmediate(() => { gc(); gc(); setImmediate(() => { gc(); sockets.send(a, new Uint8Array(1)) }) })`)
  assert.deepEqual([kept.stdout, kept.status], ['ready\n', 0])
  const free = run(`
    const [a, b] = sockets.socketPair()
    poll.watch(b, { readable: true }, () => {}).unref()`)
  assert.deepEqual([free.stderr, free.status], ['', 0])
})

test('a descriptor that is ready when the process ends does not abort it', () => {
  const { stderr, status } = run(`
    const [a, b] = sockets.socketPair()
    sockets.send(a, new Uint8Array(1))
    poll.watch(b, { readable: true }, () => {}).unref()`)
  assert.deepEqual([stderr, status], ['', 0])
})
