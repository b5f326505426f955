/*
 * The kinds of failures that `userdma walk` makes, each once.
 */

/** In the order of reports, with the text of `--help`. */
export const walkKinds = {
  calls: 'each call fails',
  posts: 'each post of a request or receive fails',
  completions: 'each request completes with an error',
  packets: 'packets are lost, come twice or late, by their role',
  links:
    "the link goes down, for less and for longer than retries last; the device's GID moves (InfiniBand: its LID changes, a link between switches goes down, the subnet manager dies)",
  peers: 'each process is killed, or stopped for a time',
  devices: 'the device fails, is removed, or is removed and comes back',
  events: 'each event comes late, to another thread, or once more without cause',
} as const
export type WalkKind = keyof typeof walkKinds
export const walkKindNames = Object.keys(walkKinds) as readonly WalkKind[]
