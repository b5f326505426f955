/*
 * Cases of test/programs/sanitizers/sanitized.c, by sanitizer: whether it reports, and what. A store or load of the
 * program in the wrong place is seen by ThreadSanitizer alone.
 */
export const ASAN = 'AddressSanitizer'
export const TSAN = 'ThreadSanitizer'
export const MEMCHECK = 'memcheck'
export type Sanitizer = typeof ASAN | typeof TSAN | typeof MEMCHECK

const REPORTS: Readonly<Record<Sanitizer, RegExp>> = {
  [ASAN]: /ERROR: AddressSanitizer: (?:heap-use-after-free|stack-use-after-return|heap-buffer-overflow)/,
  [TSAN]: /WARNING: ThreadSanitizer: /,
  [MEMCHECK]: /Unaddressable byte/,
}

interface Case {
  /** The sanitizers that report it. */
  readonly by: readonly Sanitizer[]
  /** It reports the case if other memory was there before. */
  readonly byChance?: Sanitizer
  /** SRD has no such requests. */
  readonly isRcOnly?: true
}

export const mistakes: Readonly<Record<string, Case>> = {
  changed_before_completion: { by: [TSAN] },
  freed_before_completion: { by: [ASAN, TSAN, MEMCHECK] },
  posted_after_free: { by: [ASAN, TSAN, MEMCHECK] },
  posted_after_return: { by: [ASAN] },
  received_past_object: { by: [ASAN, MEMCHECK], byChance: TSAN },
  read_before_completion: { by: [TSAN] },
  stored_before_read: { by: [TSAN] },
  unsignaled_changed: { by: [TSAN], isRcOnly: true },
  extended_changed: { by: [TSAN] },
}

const right = ['in_time', 'handed_over', 'told_by_message', 'destroyed', 'deregistered', 'freed_after_answer', 'forked']
/** Cases of one run. */
export const rightCases = (isSrd: boolean): readonly string[] => [
  ...right,
  'extended_in_time',
  'closed',
  'signaled',
  ...(isSrd
    ? []
    : ['inline_changed', 'unsignaled_in_time', 'reset', 'flushed', 'shared_receives', 'receives_of_two', 'one_buffer']),
]

/** What a sanitizer has said in `output` of a mistake, if it should have said something else. */
export const wrongReport = (name: string, sanitizer: Sanitizer, output: string): string | undefined => {
  const { by, byChance } = mistakes[name]!
  const hasReport = Object.values(REPORTS).some(report => report.test(output))
  const isReported = REPORTS[sanitizer].test(output) && output.includes(name)
  const isRight = by.includes(sanitizer) ? isReported : !hasReport || byChance === sanitizer
  return isRight ? undefined : `${name}: ${output || 'no report'}`
}
