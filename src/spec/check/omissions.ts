/*
 * Omissions of `userdma check`: records that the checker drops because a table is full, or cannot get. The report has
 * their numbers, the consequence and advice.
 */

interface OmissionRow {
  /** After the count in the report: the dropped records, and the consequence for findings. */
  readonly text: string
  readonly advice: string
}

const SHORTER_RUN = 'check a shorter run'
const POLL_COMPLETIONS = 'poll completions'

export const omissions = {
  findings: {
    text: 'occurrences of findings beyond the first 1,000 are not shown',
    advice: 'correct or suppress those that are shown, and check again',
  },
  stacks: {
    text: 'stacks were not kept: findings lack them',
    advice: SHORTER_RUN,
  },
  'destroyed-objects': {
    text: 'destroyed objects were forgotten: findings about their keys and numbers do not say whose they were',
    advice: SHORTER_RUN,
  },
  observed: {
    text: 'records of calls and posts were dropped: requests of their programs are not checked afterwards',
    advice: 'give the command more processor time, or use fewer threads',
  },
  'race-log': {
    text: 'times a log of posts and polls has lost entries: races of its queues are not found until their RESET',
    advice: 'give the program or the daemon more processor time, or post less at a time',
  },
  'race-unlogged': {
    text: 'requests are not checked, because a post to their queue is not in a log: races with these requests are not found',
    advice: 'run all programs under `userdma check --races`; a queue is checked again after its RESET',
  },
  'race-posts': {
    text: 'posts were forgotten, because too many posted requests were not fetched by devices: races of their queues are not found',
    advice: 'post to connected queue pairs only',
  },
  'race-threads': {
    text: 'threads were forgotten that had not posted or polled for the longest time: without the completions that these threads polled, a warning can be false',
    advice: 'check with fewer threads',
  },
  'race-memory': {
    text: 'ranges of memory were forgotten that had not been accessed for the longest time: races on these ranges are not found',
    advice: SHORTER_RUN,
  },
  'race-readers': {
    text: 'earlier readers of a range, or atomics, were forgotten: races with these are not found',
    advice: 'check with fewer queue pairs that read one range',
  },
  'race-queues': {
    text: 'queues have no entry in the vector clocks: what one thread knows of their requests counts as known to all threads, which hides races',
    advice: 'check with fewer queue pairs',
  },
  'race-clocks': {
    text: 'requests have no vector clock of their own: what any thread knew at their post counts as known to them, which hides races',
    advice: `${POLL_COMPLETIONS} earlier`,
  },
  'race-in-flight': {
    text: 'requests count as complete, because their completions were not polled for very long, which hides races',
    advice: `signal and ${POLL_COMPLETIONS} now and then`,
  },
  'race-fences': {
    text: 'fenced requests were forgotten: READs before them count as complete, which hides races',
    advice: `signal and ${POLL_COMPLETIONS} now and then`,
  },
  'race-completions': {
    text: 'completions that were not polled yet were forgotten: the order that later polls establish is not known exactly',
    advice: POLL_COMPLETIONS,
  },
  'race-requests': {
    text: 'outstanding requests were forgotten: races can be hidden, and a warning can be false',
    advice: 'check with fewer outstanding requests',
  },
  'race-benign': {
    text: 'ranges of memory in which a program allows races were left out: races in them are reported',
    advice: 'name fewer and larger ranges with USERDMA_CHECK_BENIGN_RACE',
  },
  advertised: {
    text: 'advertisements of memory in messages, or outstanding requests, were forgotten: late accesses for these are not found',
    advice: 'say by userdma.h what is lent (`userdma help how-to/lent-memory`)',
  },
  lends: {
    text: 'declarations of lent memory were not kept: accesses to these bytes, or to all memory of their process, are not checked',
    advice: 'take back what is lent, or declare larger pieces; declare less at a time from signal handlers',
  },
} as const satisfies Readonly<Record<string, OmissionRow>>

/** The name of an omission, as in the report. */
export type OmissionId = keyof typeof omissions

/** Records that the checker has dropped, or could not get. */
export interface Omission {
  /** Key of `omissions`. */
  readonly id: OmissionId
  /** The number before the text in the report, for example of dropped records. */
  readonly count: number
}

/** Adds to the count of an omission. */
export type NoteOmission = (id: OmissionId, count: number) => void

/** An omission as a sentence. */
export const omissionText = ({ id, count }: Omission): string => {
  const { text, advice } = omissions[id]
  return `${count} ${text} (${id}; ${advice})`
}
