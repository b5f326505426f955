/*
 * Cases of the programs of test/programs/sanitizers, by sanitizer: whether it reports, and what. A store or load of the
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
  /** SRD has no such requests, or no such order. */
  readonly isRcOnly?: true
}

/** Of a program: its mistakes, and what is right. */
interface Cases {
  readonly mistakes: Readonly<Record<string, Case>>
  readonly right: Readonly<Record<string, Pick<Case, 'isRcOnly'>>>
}

const RC_ONLY = { isRcOnly: true } as const
const BY_TSAN = { by: [TSAN] } as const
const ANY = {}

/** By name of the program. */
export const programs: Readonly<Record<string, Cases>> = {
  sanitized: {
    mistakes: {
      changed_before_completion: BY_TSAN,
      freed_before_completion: { by: [ASAN, TSAN, MEMCHECK] },
      posted_after_free: { by: [ASAN, TSAN, MEMCHECK] },
      posted_after_return: { by: [ASAN] },
      received_past_object: { by: [ASAN, MEMCHECK], byChance: TSAN },
      read_before_completion: BY_TSAN,
      stored_before_read: BY_TSAN,
      unsignaled_changed: { ...BY_TSAN, ...RC_ONLY },
      extended_changed: BY_TSAN,
    },
    right: {
      in_time: ANY,
      handed_over: ANY,
      told_by_message: ANY,
      destroyed: ANY,
      deregistered: ANY,
      freed_after_answer: ANY,
      forked: ANY,
      extended_in_time: ANY,
      closed: ANY,
      signaled: ANY,
      inline_changed: RC_ONLY,
      unsignaled_in_time: RC_ONLY,
      reset: RC_ONLY,
      flushed: RC_ONLY,
      shared_receives: RC_ONLY,
      receives_of_two: RC_ONLY,
      one_buffer: RC_ONLY,
    },
  },
  one_sided: {
    mistakes: {
      reposted_too_early: BY_TSAN,
      changed_while_read: BY_TSAN,
      torn_read: { ...BY_TSAN, ...RC_ONLY },
      torn_middle: { ...BY_TSAN, ...RC_ONLY },
      ring_without_credits: { ...BY_TSAN, ...RC_ONLY },
      flag_before_data: { ...BY_TSAN, ...RC_ONLY },
      tail_before_payload: { ...BY_TSAN, ...RC_ONLY },
      other_queue_pair: { ...BY_TSAN, ...RC_ONLY },
      written_after_free: { by: [ASAN, TSAN, MEMCHECK], ...RC_ONLY },
      written_past_object: { by: [ASAN, MEMCHECK], byChance: TSAN, ...RC_ONLY },
    },
    right: {
      by_completion: ANY,
      freed_in_time: ANY,
      forked: ANY,
      by_message: RC_ONLY,
      by_immediate: RC_ONLY,
      flag_last: RC_ONLY,
      flag_follows: RC_ONLY,
      small_flags: RC_ONLY,
      credits_by_read: RC_ONLY,
      ended: RC_ONLY,
      ring_with_credits: RC_ONLY,
      seqlock: RC_ONLY,
      counter: RC_ONLY,
      other_process: RC_ONLY,
    },
  },
}

/** Cases of a program, of one run if they are right. */
export const casesOf = (cases: Readonly<Record<string, Pick<Case, 'isRcOnly'>>>, isSrd: boolean): readonly string[] =>
  Object.keys(cases).filter(name => !isSrd || cases[name]!.isRcOnly === undefined)

/** What a sanitizer has said in `output` of a mistake, if it should have said something else. */
export const wrongReport = (
  name: string,
  { by, byChance }: Case,
  sanitizer: Sanitizer,
  output: string,
): string | undefined => {
  const hasReport = Object.values(REPORTS).some(report => report.test(output))
  const isReported = REPORTS[sanitizer].test(output) && output.includes(name)
  const isRight = by.includes(sanitizer) ? isReported : !hasReport || byChance === sanitizer
  return isRight ? undefined : `${name}: ${output || 'no report'}`
}
