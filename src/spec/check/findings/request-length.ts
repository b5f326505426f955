/*
 * The row of the finding request-length.
 */

export const requestLength = {
  severity: 'error',
  needs: ['device', 'atomics', 'causes'],
  title: 'the work request has a length that its operation does not allow',
  why: 'A message has at most 2^31 bytes, inline data at most max_inline_data; the result of an atomic needs 8 (IBA 9.4). A datagram longer than the path MTU is not sent, although its request completes with success (C10-93.1.1).',
  libraryAdvice: 'check the lengths of the slices; ask for a larger maxInlineData',
  causes: [
    'MESSAGE_TOO_LONG',
    'INLINE_TOO_LONG',
    'ATOMIC_LENGTH',
    'COPY_LENGTH',
    'DATAGRAM_TOO_LONG',
    'FRAME_LENGTH',
    'SRD_LENGTH',
  ],
  statuses: { LOC_LEN_ERR: 2 },
  story: 'post',
} as const
