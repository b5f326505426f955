/*
 * A site of a program as a survey finds it.
 */
import type { WalkSite } from '../../../src/cli/walk/site.ts'

export const site = (name: string, others: Partial<WalkSite> = {}): WalkSite => ({
  target: 'call',
  name,
  class: name.split('.')[0]!,
  site: '0000abcd',
  device: 'rxe0',
  program: 'p',
  process: 1,
  role: '0000aaaa',
  phase: 'begins',
  first: 1,
  count: 1,
  stack: ['f (/bin/p+0x1)'],
  host: '',
  ...others,
})
