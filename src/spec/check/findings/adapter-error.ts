/*
 * The row of the finding adapter-error.
 */

export const adapterError = {
  severity: 'error',
  needs: ['completion', 'adapter'],
  title: 'an adapter failed a request, and what was seen of the program does not say why',
  why: "An adapter reports a status and a number of its vendor. With `--host` userdma sees the program's calls, posts and completions, not the adapter.",
  advice:
    'look up vendor_err in the documentation of the adapter; run the program on a device of userdma for the cause',
  causes: ['NOT_OBSERVED'],
} as const
