/*
 * Threads that the preload library does not see, because their program is not checked, or because they wait in calls
 * that it does not intercept: from /proc, by the commands of people, which may wait for a program. Without rights they
 * are unknown.
 */
import { type ThreadStatus, threadsOf, wordOf } from '../../host/threads.ts'
import type { Finding } from '../../spec/check/finding.ts'
import type { GraphProcess, GraphThread, ThreadWait, ThreadWaitKind } from '../../spec/check/thread-waits.ts'

/** Threads of a process that are looked at. */
const MAX_THREADS = 256

/** States of threads that have ended, and are not removed yet. */
const ENDED: ReadonlySet<string> = new Set(['Z', 'X'])

/** Numbers of system calls. */
const calls =
  process.arch === 'arm64'
    ? {
        futex: 98,
        read: 63,
        recvfrom: 207,
        recvmsg: 212,
        accept4: 242,
        ppoll: 73,
        epoll_pwait: 22,
        wait4: 260,
        clock_nanosleep: 115,
        epoll_pwait2: 441,
        mq_timedreceive: 183,
        mq_timedsend: 182,
        rt_sigtimedwait: 137,
        rt_sigsuspend: 133,
        semop: 193,
        semtimedop: 192,
        msgrcv: 188,
        msgsnd: 189,
        pselect6: 72,
        write: 64,
        sendto: 206,
        sendmsg: 211,
        connect: 203,
        flock: 32,
      }
    : {
        futex: 202,
        read: 0,
        recvfrom: 45,
        recvmsg: 47,
        accept: 43,
        accept4: 288,
        poll: 7,
        ppoll: 271,
        epoll_wait: 232,
        epoll_pwait: 281,
        wait4: 61,
        clock_nanosleep: 230,
        epoll_pwait2: 441,
        mq_timedreceive: 243,
        mq_timedsend: 242,
        rt_sigtimedwait: 128,
        rt_sigsuspend: 130,
        pause: 34,
        semop: 65,
        semtimedop: 220,
        msgrcv: 70,
        msgsnd: 69,
        select: 23,
        pselect6: 270,
        write: 1,
        sendto: 44,
        sendmsg: 46,
        connect: 42,
        flock: 73,
      }
const nameOf = (number: number): string | undefined => Object.entries(calls).find(([, value]) => value === number)?.[0]

type Found = Pick<GraphThread, 'kind' | 'object' | 'action' | 'enders' | 'process' | 'isOpen' | 'owner'>

const open = (kind: ThreadWaitKind, object: string, action: string): Found => ({
  kind,
  object,
  action,
  enders: [],
  process: false,
  isOpen: true,
})

/** Operations of futex(2) by which glibc 2.25 and newer waits, with FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME. */
const LOCK = 0x80n
const JOIN = 0x109n
const WAIT = 0x189n
/** Offsets of the owner's thread from the word on which glibc waits. */
const MUTEX_OWNER = 8n
const RWLOCK_OWNER = 16n

/** A thread that waits on a word: a lock's, whose owner is beside it. */
const onWord = (pid: number, [word = 0n, operation = 0n, value = 0n, timeout = 0n]: readonly bigint[]): Found => {
  const address = `0x${word.toString(16)}`
  const byOwner = (kind: 'mutex' | 'rwlock', owner: number | undefined): Found => {
    const name = `${kind} ${address}`
    if (!owner) return { ...open(kind, name, `waits for ${name}`), isOpen: owner === undefined, process: true }
    return {
      ...open(kind, name, `waits for ${name}, which thread ${owner} has locked`),
      owner,
      enders: [{ pid, tid: owner }],
      isOpen: false,
    }
  }
  const found = ((): Found => {
    if (operation === LOCK) return byOwner('mutex', wordOf(pid, word + MUTEX_OWNER))
    if (operation === JOIN) {
      const tid = Number(value)
      return {
        ...open('join', `thread ${tid}`, `joins thread ${tid}`),
        owner: tid,
        enders: [{ pid, tid }],
        isOpen: false,
      }
    }
    if (operation === WAIT && value !== 0n) return byOwner('rwlock', wordOf(pid, word + RWLOCK_OWNER))
    const name = `the condition variable or semaphore at ${address}`
    return { ...open('condition', name, `waits for ${name}`), isOpen: operation !== WAIT, process: true }
  })()
  return timeout === 0n ? found : { ...found, isOpen: true }
}

const foundOf = (pid: number, { call, state }: ThreadStatus): Found => {
  if (call === undefined)
    return open('unknown', 'unknown', `is in state ${state}: what it waits for is unknown, without rights`)
  if (call === 'running') return open('runs', 'nothing', 'runs')
  const { number, args } = call
  const name = nameOf(number)
  if (name === 'futex') return onWord(pid, args)
  if (name === undefined) return open('system-call', `system call ${number}`, `is in system call ${number}`)
  if (/poll$|^p?select/.test(name)) return open('descriptor', name, `waits in ${name}`)
  if (/^rt_sig|^pause$/.test(name)) return open('signal', 'signal', 'waits for a signal')
  if (/^sem/.test(name)) return open('semaphore', `semaphore set ${args[0]}`, `waits for semaphore set ${args[0]}`)
  if (/^msg/.test(name)) return open('message-queue', `message queue ${args[0]}`, `waits for message queue ${args[0]}`)
  if (name === 'clock_nanosleep') return open('sleep', 'time', 'sleeps')
  if (name === 'wait4') return open('child', 'child processes', 'waits for the end of a child process')
  return open('descriptor', `descriptor ${args[0]}`, `waits in ${name} for descriptor ${args[0]}`)
}

/** The processes with all their threads. `now`: microseconds. */
export const withUnseen = (processes: readonly GraphProcess[], now: number): readonly GraphProcess[] =>
  processes.map(process => {
    const { pid, command, threads, host, others } = process
    if (others === 0) return process
    const known = new Set(threads.map(({ tid }) => tid))
    const unseen = threadsOf(pid, MAX_THREADS).filter(({ tid }) => !known.has(tid))
    const found = unseen.map(
      (status): GraphThread => ({
        ...(host !== undefined && { host }),
        pid,
        command,
        tid: status.tid,
        since: now,
        stack: [],
        ...foundOf(pid, status),
      }),
    )
    return { ...process, threads: [...threads, ...found], others: Math.max(0, others - found.length) }
  })

/** A finding about a wait, with all threads of the processes concerned, as far as they live. */
export const withUnseenThreads = (finding: Finding): Finding => {
  const { waits, program, host, isWait, time } = finding
  if (waits === undefined && isWait === undefined) return finding
  const known = waits?.threads ?? []
  const processes = new Map<number, string>(program === undefined ? [] : [[program.pid, program.command]])
  for (const { pid, command, host: of } of known) if (of === host) processes.set(pid, command)
  const unseen = [...processes].flatMap(([pid, command]) => {
    const tids = new Set(known.filter(thread => thread.pid === pid && thread.host === host).map(({ tid }) => tid))
    return threadsOf(pid, MAX_THREADS)
      .filter(({ tid, state }) => !tids.has(tid) && !ENDED.has(state))
      .map((status): ThreadWait => {
        const { enders: _, process: __, isOpen: ___, ...found } = foundOf(pid, status)
        return { pid, command, tid: status.tid, since: time, stack: [], ...found }
      })
  })
  if (unseen.length === 0) return finding
  return { ...finding, waits: { shape: 'open', first: [], more: 0, ...waits, threads: [...known, ...unseen] } }
}
