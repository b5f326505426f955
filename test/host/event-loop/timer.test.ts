import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { nowMicroseconds } from '../../../src/host/event-loop/clock.ts'
import { createTimer } from '../../../src/host/event-loop/timer.ts'
import { hasNative } from '../../../src/host/native.ts'

/** The text of a file; empty if it has been closed meanwhile. */
const textOf = (path: string): string => {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}

describe('a timer', { skip: hasNative() ? false : 'koffi is missing' }, () => {
  it('calls back once, not early, at the time that was set last', async () => {
    let calls = 0
    let called = (): void => {}
    const timer = createTimer(() => {
      calls++
      called()
    })
    const expiry = (): Promise<void> =>
      new Promise(done => {
        called = done
      })
    for (const wait of [0, 1, 150, 2500]) {
      const start = nowMicroseconds()
      timer.set(wait)
      await expiry()
      assert.ok(nowMicroseconds() - start >= wait, `${wait}`)
    }
    assert.equal(calls, 4)
    timer.set(1e12)
    // Limited to 1e9 seconds, of which some time less remains.
    timer.set(1e30)
    const [fd] = readdirSync('/proc/self/fd').filter(one =>
      textOf(`/proc/self/fdinfo/${one}`).includes('it_value: (9999'),
    )
    assert.ok(fd !== undefined, 'a timer with 9999… seconds left')
    const start = nowMicroseconds()
    timer.set(1000)
    await expiry()
    assert.ok(nowMicroseconds() - start >= 1000)
    assert.equal(calls, 5)
    timer.close()
  })

  it('does not fire when it is closed, and leaves no descriptor', async () => {
    const descriptors = (): number => readdirSync('/proc/self/fd').length
    const before = descriptors()
    let calls = 0
    const closed = createTimer(() => calls++)
    closed.set(1)
    closed.close()
    closed.close()
    closed.set(1)
    const other = createTimer(() => {})
    let expired = (): void => {}
    const timer = createTimer(() => expired())
    await new Promise<void>(done => {
      expired = done
      other.set(1e9)
      timer.set(2000)
    })
    timer.close()
    other.close()
    // The event loop releases a closed handle by the next turn.
    await new Promise(setImmediate)
    assert.equal(calls, 0)
    assert.equal(descriptors(), before)
  })
})
