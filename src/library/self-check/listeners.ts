/*
 * Who else gets the findings about checked devices of a network: its recording. Apart from the checker, so that neither
 * imports the other.
 */
import type { Core } from '../../core/model.ts'
import type { Finding } from '../../spec/check/finding.ts'

export const findingListeners = new WeakMap<Core, (finding: Finding) => void>()
