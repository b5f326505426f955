/*
 * Memory that its program gives back while a region of it lives, and what `userdma check` says of an access by the
 * device afterwards: the ways and accesses of test/programs/check/given_back.c. test/system/check/given-back.test.ts
 * runs them on each device; docs/reference/memory-given-back.md is made of this table.
 */
import type { FindingId } from '../../src/spec/check/findings.ts'
import type { Severity } from '../../src/spec/check/severity.ts'

export const accesses = {
  send: 'a SEND of it, posted later',
  receive: 'a receive into it, posted later',
  posted: 'a receive into it, posted before',
  'peer-read': 'a READ of a peer',
  'peer-write': 'a WRITE of a peer',
  'peer-atomic': 'an atomic of a peer',
} as const
export type AccessName = keyof typeof accesses

interface Told {
  readonly finding: FindingId
  readonly severity: Severity
}

interface Way {
  /** What the program does. */
  readonly does: string
  /** Of accesses that `told` does not have. */
  readonly others: Told
  readonly told?: Partial<Record<AccessName, Told>>
  /** The function of given_back.c that is in the stacks: of the call, or of the registration. */
  readonly function: string
}

const gone: Told = { finding: 'memory-gone', severity: 'error' }
const discarded: Told = { finding: 'memory-gone', severity: 'warning' }
const freed: Told = { finding: 'buffer-freed', severity: 'error' }
const remote: Told = { finding: 'remote-unmapped', severity: 'error' }
const local: Told = { finding: 'local-unmapped', severity: 'error' }
const returned: Told = { finding: 'frame-returned', severity: 'error' }

const unmapped: Pick<Way, 'others' | 'told'> = {
  others: local,
  told: { 'peer-read': remote, 'peer-write': remote, 'peer-atomic': remote },
}

export const ways = {
  free: { does: 'free', others: gone, told: { posted: freed }, function: 'by_free' },
  large: {
    does: 'free of a block that the allocator unmaps',
    ...unmapped,
    told: { ...unmapped.told, posted: freed },
    function: 'by_large_free',
  },
  realloc: { does: 'realloc', others: gone, told: { posted: freed }, function: 'by_realloc' },
  munmap: { does: 'munmap', ...unmapped, function: 'by_munmap' },
  mremap: { does: 'mremap', ...unmapped, function: 'by_mremap' },
  brk: { does: 'brk', ...unmapped, function: 'by_brk' },
  sbrk: { does: 'sbrk', ...unmapped, function: 'by_sbrk' },
  madvise: { does: 'madvise (MADV_DONTNEED)', others: discarded, function: 'by_madvise' },
  return: {
    does: 'the return of the function whose variable it is',
    others: gone,
    told: { send: returned, receive: returned, posted: returned },
    function: 'in_frame',
  },
  thread: { does: 'the end of the thread on whose stack it is', others: gone, function: 'in_thread' },
} as const satisfies Readonly<Record<string, Way>>
export type WayName = keyof typeof ways

/** What is told of an access. */
export const toldOf = (way: WayName, access: AccessName): Told => {
  const { others, told }: Way = ways[way]
  return told?.[access] ?? others
}
