/*
 * Scripts with and without races, beside those that test/programs/check/races.c runs: orders and ranges that a program
 * cannot bring about at will.
 *
 * Threads 1 to 4 belong to processes 1 to 4, threads 11 to 13 and 99 to process 1. `toN` is a queue pair of process 1
 * to process N, `ofN` its peer. `receive` posts a receive and returns its stamp, with which `deliver` fills the
 * receive. In cases with "both ends in one memory" a process also uses a buffer of its peer as a local buffer.
 */
import type { RaceId } from '../../../../src/tools/check/races/races.ts'
import { aroundWord3, data1, data2, data3, otherData1, otherData3, result1, result2, word3 } from './buffers.ts'
import type { Script } from './script.ts'

interface Case {
  readonly name: string
  /** The expected finding. */
  readonly race: RaceId | undefined
  run(script: Script): void
}

const race = (name: string, id: RaceId, run: (script: Script) => void): Case => ({ name, race: id, run })
/** A script with one queue pair of process 1. */
const onQueue =
  (run: (script: Script, qp: ReturnType<Script['qp']>) => void) =>
  (script: Script): void =>
    run(script, script.qp())
const noRace = (name: string, run: (script: Script) => void): Case => ({ name, race: undefined, run })

export const cases: readonly Case[] = [
  race('atomics of two queues on one word, each behind a write', 'counter-shared', s => {
    const [one, other] = [s.qp(), s.qp()]
    s.write(1, one, data1, data3)
    s.atomic(1, one, word3, result1)
    s.write(1, other, data2, otherData3)
    s.atomic(1, other, word3, result2)
  }),
  noRace('the first atomic is over', s => {
    const [one, other] = [s.qp(), s.qp()]
    s.write(1, one, data1, data3)
    s.poll(1, s.atomic(1, one, word3, result1))
    s.write(1, other, data2, otherData3)
    s.atomic(1, other, word3, result2)
  }),
  noRace('another thread adds', s => {
    const [one, other] = [s.qp(), s.qp()]
    s.write(1, one, data1, data3)
    s.atomic(1, one, word3, result1)
    s.write(11, other, data2, otherData3)
    s.atomic(11, other, word3, result2)
  }),
  noRace('atomics of two queues, one of them not behind a write', s => {
    s.atomic(1, s.qp(), word3, result1)
    const other = s.qp()
    s.write(1, other, data2, otherData3)
    s.atomic(1, other, word3, result2)
  }),
  race('a write of a word is no atomic', 'race', s => {
    s.write(1, s.qp(), undefined, word3)
    s.write(2, s.qp(), undefined, word3)
  }),
  race('an atomic, then a write of the word and more', 'atomic-mixed-with-write', s => {
    s.atomic(1, s.qp(), word3, result1)
    s.write(2, s.qp(), undefined, aroundWord3)
  }),

  // ---- ranges ----
  noRace('the same addresses of two processes', s => {
    s.write(1, s.qp(), undefined, data3)
    s.write(2, s.qp(), undefined, [2, 0x3000, 64])
  }),
  race('a later write of a part leaves the rest of the first one', 'race', s => {
    const [one, qp] = [s.qp(), s.qp()]
    s.write(1, one, undefined, data3)
    s.write(1, one, undefined, [3, 0x3010, 16])
    s.read(2, qp, [3, 0x3030, 8], result2)
  }),
  noRace('a write of no bytes', s => {
    s.write(1, s.qp(), undefined, data3)
    s.write(2, s.qp(), undefined, [3, 0x3000, 0])
  }),
  race(
    'a read across the gap between two writes',
    'race',
    onQueue((s, qp) => {
      s.write(1, qp, undefined, [3, 0x3000, 8])
      s.write(1, qp, undefined, [3, 0x3038, 8])
      s.read(2, s.qp(), data3, data2)
    }),
  ),

  // ---- order within a queue ----
  race(
    'one queue: a fence of the read itself does not help',
    'read-then-write-unfenced',
    onQueue((s, qp) => {
      s.read(1, qp, data3, data1, { isFenced: true })
      s.write(1, qp, otherData1, data3)
    }),
  ),
  noRace(
    'one queue: a read into the buffer of a send',
    onQueue((s, qp) => {
      s.send(1, qp, data1)
      s.read(1, qp, data3, data1)
    }),
  ),
  noRace(
    'one queue: write-atomic',
    onQueue((s, qp) => {
      s.write(1, qp, undefined, word3)
      s.atomic(1, qp, word3, result1)
    }),
  ),
  race(
    'one queue, both ends in one memory: the target of a write is sent',
    'race',
    onQueue((s, qp) => {
      s.write(1, qp, data1, data3)
      s.send(1, qp, data3, { isFenced: true })
    }),
  ),
  race('one queue, both ends in one memory: a receive buffer is sent', 'buffer-reused', s => {
    const [one, two] = [s.qp(), s.qp()]
    const stamp = s.receive(1)
    s.deliver(s.send(1, one, data1), two, stamp, otherData1)
    s.send(1, one, otherData1)
  }),
  race(
    'one queue, both ends in one memory: the destination of a read is read',
    'race',
    onQueue((s, qp) => {
      s.read(1, qp, data3, data1)
      s.read(1, qp, data1, otherData1)
    }),
  ),
  noRace(
    'one queue, both ends in one memory: the source of a read is overwritten by a read',
    onQueue((s, qp) => {
      s.read(1, qp, data3, data1)
      s.read(1, qp, otherData3, data3)
    }),
  ),
  noRace('one queue without reliability: write-write', s => {
    const qp = s.qp(false)
    s.write(1, qp, data1, data3)
    s.write(1, qp, otherData1, data3)
  }),

  // ---- completions ----
  race('a completion polled, then a write of another process', 'race', s => {
    s.poll(1, s.write(1, s.qp(), data1, data3))
    s.write(2, s.qp(), data2, data3)
  }),
  race('the completion of an unreliable write says nothing about the memory of the peer', 'race', s => {
    s.poll(1, s.write(1, s.qp(false), data1, data3))
    s.write(1, s.qp(), otherData1, data3)
  }),
  noRace('the completion of an unreliable write frees its buffer', s => {
    s.poll(1, s.write(1, s.qp(false), data1, data3))
    s.read(1, s.qp(), otherData3, data1)
  }),
  race('the completion of an unreliable write and a barrier say nothing about the memory of the peer', 'race', s => {
    s.poll(1, s.write(1, s.qp(false), data1, data3))
    s.wait(1, 2)
    s.write(2, s.qp(), data2, data3)
  }),
  noRace(
    'a completion orders also what threads had polled before they posted earlier requests of its queue',
    onQueue((s, qp) => {
      s.poll(11, s.write(11, s.qp(), data1, data3))
      s.send(11, qp)
      s.poll(13, s.send(12, qp))
      s.write(13, s.qp(), otherData1, data3)
    }),
  ),

  // ---- messages ----
  race('the message was sent before the write', 'race', s => {
    const [to2, of2] = [s.qp(), s.qp()]
    const stamp = s.receive(2)
    const sent = s.send(1, to2)
    s.poll(1, s.write(1, s.qp(), data1, data3))
    s.poll(2, s.deliver(sent, of2, stamp))
    s.write(2, s.qp(), data2, data3)
  }),
  noRace('write, completion, message of an unknown sender, such as to a multicast group, write of the receiver', s => {
    const stamp = s.receive(2)
    s.poll(1, s.write(1, s.qp(), data1, data3))
    s.poll(2, s.deliver(undefined, s.qp(), stamp))
    s.write(2, s.qp(), data2, data3)
  }),
  race('message of an unknown sender, write, completion, write of the receiver', 'race', s => {
    s.poll(2, s.deliver(undefined, s.qp(), s.receive(2)))
    s.poll(1, s.write(1, s.qp(), data1, data3))
    s.write(2, s.qp(), data2, data3)
  }),
  race('a message that nobody polled', 'race', s => {
    const [to2, of2] = [s.qp(), s.qp()]
    s.poll(1, s.write(1, s.qp(), data1, data3))
    const stamp = s.receive(2)
    s.deliver(s.send(1, to2), of2, stamp)
    s.write(2, s.qp(), data2, data3)
  }),
  noRace('a chain of messages through a third process', s => {
    s.poll(1, s.write(1, s.qp(), data1, data3))
    s.message(1, s.qp(), 4, s.qp())
    s.message(4, s.qp(), 2, s.qp())
    s.read(2, s.qp(), data3, data2)
  }),
  race('a receive buffer is sent before its message was polled', 'buffer-reused', s => {
    const [one, two] = [s.qp(), s.qp()]
    const stamp = s.receive(1)
    s.deliver(s.send(2, two, data2), one, stamp, data1)
    s.write(1, s.qp(), data1, data3)
  }),
  race('a write to a receive buffer while its message arrives', 'race', s => {
    const [one, two] = [s.qp(), s.qp()]
    const stamp = s.receive(3)
    s.deliver(s.send(2, two, data2), one, stamp, data3)
    s.write(1, s.qp(), data1, data3)
  }),
  noRace('a completion of the sender, then a write of the sender to the receive buffer', s => {
    const stamp = s.receive(3)
    const sent = s.send(1, s.qp(), data1)
    s.deliver(sent, s.qp(), stamp, data3)
    s.poll(1, sent)
    s.write(1, s.qp(), otherData1, data3)
  }),
  noRace('two messages into one buffer: another finding (receive-overlap)', s => {
    for (const sender of [2, 3]) {
      const stamp = s.receive(1)
      s.deliver(s.send(sender, s.qp()), s.qp(), stamp, data1)
    }
  }),
  noRace('write and message on one queue, not the first, then a barrier of the receiver and another process', s => {
    const [to3, of3] = [s.qp(), s.qp()]
    s.poll(1, s.message(1, to3, 3, of3))
    s.write(1, to3, data1, data3)
    s.message(1, to3, 3, of3)
    s.wait(3, 2)
    s.write(2, s.qp(), data2, data3)
  }),

  // ---- atomics ----
  noRace('a lock released on the queue of the write before the write is complete', s => {
    const [one, two] = [s.qp(), s.qp()]
    s.poll(1, s.atomic(1, one, word3, result1))
    s.write(1, one, data1, data3)
    s.atomic(1, one, word3, result1)
    s.poll(2, s.atomic(2, two, word3, result2))
    s.write(2, two, data2, data3)
  }),
  race('a lock released on another queue before the write is complete', 'race', s => {
    const [one, other, two] = [s.qp(), s.qp(), s.qp()]
    s.poll(1, s.atomic(1, one, word3, result1))
    s.write(1, one, data1, data3)
    s.atomic(1, other, word3, result1)
    s.poll(2, s.atomic(2, two, word3, result2))
    s.write(2, two, data2, data3)
  }),
  race('a lock released before the read is complete', 'race', s => {
    const [one, two] = [s.qp(), s.qp()]
    s.poll(1, s.atomic(1, one, word3, result1))
    s.read(1, one, data3, data1)
    s.atomic(1, one, word3, result1)
    s.poll(2, s.atomic(2, two, word3, result2))
    s.write(2, two, data2, data3)
  }),
  race('the write does not wait for the lock', 'race', s => {
    const [one, two] = [s.qp(), s.qp()]
    s.poll(1, s.atomic(1, one, word3, result1))
    s.poll(1, s.write(1, one, data1, data3))
    s.poll(1, s.atomic(1, one, word3, result1))
    s.atomic(2, two, word3, result2)
    s.write(2, two, data2, data3)
  }),
  noRace('a read waits for an atomic', s => {
    const [one, two] = [s.qp(), s.qp()]
    s.write(1, one, data1, data3)
    s.atomic(1, one, word3, result1)
    s.poll(2, s.read(2, two, word3, result2))
    s.read(2, two, data3, data2)
  }),

  // ---- threads, and waits without RDMA ----
  race('a barrier before the completion', 'race', s => {
    const one = s.write(1, s.qp(), data1, data3)
    s.wait(1, 2)
    s.poll(1, one)
    s.write(2, s.qp(), data2, data3)
  }),
  noRace('threads that take turns to poll one CQ', s => {
    const [one, two, cq] = [s.qp(), s.qp(), 7]
    s.pollFrom(cq, 11, s.write(11, one, data1, data3))
    s.pollFrom(cq, 12, s.send(12, two))
    s.write(12, two, otherData1, data3)
  }),
  race('one thread posts, one polls, a third one posts without a wait', 'buffer-reused', s => {
    s.poll(12, s.read(11, s.qp(), data3, data1))
    s.write(13, s.qp(), data1, otherData3)
  }),

  // ---- destroyed objects ----
  noRace(
    'the queue pair was destroyed',
    onQueue((s, qp) => {
      s.write(1, qp, data1, data3)
      s.engine.close(qp.sends)
      s.write(2, s.qp(), data2, data3)
    }),
  ),
  noRace('the region was deregistered', s => {
    s.write(1, s.qp(), data1, data3)
    s.region.isDeregistered = true
    s.write(2, s.qp(), data2, data3)
  }),
  noRace(
    'the queue pair of the sender of a message was destroyed',
    onQueue((s, qp) => {
      const stamp = s.receive(3)
      s.deliver(s.send(1, qp, data1), s.qp(), stamp, data3)
      s.engine.close(qp.sends)
      s.write(2, s.qp(), data2, data3)
    }),
  ),
]
