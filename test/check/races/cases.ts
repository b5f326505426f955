/*
 * Scripts with and without races, modelled on the cases of RMARaceBench (RWTH-HPC). Those are for MPI, SHMEM and GASPI;
 * here the same conflicts and synchronisations are written for verbs. A load or store of the original is a request
 * here, since userdma does not see loads and stores.
 *
 * Threads 1 and 2 are of processes 1 and 2, and so on; 11 and 12 are threads of process 1.
 */
import type { RaceId } from '../../../src/check/races/races.ts'
import type { Memory, Script } from './script.ts'

export interface Case {
  readonly name: string
  /** The expected finding; undefined: none. */
  readonly race: RaceId | undefined
  run(script: Script): void
}

/** Buffers of three processes: data, other data, and words. */
const own: Memory = [1, 0x1000, 64]
const own2: Memory = [1, 0x2000, 64]
const far: Memory = [3, 0x3000, 64]
const far2: Memory = [3, 0x4000, 64]
const theirs: Memory = [2, 0x5000, 64]
const word: Memory = [3, 0x6000, 8]
const result: Memory = [1, 0x7000, 8]
const result2: Memory = [2, 0x7000, 8]
const half: Memory = [3, 0x3020, 64]
const behind: Memory = [3, 0x3040, 64]

const race = (name: string, id: RaceId, run: (script: Script) => void): Case => ({ name, race: id, run })
const none = (name: string, run: (script: Script) => void): Case => ({ name, race: undefined, run })

/** A request on each of two queue pairs, to process 3; nothing orders them. */
const remote: readonly (readonly [
  string,
  RaceId | undefined,
  (s: Script, thread: number, mine: Memory) => void,
  (s: Script, thread: number, mine: Memory) => void,
])[] = (() => {
  const write = (s: Script, t: number, mine: Memory): void => void s.write(t, s.qp(), mine, far)
  const read = (s: Script, t: number, mine: Memory): void => void s.read(t, s.qp(), far, mine)
  const atomic = (s: Script, t: number, mine: Memory): void => void s.atomic(t, s.qp(), word, mine)
  const writeWord = (s: Script, t: number): void => void s.write(t, s.qp(), undefined, word)
  const writeAround = (s: Script, t: number): void => void s.write(t, s.qp(), undefined, [3, 0x5fc0, 128])
  const readWord = (s: Script, t: number, mine: Memory): void => void s.read(t, s.qp(), word, mine)
  const readAround = (s: Script, t: number, mine: Memory): void => void s.read(t, s.qp(), [3, 0x5fc0, 128], mine)
  return [
    ['write-write', 'race', write, write],
    ['write-read', 'race', write, read],
    ['read-write', 'race', read, write],
    ['read-read', undefined, read, read],
    ['atomic-atomic', undefined, atomic, atomic],
    ['write-atomic', 'atomic-mixed-with-write', writeWord, atomic],
    ['atomic-write', 'atomic-mixed-with-write', atomic, writeWord],
    ['atomic-write of more', 'atomic-mixed-with-write', atomic, writeAround],
    ['read-atomic of the word', undefined, readWord, atomic],
    ['atomic-read of more', 'atomic-mixed-with-write', atomic, readAround],
    ['write-write of a word', 'race', writeWord, writeWord],
  ]
})()

/** Two accesses of process 1's own buffers by different queue pairs. */
const local: readonly (readonly [string, RaceId | undefined, (s: Script) => void, (s: Script) => void])[] = (() => {
  const write = (s: Script): void => void s.write(1, s.qp(), own, far)
  const writeElsewhere = (s: Script): void => void s.write(1, s.qp(), own, far2)
  const read = (s: Script): void => void s.read(1, s.qp(), far, own)
  const readElsewhere = (s: Script): void => void s.read(1, s.qp(), far2, own)
  const atomic = (s: Script): void => void s.atomic(1, s.qp(), word, [1, 0x1008, 8])
  const send = (s: Script): void => void s.send(1, s.qp(), own)
  return [
    ['write-write', undefined, write, writeElsewhere],
    ['read-write', 'buffer-reused', read, writeElsewhere],
    ['write-read', 'buffer-reused', write, readElsewhere],
    ['read-read', 'buffer-reused', read, readElsewhere],
    ['read-send', 'buffer-reused', read, send],
    ['atomic-write', 'buffer-reused', atomic, write],
    ['send-send', undefined, send, send],
  ]
})()

