/*
 * What `userdma check` leaves out because a table is full: the memory of the checker is bounded. What was left out is
 * counted, and told at the end with the reason and what to do.
 */

interface OmissionRow {
  /** Behind a count, and its consequence. */
  readonly what: string
  readonly advice: string
}

const LESS = 'check a shorter run'
const POLL = 'poll completions'

export const omissions = {
  findings: {
    what: 'occurrences of findings beyond the first 1,000 are not shown',
    advice: 'correct or suppress those that are shown, and check again',
  },
  stacks: {
    what: 'stacks were not kept, so that findings lack them or their lines',
    advice: LESS,
  },
  'destroyed-objects': {
    what: 'destroyed objects were forgotten: findings about their keys and numbers do not say whose they were',
    advice: LESS,
  },
  'race-log': {
    what: 'times a log of posts and polls was overwritten before it was read: races of its requests are not found',
    advice: 'give the program or the daemon more processor time, or post less at a time',
  },
  'race-unlogged': {
    what: 'requests whose posts are not in a log: races with them are not found',
    advice: 'run all programs under `userdma check --races`; a queue is complete again after its RESET',
  },
  'race-posts': {
    what: 'posts to queues of which too many were never seen by a device: races of these queues are not found',
    advice: 'post to connected queue pairs only',
  },
  'race-threads': {
    what: 'threads that were quiet longest were forgotten: what they had polled is unknown, which can warn without a race',
    advice: 'check with fewer threads',
  },
  'race-memory': {
    what: 'ranges of memory that were not accessed for the longest time were forgotten: races on them are not found',
    advice: LESS,
  },
  'race-readers': {
    what: 'earlier readers of a range, or atomics, were forgotten: races with them are not found',
    advice: 'check with fewer queue pairs that read one range',
  },
  'race-queues': {
    what: 'queues without an entry in clocks: what one thread knows of them, all know, which hides races',
    advice: 'check with fewer queue pairs',
  },
  'race-clocks': {
    what: 'requests without a clock: what was known anywhere at their post is known to them, which hides races',
    advice: `${POLL} earlier`,
  },
  'race-in-flight': {
    what: 'requests whose end nobody polled for very long count as over, which hides races',
    advice: `signal and ${POLL} now and then`,
  },
  'race-fences': {
    what: 'fenced requests were forgotten: READs before them count as over, which hides races',
    advice: `signal and ${POLL} now and then`,
  },
  'race-completions': {
    what: 'completions that nobody polled were forgotten: what later polls order is not known exactly',
    advice: POLL,
  },
  'race-requests': {
    what: 'requests without a completion were forgotten: they count as outstanding',
    advice: `signal and ${POLL} now and then`,
  },
} as const satisfies Readonly<Record<string, OmissionRow>>

/** Name of an omission: what was left out. */
export type OmissionId = keyof typeof omissions

/** What was left out, and how often. */
export interface Omission {
  /** Name of its row. */
  readonly id: OmissionId
  /** How often. */
  readonly count: number
}

/** Reports that something was left out, `count` times. */
export type NoteOmission = (id: OmissionId, count: number) => void

/** An omission as a sentence. */
export const omissionText = ({ id, count }: Omission): string => {
  const { what, advice } = omissions[id]
  return `${count} ${what} (${id}; ${advice})`
}
