/*
 * Network namespaces of processes, as /proc names them: `net:[4026531840]`.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { fdInode } from './memory/process.ts'

/** Undefined if the process has ended, or may not be looked at. */
export const networkNamespaceOf = (pid: number | 'self'): string | undefined => {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`)
  } catch {
    return undefined
  }
}

/**
 * The living network namespace of which a descriptor of a process is; undefined: of none. Does not read fdinfo, which
 * waits for locks of some files, such as an epoll set whose events are being copied.
 */
export const namespaceOfFd = (pid: number, fd: number): string | undefined => {
  try {
    const name = `net:[${fdInode(pid, fd)}]`
    return livingNamespaces(new Set([name])).has(name) ? name : undefined
  } catch {
    return undefined
  }
}

/** Of `names`, those that a process of this PID namespace has, or that are mounted here (`ip netns add`). */
export const livingNamespaces = (names: ReadonlySet<string>): Set<string> => {
  const found = new Set<string>()
  // The fourth field of a line is what is mounted.
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const name = line.split(' ', 4)[3]
    if (name !== undefined && names.has(name)) found.add(name)
  }
  for (const entry of readdirSync('/proc')) {
    if (found.size === names.size) break
    const name = /^\d+$/.test(entry) ? networkNamespaceOf(Number(entry)) : undefined
    if (name !== undefined && names.has(name)) found.add(name)
  }
  return found
}