export const cases: readonly Case[] = [
  ...remote.flatMap(([name, id, one, other]): Case[] => [
    {
      name: `conflict, remote: ${name} by two processes`,
      race: id,
      run(s) {
        one(s, 1, result)
        other(s, 2, result2)
      },
    },
    {
      name: `conflict, remote: ${name} by one thread on two queue pairs`,
      race: id,
      run(s) {
        one(s, 1, own)
        other(s, 1, own2)
      },
    },
  ]),
  ...local.map(
    ([name, id, one, other]): Case => ({
      name: `conflict, local: ${name}`,
      race: id,
      run(s) {
        one(s)
        other(s)
      },
    }),
  ),

  // ---- ranges ----
  race('ranges that overlap in part', 'race', s => {
    s.write(1, s.qp(), undefined, far)
    s.write(2, s.qp(), undefined, half)
  }),
  none('ranges side by side', s => {
    s.write(1, s.qp(), undefined, far)
    s.write(2, s.qp(), undefined, behind)
  }),
  none('the same addresses of two processes', s => {
    s.write(1, s.qp(), undefined, far)
    s.write(2, s.qp(), undefined, [2, 0x3000, 64])
  }),
  race('a later write of a part leaves the rest of the first one', 'race', s => {
    const [one, qp] = [s.qp(), s.qp()]
    s.write(1, one, undefined, far)
    s.write(1, one, undefined, [3, 0x3010, 16])
    s.read(2, qp, [3, 0x3030, 8], result2)
  }),
  none('a write of no bytes', s => {
    s.write(1, s.qp(), undefined, far)
    s.write(2, s.qp(), undefined, [3, 0x3000, 0])
  }),
  race('a read across the gap between two writes', 'race', s => {
    const qp = s.qp()
    s.write(1, qp, undefined, [3, 0x3000, 8])
    s.write(1, qp, undefined, [3, 0x3038, 8])
    s.read(2, s.qp(), far, theirs)
  }),

  // ---- sync: the order within a queue ----
  none('one queue: write-write', s => {
    const qp = s.qp()
    s.write(1, qp, own, far)
    s.write(1, qp, own2, far)
  }),
  none('one queue: write-read', s => {
    const qp = s.qp()
    s.write(1, qp, own, far)
    s.read(1, qp, far, own2)
  }),
  race('one queue: read-write', 'read-then-write-unfenced', s => {
    const qp = s.qp()
    s.read(1, qp, far, own)
    s.write(1, qp, own2, far)
  }),
  none('one queue: read-write with fence', s => {
    const qp = s.qp()
    s.read(1, qp, far, own)
    s.write(1, qp, own2, far, { isFenced: true })
  }),
  none('one queue: read-write with a fence between them', s => {
    const qp = s.qp()
    s.read(1, qp, far, own)
    s.send(1, qp, undefined, { isFenced: true })
    s.write(1, qp, own2, far)
  }),
  none('one queue: read-write with a completion between them', s => {
    const qp = s.qp()
    s.poll(1, s.read(1, qp, far, own))
    s.write(1, qp, own2, far)
  }),
  race('one queue: a fence before the read does not help', 'read-then-write-unfenced', s => {
    const qp = s.qp()
    s.read(1, qp, far, own, { isFenced: true })
    s.write(1, qp, own2, far)
  }),
  race('one queue: the destination of a read is sent', 'buffer-reused', s => {
    const qp = s.qp()
    s.read(1, qp, far, own)
    s.send(1, qp, own)
  }),
  none('one queue: the destination of a read is sent with fence', s => {
    const qp = s.qp()
    s.read(1, qp, far, own)
    s.send(1, qp, own, { isFenced: true })
  }),
  none('one queue: a read into the buffer of a send', s => {
    const qp = s.qp()
    s.send(1, qp, own)
    s.read(1, qp, far, own)
  }),
  none('one queue: reads into one buffer', s => {
    const qp = s.qp()
    s.read(1, qp, far, own)
    s.read(1, qp, far2, own)
  }),
  none('one queue: atomics with one result', s => {
    const qp = s.qp()
    s.atomic(1, qp, word, result)
    s.atomic(1, qp, word, result)
  }),
  race('one queue: atomic-write', 'atomic-mixed-with-write', s => {
    const qp = s.qp()
    s.atomic(1, qp, word, result)
    s.write(1, qp, undefined, word)
  }),
  none('one queue: write-atomic', s => {
    const qp = s.qp()
    s.write(1, qp, undefined, word)
    s.atomic(1, qp, word, result)
  }),
  none('one queue without reliability: write-write', s => {
    const qp = s.qp(false)
    s.write(1, qp, own, far)
    s.write(1, qp, own2, far)
  }),

  // ---- sync: completions ----
  none('a completion polled, then the other queue pair', s => {
    const one = s.write(1, s.qp(), own, far)
    s.poll(1, one)
    s.write(1, s.qp(), own2, far)
  }),
  race('a completion that nobody polled', 'race', s => {
    s.end(s.write(1, s.qp(), own, far))
    s.write(1, s.qp(), own2, far)
  }),
  none('the completion of a later request of the queue', s => {
    const qp = s.qp()
    s.write(1, qp, own, far)
    s.poll(1, s.send(1, qp))
    s.write(1, s.qp(), own2, far)
  }),
  race('the completion of an earlier request of the queue', 'race', s => {
    const qp = s.qp()
    const first = s.send(1, qp)
    s.write(1, qp, own, far)
    s.poll(1, first)
    s.write(1, s.qp(), own2, far)
  }),
  race('a completion polled by another process', 'race', s => {
    s.poll(1, s.write(1, s.qp(), own, far))
    s.write(2, s.qp(), theirs, far)
  }),
  race('the completion of an unreliable write says nothing about the memory of the peer', 'race', s => {
    s.poll(1, s.write(1, s.qp(false), own, far))
    s.write(1, s.qp(), own2, far)
  }),
  none('the completion of an unreliable write frees its buffer', s => {
    s.poll(1, s.write(1, s.qp(false), own, far))
    s.read(1, s.qp(), far2, own)
  }),

  // ---- sync: messages ----
  none('write, completion, message, write of the receiver', s => {
    const [to3, to2, of2] = [s.qp(), s.qp(), s.qp()]
    s.poll(1, s.write(1, to3, own, far))
    s.message(1, to2, 2, of2)
    s.write(2, s.qp(), theirs, far)
  }),
  race('write, message before its completion, write of the receiver', 'race', s => {
    const [to3, to2, of2] = [s.qp(), s.qp(), s.qp()]
    s.write(1, to3, own, far)
    s.message(1, to2, 2, of2)
    s.write(2, s.qp(), theirs, far)
  }),
  race('the message was sent before the write', 'race', s => {
    const [to2, of2] = [s.qp(), s.qp()]
    const stamp = s.receive(2)
    const sent = s.send(1, to2)
    s.poll(1, s.write(1, s.qp(), own, far))
    s.poll(2, s.deliver(sent, of2, stamp))
    s.write(2, s.qp(), theirs, far)
  }),
  race('a message that nobody polled', 'race', s => {
    const [to2, of2] = [s.qp(), s.qp()]
    s.poll(1, s.write(1, s.qp(), own, far))
    const stamp = s.receive(2)
    s.deliver(s.send(1, to2), of2, stamp)
    s.write(2, s.qp(), theirs, far)
  }),
  none('write and message on one queue, then a request of the target from the same bytes', s => {
    const [to3, of3] = [s.qp(), s.qp()]
    s.write(1, to3, own, far)
    s.message(1, to3, 3, of3)
    s.send(3, s.qp(), far)
  }),
  race('write and message on two queues, then a request of the target from the same bytes', 'race', s => {
    const [to3, other, of3] = [s.qp(), s.qp(), s.qp()]
    s.write(1, to3, own, far)
    s.message(1, other, 3, of3)
    s.send(3, s.qp(), far)
  }),
  race('read and message on one queue, then the target overwrites the source', 'race', s => {
    const [to3, of3] = [s.qp(), s.qp()]
    s.read(1, to3, far, own)
    s.message(1, to3, 3, of3)
    s.read(3, s.qp(), theirs, far)
  }),
  none('read and fenced message on one queue, then the target overwrites the source', s => {
    const [to3, of3] = [s.qp(), s.qp()]
    s.read(1, to3, far, own)
    const stamp = s.receive(3)
    s.poll(3, s.deliver(s.send(1, to3, undefined, { isFenced: true }), of3, stamp))
    s.read(3, s.qp(), theirs, far)
  }),
  none('a chain of messages through a third process', s => {
    s.poll(1, s.write(1, s.qp(), own, far))
    s.message(1, s.qp(), 4, s.qp())
    s.message(4, s.qp(), 2, s.qp())
    s.read(2, s.qp(), far, theirs)
  }),
  none('ping-pong with one buffer at each end', s => {
    const [one, two] = [s.qp(), s.qp()]
    for (let i = 0; i < 3; i++) {
      const [there, back] = [s.receive(2), s.receive(1)]
      const ping = s.send(1, one, own)
      const atTwo = s.deliver(ping, two, there, theirs)
      s.poll(2, atTwo)
      const pong = s.send(2, two, theirs)
      const atOne = s.deliver(pong, one, back, own)
      s.poll(1, ping, atOne)
      s.poll(2, pong)
    }
  }),
  race('a message fills a buffer that is being sent', 'buffer-reused', s => {
    const [one, two] = [s.qp(), s.qp()]
    const back = s.receive(1)
    s.send(1, s.qp(), own)
    s.deliver(s.send(2, two, theirs), one, back, own)
  }),
  none('a received buffer is sent on', s => {
    const [one, two] = [s.qp(), s.qp()]
    const stamp = s.receive(1)
    s.poll(1, s.deliver(s.send(2, two, theirs), one, stamp, own))
    s.write(1, s.qp(), own, far)
  }),
  race('a receive buffer is sent before its message was polled', 'buffer-reused', s => {
    const [one, two] = [s.qp(), s.qp()]
    const stamp = s.receive(1)
    s.deliver(s.send(2, two, theirs), one, stamp, own)
    s.write(1, s.qp(), own, far)
  }),
  race('a write to a receive buffer while its message arrives', 'race', s => {
    const [one, two] = [s.qp(), s.qp()]
    const stamp = s.receive(3)
    s.deliver(s.send(2, two, theirs), one, stamp, far)
    s.write(1, s.qp(), own, far)
  }),

  // ---- sync: atomics ----
  none('a lock by compare and swap, released by fetch and add', s => {
    const [one, two] = [s.qp(), s.qp()]
    s.poll(1, s.atomic(1, one, word, result))
    s.poll(1, s.write(1, one, own, far))
    s.poll(1, s.atomic(1, one, word, result))
    s.poll(2, s.atomic(2, two, word, result2))
    s.write(2, two, theirs, far)
  }),
  none('a lock released directly after the write on its queue', s => {
    const [one, two] = [s.qp(), s.qp()]
    s.poll(1, s.atomic(1, one, word, result))
    s.write(1, one, own, far)
    s.atomic(1, one, word, result)
    s.poll(2, s.atomic(2, two, word, result2))
    s.write(2, two, theirs, far)
  }),
  race('a lock released on another queue before the write is complete', 'race', s => {
    const [one, other, two] = [s.qp(), s.qp(), s.qp()]
    s.poll(1, s.atomic(1, one, word, result))
    s.write(1, one, own, far)
    s.atomic(1, other, word, result)
    s.poll(2, s.atomic(2, two, word, result2))
    s.write(2, two, theirs, far)
  }),
  race('a lock released before the read is complete', 'race', s => {
    const [one, two] = [s.qp(), s.qp()]
    s.poll(1, s.atomic(1, one, word, result))
    s.read(1, one, far, own)
    s.atomic(1, one, word, result)
    s.poll(2, s.atomic(2, two, word, result2))
    s.write(2, two, theirs, far)
  }),
  race('the write does not wait for the lock', 'race', s => {
    const [one, two] = [s.qp(), s.qp()]
    s.poll(1, s.atomic(1, one, word, result))
    s.poll(1, s.write(1, one, own, far))
    s.poll(1, s.atomic(1, one, word, result))
    s.atomic(2, two, word, result2)
    s.write(2, two, theirs, far)
  }),
  race('atomics on different words order nothing', 'race', s => {
    const [one, two] = [s.qp(), s.qp()]
    s.poll(1, s.write(1, one, own, far))
    s.poll(1, s.atomic(1, one, word, result))
    s.poll(2, s.atomic(2, two, [3, 0x6008, 8], result2))
    s.write(2, two, theirs, far)
  }),
  none('a read waits for an atomic', s => {
    const [one, two] = [s.qp(), s.qp()]
    s.write(1, one, own, far)
    s.atomic(1, one, word, result)
    s.poll(2, s.read(2, two, word, result2))
    s.read(2, two, far, theirs)
  }),

  // ---- sync: threads and waits without RDMA ----
  none('a completion polled, a barrier, the other process', s => {
    s.poll(1, s.write(1, s.qp(), own, far))
    s.wait(1, 2)
    s.write(2, s.qp(), theirs, far)
  }),
  race('a barrier without a completion', 'race', s => {
    s.write(1, s.qp(), own, far)
    s.wait(1, 2)
    s.write(2, s.qp(), theirs, far)
  }),
  race('a barrier before the completion', 'race', s => {
    const one = s.write(1, s.qp(), own, far)
    s.wait(1, 2)
    s.poll(1, one)
    s.write(2, s.qp(), theirs, far)
  }),
  race('threads of one process: nothing between them', 'race', s => {
    s.poll(11, s.write(11, s.qp(), own, far))
    s.write(12, s.qp(), own2, far)
  }),
  none('threads of one process: a mutex', s => {
    s.poll(11, s.write(11, s.qp(), own, far))
    s.wait(12)
    s.write(12, s.qp(), own2, far)
  }),
  none('a thread polls the completion of a request of another thread', s => {
    s.poll(12, s.write(11, s.qp(), own, far))
    s.write(12, s.qp(), own2, far)
  }),
  none('threads that take turns to poll one CQ', s => {
    const [one, two] = [s.qp(), s.qp()]
    s.pollFrom(7, 11, s.write(11, one, own, far))
    s.pollFrom(7, 12, s.send(12, two))
    s.write(12, two, own2, far)
  }),
  none('a thread that begins after the completion', s => {
    s.poll(1, s.write(1, s.qp(), own, far))
    s.wait(99)
    s.write(99, s.qp(), own2, far)
  }),
  race('one thread posts, one polls, a third one posts without a wait', 'buffer-reused', s => {
    s.poll(12, s.read(11, s.qp(), far, own))
    s.write(13, s.qp(), own, far2)
  }),

  // ---- destroyed objects ----
  none('the queue pair was destroyed', s => {
    const qp = s.qp()
    s.write(1, qp, own, far)
    s.engine.close(qp.sends)
    s.write(2, s.qp(), theirs, far)
  }),
  none('the region was deregistered', s => {
    s.write(1, s.qp(), own, far)
    s.region.isDeregistered = true
    s.write(2, s.qp(), theirs, far)
  }),
]
