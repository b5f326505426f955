/*
 * Mailboxes of the library: order, and the cost of taking many values.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { countMoves } from './array-moves.ts'
import { mailboxOfNumbers } from './mailboxes.ts'

test('values are taken in the order of their arrival, dropped values excepted', async () => {
  const mailbox = mailboxOfNumbers()
  assert.equal(mailbox.poll(), undefined)
  for (const value of [1, 2, 3]) mailbox.put(value)
  assert.equal(mailbox.poll(), 1)
  for (const value of [4, 5]) mailbox.put(value)
  // Two values are left from before the poll, and two came after it.
  await mailbox.wait()
  mailbox.put(6)
  mailbox.drop(value => value === 3 || value === 5)
  assert.equal(mailbox.poll(), 2)
  await mailbox.wait()
  mailbox.end()
  const rest: number[] = []
  for await (const value of mailbox.arrivals()) rest.push(value)
  assert.deepEqual(rest, [4, 6])
  assert.equal(mailbox.poll(), undefined)
})

test('a wait resolves when a value arrives, or when the mailbox ends', async () => {
  const mailbox = mailboxOfNumbers()
  let resolved = 0
  for (const change of [() => mailbox.put(1), () => mailbox.end()]) {
    const waiting = mailbox.wait().then(() => resolved++)
    await new Promise(setImmediate)
    const before = resolved
    change()
    await waiting
    assert.equal(resolved, before + 1)
    mailbox.poll()
  }
  assert.equal(resolved, 2)
})

test('the cost of taking a value does not grow with the number of values', async () => {
  const mailbox = mailboxOfNumbers()
  const count = 1000
  for (let i = 0; i < count; i++) mailbox.put(i)
  const moves = await countMoves(() => {
    for (let i = 0; i < count; i++) assert.equal(mailbox.poll(), i)
  })
  assert.ok(moves <= 2 * count, `${moves} elements were moved`)
})
