/*
 * The row of the finding bad-request.
 */

export const badRequest = {
  severity: 'error',
  needs: ['call', 'post', 'completion', 'all opcodes'],
  title: 'the queue pair does not accept the work request',
  why: 'Each type of queue pair has its operations and limits (IBA 10.8); adapters refuse other requests at the post, or complete them in error.',
  libraryAdvice:
    "check operation, options and number of slices against the queue pair's type and options (maxSendSge, maxInlineData)",
  causes: [
    'BAD_OPCODE',
    'TOO_MANY_SGE',
    'NOT_INLINE',
    'BAD_FLUSH',
    'KEY_CONFIGURATION',
    'NO_ADDRESS_HANDLE',
    'REFUSED',
  ],
  statuses: { LOC_LEN_ERR: 3, LOC_QP_OP_ERR: 1 },
  story: 'post',
} as const
